"""Serving a model with vLLM on a rented host."""
