"""The client of Vast's API and what the processes of one computer share about an account."""
