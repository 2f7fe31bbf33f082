"""Ask the running stack's model one question: `MSG="..." python -m toolchain.chat STACK`.

With `--panel` it also shows the stack's panel at the end, as `make up` does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import openai
from rich.console import RenderableType

from components.core.bounded import Budget
from components.core.bounded_http import BoundedTransport, trust
from components.core.commands import made
from components.core.display import shown, shown_lines
from components.core.errors import StackError
from components.resources.context import Context
from toolchain.on_emulator import emulator_environment, outputs
from toolchain.panel import console, panel

SECONDS = 120.0
"""Seconds for a whole answer."""

MOST_BYTES = 2_097_152
"""Of an answer."""

QUESTION = "In one sentence: what are you, and where do you run?"


def main(stack: str, message: str, *, with_panel: bool = False) -> int:
    """Print the model's answer; return 1 with a sentence if there is none."""
    known = outputs(stack)
    if "endpoint_url" not in known:
        print(f"there is no endpoint: run {made('up', stack)} first", file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    status = _ask(known, message)
    if with_panel:
        for part in _boots(stack):
            console().print(part)
        # Shown also for an endpoint that does not answer, since it is billed.
        console().print(panel(stack, known, billed_at="of the emulator's money"))
    return status


def _boots(stack: str) -> Sequence[RenderableType]:
    """Draw how the machines have started just now; a boot that is not noted is not drawn."""
    from toolchain.day_two.boots import show_newest  # noqa: PLC0415  (a question needs none of it)

    try:
        return show_newest(Context(environment=emulator_environment()).boot_notes(), stack)
    except StackError as error:
        return [shown(str(error))]


def _ask(known: Mapping[str, Any], message: str) -> int:
    clock = Context().clock
    transport = BoundedTransport(
        trust(known["ca_certificate"], known.get("client_certificate") or ""),
        lambda: Budget(clock, SECONDS, MOST_BYTES),
    )
    client = openai.OpenAI(
        base_url=known["endpoint_url"],
        api_key=known["api_key"],
        http_client=httpx2.Client(transport=transport, trust_env=False, timeout=SECONDS),
    )
    try:
        answer = client.chat.completions.create(
            model=known["model"], messages=[{"role": "user", "content": message}]
        )
        said = str(answer.choices[0].message.content)
    except Exception as error:  # noqa: BLE001  (a stranger's bytes may bring libraries to any)
        print(shown(f"the endpoint did not answer: {error}"), file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    print(f"you:   {message}\nmodel: {shown_lines(said)}", flush=True)  # noqa: T201  (a command's own output)
    return 0


if __name__ == "__main__":
    sys.exit(
        main(
            sys.argv[1],
            os.environ.get("MSG") or QUESTION,
            with_panel="--panel" in sys.argv[2:],
        )
    )
