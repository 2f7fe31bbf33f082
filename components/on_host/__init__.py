"""What runs on the rented host: pushed there file by file, never imported from here by it."""
