"""How a stack is just now: `python -m toolchain.day_two.status --stack dev`."""
