"""What the programs of a stack have written: `python -m toolchain.day_two.logs --stack dev`."""
