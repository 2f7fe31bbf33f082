"""A rented contract over its life: what ends it, and what takes it away."""
