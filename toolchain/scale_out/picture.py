"""Draw how several machines serve one URL: `python -m toolchain.scale_out.picture`.

`make pictures` runs it. The picture names no font and no address to load.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape

from toolchain.checkout import ROOT

PLACE = ROOT / "docs" / "pictures" / "scale-out.svg"

WIDTH, HEIGHT = 920, 400
INK = "#1f2933"
QUIET = "#52606d"
CLIENT, ROUTER, MACHINE, LEAVING = "#e3f2fd", "#fff3cd", "#e8f5e9", "#eeeeee"
PROGRAM = "#f3e5f5"

Place = tuple[int, int, int, int]
"""Left, top, width and height."""

Point = tuple[int, int]

MACHINES = (
    ("machine 0", MACHINE, "takes requests"),
    ("machine 1", MACHINE, "takes requests"),
    ("machine 2", LEAVING, "drains: ends what it has"),
)


def main() -> int:
    """Write the picture."""
    PLACE.write_text(picture(), encoding="utf-8")
    return 0


def picture() -> str:
    """The whole picture as SVG."""
    parts = [*_clients(), *_router(), *_pulumi()]
    for number, (name, color, state) in enumerate(MACHINES):
        parts += _machine(20 + number * 105, name, color, state)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="13" fill="{INK}">\n'
        "<title>Clients ask one router, which chooses one of several machines</title>\n"
        '<defs><marker id="tip" markerWidth="9" markerHeight="9" refX="8" refY="4" orient="auto">'
        f'<path d="M0,0 L9,4 L0,8 z" fill="{QUIET}"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _clients() -> list[str]:
    return [
        *_box((20, 130, 150, 85), CLIENT, "clients", ["one URL, one CA", "the stack's key"]),
        _arrow((170, 172), (270, 172)),
        _text(220, 163, "TLS"),
    ]


def _router() -> list[str]:
    lines = [
        "knows SHA-256 digests of keys",
        "a conversation's head chooses",
        "the machine, over and over",
        "",
        "for each machine a second stage:",
        "its own key = HMAC of its contract",
        "its own name in the certificate",
    ]
    return _box((270, 80, 250, 185), ROUTER, "router: HAProxy on your computer", lines)


def _machine(top: int, name: str, color: str, state: str) -> list[str]:
    middle = top + 42
    dashes = ' stroke-dasharray="5,4"' if color == LEAVING else ""
    lines = ["gate: its own key alone, then vLLM", state]
    return [
        *_box((640, top, 260, 85), color, name, lines),
        _arrow((520, 172), (640, middle), dashes),
        _text(580, (172 + middle) // 2 - 8, "TLS, own key"),
    ]


def _pulumi() -> list[str]:
    lines = ["owns the list of members: writes the file, has it checked, reloads, asks, goes back"]
    return [
        *_box((20, 325, 880, 60), PROGRAM, "pulumi up", lines),
        _arrow((395, 325), (395, 265), ' stroke-dasharray="2,3"'),
    ]


def _box(place: Place, color: str, title: str, lines: Sequence[str]) -> list[str]:
    left, top, width, height = place
    middle = left + width // 2
    shape = f'x="{left}" y="{top}" width="{width}" height="{height}" rx="8"'
    head = f'x="{middle}" y="{top + 22}" text-anchor="middle" font-weight="bold"'
    return [
        f'<rect {shape} fill="{color}" stroke="{QUIET}"/>',
        f"<text {head}>{escape(title)}</text>",
        *(_text(middle, top + 43 + 19 * n, line) for n, line in enumerate(lines) if line),
    ]


def _text(middle: int, y: int, words: str) -> str:
    return f'<text x="{middle}" y="{y}" text-anchor="middle" fill="{QUIET}">{escape(words)}</text>'


def _arrow(begin: Point, end: Point, style: str = "") -> str:
    points = f'x1="{begin[0]}" y1="{begin[1]}" x2="{end[0]}" y2="{end[1]}"'
    return f'<line {points} stroke="{QUIET}" stroke-width="1.5" marker-end="url(#tip)"{style}/>'


if __name__ == "__main__":
    sys.exit(main())
