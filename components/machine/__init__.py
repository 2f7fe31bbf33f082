"""A remote computer, whoever rents it: its address, its logins, its inspection."""
