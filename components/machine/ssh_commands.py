"""The commands that put files on a host and read a piece of a log, and their answers. Pure."""

from __future__ import annotations

import codecs
import io
import re
import shlex
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath

from components.core.display import shown_lines
from components.machine.agent_answers import whole
from components.machine.ssh_types import FOLDER, LOG_PIECE

_LEFT_BEHIND_MINUTES = 10
"""Age after which an unfinished put is abandoned: its machine went down, or its shell was killed.
It holds nothing but secrets by then.
"""

_LONGEST_SEQUENCE = 256
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*+[ -/]*+|[\]PX^_][^\x00-\x1f\x7f]*+(?:\x1b)?|[ -/]*+)\Z")
"""An escape sequence that has begun; one longer than `_LONGEST_SEQUENCE` bytes is none."""


def check_relative(name: str) -> None:
    """Refuse a name that leaves the serving folder.

    Raises:
        ValueError: naming it.
    """
    parts = PurePosixPath(name).parts
    if not re.fullmatch(r"[A-Za-z0-9._/-]+", name) or name.startswith("/") or ".." in parts:
        raise ValueError(f"not a path under the serving folder: {name!r}")


def put_command(names: list[str]) -> str:
    """Unpack a tar from the input and rename its files into place, in the order of `names`."""
    left_behind = f"find . -maxdepth 1 -name '.incoming.*' -mmin +{_LEFT_BEHIND_MINUTES}"
    folders = sorted({str(PurePosixPath(name).parent) for name in names})
    moves = [f'mv -f "$new"/{shlex.quote(name)} {shlex.quote(name)}' for name in names]
    return "\n".join(
        [
            f'set -e; umask 077; mkdir -p "$HOME/{FOLDER}"; cd "$HOME/{FOLDER}"',
            f"{left_behind} -exec rm -rf '{{}}' + || true",
            "new=$(mktemp -d .incoming.XXXXXX); trap 'rm -rf \"$new\"' EXIT",
            'tar -x -p --no-same-owner -f - -C "$new"',
            f"mkdir -p {shlex.join(folders)}",
            *moves,
        ]
    )


def tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """Pack files: name -> content and mode."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def log_command(name: str, offset: int) -> str:
    """Print the offset that the piece begins at, then at most `LOG_PIECE` bytes from there."""
    return "\n".join(
        [
            f'file="$HOME/{FOLDER}/{name}"; from={int(offset)}',
            'if [ ! -f "$file" ]; then echo 0; exit 0; fi',
            # The log was emptied since: it grew too large, or the server was started anew.
            'if [ "$(wc -c < "$file")" -lt "$from" ]; then from=0; fi',
            'echo "$from"',
            f'tail -c "+$((from + 1))" "$file" | head -c {LOG_PIECE}',
        ]
    )


def read_piece(printed: bytes, offset: int) -> tuple[str, int] | None:
    """Read what `log_command` prints: text of lines fit to be shown, and where to go on from.

    `offset` is what was asked for. None if this is no piece of a log.
    """
    head, _, piece = printed.partition(b"\n")
    start = whole(head[:20].decode(errors="replace"))
    if start not in {0, offset} or len(piece) > LOG_PIECE:
        return None
    # A sequence or a character that is cut in two stays for the next call.
    cut = _UNFINISHED.search(piece, max(len(piece) - _LONGEST_SEQUENCE, 0))
    complete = piece[: cut.start()] if cut else piece
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(complete)
    read = len(complete) - len(decoder.getstate()[0])
    return shown_lines(text), start + read
