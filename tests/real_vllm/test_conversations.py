"""The stand-in's rules for conversations, held to the tokenizer that vLLM asks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.standins.vllm.api_errors import ApiError
from emulator.standins.vllm.mistral_rules import check_conversation, check_last, with_short_ids
from tests.emulator.standins.chat_requests import PICTURE
from toolchain.real_vllm.set_up import MODEL, VENV

pytestmark = pytest.mark.timeout(900)

Message = dict[str, Any]
Verdict = Callable[[list[Message], list[Message], bool], str | None]


@pytest.fixture(scope="module")
def verdict() -> Iterator[Verdict]:
    """Ask vLLM's tokenizer, in a process of its own; it takes twenty seconds to start."""
    script = Path(__file__).with_name("tokenizer_of_vllm.py")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    with subprocess.Popen(
        [str(VENV / "bin" / "python"), str(script), str(MODEL)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(messages: list[Message], tools: list[Message], goes_on: bool) -> str | None:
            asked = {"messages": messages, "tools": tools, "goes_on": goes_on}
            stdin.write(json.dumps(asked) + "\n")
            stdin.flush()
            told: str | None = json.loads(stdout.readline())
            return told

        yield ask
        stdin.close()


IDENTIFIERS = st.sampled_from(["abcdefghi", "bbbbbbbbb", "xabcdefghi", "a", "", "null"])
GOOD_IDENTIFIERS = st.sampled_from(["abcdefghi", "bbbbbbbbb", "zbbbbbbbbb"])
NAMES = st.sampled_from(["f", "get_weather", "a b", "a" * 64, "a" * 65, "", "f\n", "ä", "a-b"])
GOOD_NAMES = st.sampled_from(["f", "g"])
PARTS = st.sampled_from(
    [
        {"type": "text", "text": "x"},
        {"type": "text", "text": ""},
        {"type": "image_url", "image_url": {"url": PICTURE}},
        {"type": "image_url", "image_url": {"url": PICTURE, "size": "large"}},
        {"type": "thinking", "thinking": "t"},
        {"type": "thinking", "thinking": ""},
        {"type": "refusal", "refusal": "x"},
        {"type": "input_text", "text": "x"},
    ]
)
CONTENTS = st.one_of(st.sampled_from(["x", "", None]), st.lists(PARTS, max_size=3))
SCHEMAS = st.sampled_from(
    [
        None,
        {},
        {"type": "object", "properties": {}},
        {"type": "dict"},
        {"properties": {"a": {"required": True}}},
        {"required": ["a", "a"]},
        {"properties": {"a": {"pattern": "("}}},
        {"$ref": "#/nowhere"},
    ]
)


def calls(
    identifiers: st.SearchStrategy[str], names: st.SearchStrategy[str]
) -> st.SearchStrategy[Message]:
    function = st.fixed_dictionaries({"name": names, "arguments": st.just("{}")})
    return st.fixed_dictionaries(
        {"id": identifiers, "type": st.just("function"), "function": function}
    )


def answers(
    content: st.SearchStrategy[Any], call: st.SearchStrategy[Message], *traces: str
) -> st.SearchStrategy[Message]:
    return st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": content},
        optional={
            "tool_calls": st.lists(call, max_size=2),
            **({"reasoning": st.sampled_from(traces)} if traces else {}),
        },
    )


def said(role: str, content: st.SearchStrategy[Any], **more: Any) -> st.SearchStrategy[Message]:
    return st.fixed_dictionaries({"role": st.just(role), "content": content, **more})


GOOD = st.one_of(
    said("user", st.just("x")),
    said("system", st.just("x")),
    said("tool", st.just("x"), tool_call_id=GOOD_IDENTIFIERS),
    answers(st.sampled_from(["x", ""]), calls(GOOD_IDENTIFIERS, GOOD_NAMES)),
)
"""Messages that are right by themselves."""
ANY = st.one_of(
    GOOD,
    said("user", CONTENTS),
    said("system", CONTENTS),
    said("tool", CONTENTS, tool_call_id=IDENTIFIERS),
    said("tool", CONTENTS, tool_call_id=IDENTIFIERS, name=NAMES),
    said("developer", st.just("x")),
    said("critic", st.just("x")),
    answers(CONTENTS, calls(IDENTIFIERS, NAMES), "t", ""),
)
CONVERSATIONS = st.one_of(
    st.lists(GOOD, min_size=1, max_size=8), st.lists(ANY, min_size=1, max_size=6)
)
FUNCTIONS = st.fixed_dictionaries(
    {"name": st.one_of(GOOD_NAMES, NAMES), "description": st.none(), "parameters": SCHEMAS}
)
TOOLS = st.fixed_dictionaries({"type": st.just("function"), "function": FUNCTIONS})


def own_verdict(messages: list[Message], tools: list[Message], goes_on: bool) -> str | None:
    try:
        short = [with_short_ids(message) for message in messages]
        check_last(short, begins=not goes_on, goes_on=goes_on)
        check_conversation(short, tools, goes_on=goes_on)
    except ApiError as error:
        return str(error)
    return None


def test_the_stand_in_refuses_the_same_conversations_in_the_same_words(verdict: Verdict) -> None:
    seen = {"accepted": 0, "refused": 0}

    @settings(max_examples=2000, deadline=None, database=None)
    @given(CONVERSATIONS, st.lists(TOOLS, max_size=2), st.booleans())
    def compare(messages: list[Message], tools: list[Message], goes_on: bool) -> None:
        real = verdict(messages, tools, goes_on)
        ours = own_verdict(messages, tools, goes_on)
        seen["accepted" if real is None else "refused"] += 1
        assert (real is None) == (ours is None), (real, ours)
        if real is not None and ours is not None:
            # Of what pydantic refuses the stand-in tells the first line or two.
            assert ours.splitlines()[0] == real.splitlines()[0], (real, ours)

    compare()
    assert min(seen.values()) > 100, seen
