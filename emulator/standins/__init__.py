"""The commands that an emulated container finds on its PATH, and the module behind each.

A stand-in runs inside a container of the emulator: it reads the facts of its host from the file
that `EMULATED_HOST` names, behaves as the real command would there, and refuses to run elsewhere.
"""

from __future__ import annotations

COMMANDS: dict[str, str] = {
    "vllm": "emulator.standins.vllm",
    "nvidia-smi": "emulator.standins.nvidia_smi",
    "hf": "emulator.standins.hf",
    "df": "emulator.standins.df",
}
"""Command name -> the module that is run with `python -m` in its place."""
