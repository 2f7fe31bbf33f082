"""What is wrong with a set-up, before the first dollar: `python -m toolchain.day_two.doctor`."""
