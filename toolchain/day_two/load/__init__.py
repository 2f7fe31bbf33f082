"""How a stack answers under load: `python -m toolchain.day_two.load --stack dev`.

guidellm makes the load, in an environment of its own. This package decides what is asked, what it
may cost, how the result is read, and how it is kept and shown.
"""
