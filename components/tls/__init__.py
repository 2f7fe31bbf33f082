"""A stack's certificate authority: whom clients trust, and who signs."""
