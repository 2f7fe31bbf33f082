"""What was done to a stack: `python -m toolchain.day_two.history --stack dev`."""
