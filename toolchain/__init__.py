"""What sets the project up and runs it on a machine of its own."""
