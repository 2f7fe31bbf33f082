"""Commands for whoever runs a stack every day: see it, read it, check it. They change nothing."""
