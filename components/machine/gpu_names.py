"""Whether a machine shows the GPU that was rented: two spellings of one thing. Pure.

Vast shortens NVIDIA's names: `A100 SXM4` is `NVIDIA A100-SXM4-80GB` on the machine itself, and
`RTX 6000Ada` is `NVIDIA RTX 6000 Ada Generation`. Some forms go without saying on either side.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Z]*\d+|[A-Z]+")
"""A model such as `H200`, `4090` or `L40`, or a word; what follows a number begins another one."""

_SHORT = {"SUPER": "S", "SERVER": "S", "WORKSTATION": "WS", "QUADRO": "Q"}
"""Words of NVIDIA's that Vast shortens."""

_VARIANTS = {"TI", "S", "D", "ADA", "LAPTOP", "X", "WS", "Q"}
"""Words that make another GPU out of the same number; all others say nothing by themselves."""


def is_same_gpu(rented: str, found: str) -> bool:
    """Compare Vast's name of a GPU with nvidia-smi's; a name that Vast does not give is any."""
    ours, theirs = _words(rented), _words(found)
    if not ours:
        return True
    if _model(ours) != _model(theirs) or not _is_same_form(_form(ours), _form(theirs)):
        return False
    named = {word for word in ours if not _is_form(word)}
    return named <= set(theirs) and named & _VARIANTS == set(theirs) & _VARIANTS


def _words(name: str) -> list[str]:
    return [_SHORT.get(word, word) for word in _WORD.findall(name.upper().replace("MAX-Q", ""))]


def _model(words: list[str]) -> str:
    return next((word for word in words if word[-1].isdigit()), "")


def _form(words: list[str]) -> str:
    return next((word for word in words if _is_form(word)), "")


def _is_form(word: str) -> bool:
    return word in {"PCIE", "NVL"} or word.startswith("SXM")


def _is_same_form(ours: str, theirs: str) -> bool:
    """Both sides may leave SXM out. NVL is always named."""
    if ours.startswith("SXM"):
        return not theirs or theirs.startswith("SXM")
    return ours == theirs or (not ours and theirs != "NVL")
