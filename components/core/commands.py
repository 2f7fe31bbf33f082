"""Commands in sentences, as they are typed where the sentence is read. Pure.

Sentences name the command for an account: `pulumi up`. On the emulator that command would reach
another stack. So the emulator's wrapper puts the stack's name into the environment, and sentences
name `make` instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

STACK_ON_EMULATOR = "STACK_ON_EMULATOR"
"""Variable with the name of the stack, for what the emulator's wrapper starts."""

DEFAULT_STACK = "local"
"""The stack that `make` uses by default."""

_GOALS = {"up": "up", "preview": "preview", "refresh": "refresh", "destroy": "down"}
_SETTING = r"(?P<key>[A-Za-z]+)"
_COMMANDS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str], str]], ...] = (
    (
        re.compile(r"`pulumi (?P<goal>up|preview|refresh|destroy)( --stack (?P<stack>[\w.-]+))?`"),
        lambda found, stack: made(_GOALS[found["goal"]], found["stack"] or stack),
    ),
    (
        re.compile(rf"`pulumi config set (?P<secret>--secret )?{_SETTING} (?P<value>[^`]+)`"),
        lambda found, stack: (
            f"`vast-vllm:{found['key']}: {found['value']}` under `config:` in "
            f"{'.tools/emulated/' if found['secret'] else ''}Pulumi.{stack}.yaml"
        ),
    ),
    (
        re.compile(rf"`pulumi config rm {_SETTING}`"),
        lambda found, stack: f"take `vast-vllm:{found['key']}` out of Pulumi.{stack}.yaml",
    ),
    (
        re.compile(r"`pulumi (?P<command>up|refresh|destroy|cancel|stack rm)(?P<rest>[^`]*)`"),
        lambda found, stack: _other(f"{found['command']} --yes", found["rest"], stack),
    ),
    (
        re.compile(r"`pulumi (?P<command>[a-z]+)(?P<rest> [^`]*)?`"),
        lambda found, stack: _other(found["command"], found["rest"] or "", stack),
    ),
    (
        re.compile(r"`(?P<make>make [^`]*?) ON=account`"),
        lambda found, _stack: f"`{found['make']}`",
    ),
    (
        re.compile(r"`(?P<vastai>vastai (destroy|show|label) [^`]+)`"),
        lambda found, _stack: (
            f"`{found['vastai']}` (with the variables that `make emulator` shows, in `make shell`)"
        ),
    ),
)


def as_typed_here(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a sentence with the commands that work where it is read."""
    stack = environment.get(STACK_ON_EMULATOR, "")
    return as_typed_on_emulator(text, stack) if stack else text


def as_typed_on_emulator(text: str, stack: str) -> str:
    """Return a sentence with the commands for a stack on the emulator."""
    if "`" not in text:
        return text
    for pattern, typed in _COMMANDS:
        text = pattern.sub(lambda found, typed=typed: typed(found, stack), text)  # type: ignore[misc]
    return text


def made(goal: str, stack: str) -> str:
    """A goal of `make` for a stack, as it is typed."""
    return f"`make {goal}`" if stack == DEFAULT_STACK else f"`make {goal} STACK={stack}`"


def _other(command: str, rest: str, stack: str) -> str:
    # The wrapper names the stack itself.
    rest = re.sub(rf"( --stack)? {re.escape(stack)}(?= |$)", "", rest)
    return f"`{on_emulator(f'{command}{rest}', stack)}` in `make shell`"


def on_emulator(words: str, stack: str) -> str:
    """Any command of `pulumi` for a stack on the emulator; it works in `make shell`."""
    return f"python -m toolchain.on_emulator --stack {stack} pulumi {words}"
