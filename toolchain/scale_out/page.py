"""The parts of docs/scale-out.md that commands write. Pure."""

from __future__ import annotations

from toolchain.checkout import ROOT

DOCUMENT = ROOT / "docs" / "scale-out.md"


def written(page: str, command: str, content: str) -> str:
    """Put `content` where the page has room for what `command` writes; the rest stays.

    Raises:
        ValueError: if the page has no room for it.
    """
    begin, end = marks(command)
    head, found, rest = page.partition(begin)
    _, ends, tail = rest.partition(end)
    if not (found and ends):
        raise ValueError(f"the page has no part that `{command}` writes")
    return f"{head}{begin}\n{content}\n{end}{tail}"


def marks(command: str) -> tuple[str, str]:
    """What stands before and behind the part that a command writes."""
    return (
        f"<!-- written by `{command}` -->\n",
        f"<!-- the end of what `{command}` writes -->\n",
    )
