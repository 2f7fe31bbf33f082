"""A model, a price and a promise in; a private OpenAI-compatible endpoint on rented GPUs out."""
