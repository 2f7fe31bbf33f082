"""What a user can get wrong: one sentence, an exit code, and nothing rented."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.helpers.stack_world import Done, Emulator, Stack


@pytest.fixture(scope="module")
def stack(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return Stack(tmp_path_factory.mktemp("stack"), emulator, name="bad-input", is_forked=True)


@pytest.fixture(autouse=True)
def nothing_is_rented(emulator: Emulator) -> Iterator[None]:
    before = emulator.last_request()
    yield
    assert emulator.writes(after=before) == []


def assert_refused(done: Done, *said: str) -> None:
    assert done.status != 0, done.outcome()
    assert "Traceback" not in done.output, done.outcome()
    text = " ".join(done.output.split())
    for part in said:
        assert part in text, done.outcome()


# What else is refused, and how, is in tests/unit/test_plan*.py and tests/unit/test_settings.py.
@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ({"diskGB": 500}, ["'diskGB' does not exist", "did you mean 'diskGb'?"]),
        ({"diskGb": "much"}, ["diskGb", "integer"]),
        (
            {"offerQuery": "gpu_name=RTX_4090 num_gpus=2"},
            ["does not fit", "23.5 GiB on each GPU", "a profile with smaller weights"],
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_in_preview(stack, configuration, said):
    stack.configure(**configuration)
    assert_refused(stack.preview(), *said)


@pytest.mark.parametrize(
    ("act", "configuration", "said"),
    [
        (
            Stack.up,
            {"offerQuery": "gpu_name=H200 num_gpus=2 inet_down>=900000"},
            ["no offer on the market matches", "inet_down gte 900000", "nothing was rented"],
        ),
        (
            Stack.preview,
            {"maxDollarsPerHour": "1.50"},
            ["the cheapest costs $", "maxDollarsPerHour is 1.50", "raise it to at least"],
        ),
    ],
)
def test_a_market_that_has_nothing_is_said_before_any_money(stack, act, configuration, said):
    stack.configure(**configuration)
    done = act(stack)
    assert_refused(done, *said)


def no_key(stack: Stack) -> Stack:
    return stack.with_environment({"VAST_API_KEY": None})


def wrong_key(stack: Stack) -> Stack:
    return stack.with_environment({"VAST_API_KEY": "emulator-is-not-this-key"})


def nobody_there(stack: Stack) -> Stack:
    return stack.with_environment({"VAST_URL": "http://127.0.0.1:9"})


def in_clear(stack: Stack) -> Stack:
    return stack.with_environment({"VAST_URL": "http://vast.example.com"})


@pytest.mark.parametrize(
    ("who", "said"),
    [
        (in_clear, ["'http://vast.example.com' and has to be https", "nothing was sent"]),
        (no_key, ["no Vast.ai API key", "vastai set api-key"]),
        (wrong_key, ["does not accept the API key", "check VAST_API_KEY"]),
        (nobody_there, ["http://127.0.0.1:9 is unreachable", "check the network and VAST_URL"]),
    ],
)
def test_without_a_market_there_is_no_preview(
    stack: Stack, who: Callable[[Stack], Stack], said: list[str]
) -> None:
    stack.configure()
    done = who(stack).preview()
    assert_refused(done, *said)
    assert "emulator-is-not-this-key" not in done.output
