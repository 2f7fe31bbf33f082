"""From dev to prod, as people do it: each step is one command, and what came of it.

Played by `test_promotion.py`, and by `python -m tests.cli.promotion`, which writes the table of
`docs/promotion.md`.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.outputs import unfolded
from components.vllm.hub_names import is_commit
from tests.helpers.checkout import Asked, Checkout, Client
from tests.helpers.places import ROOT
from tests.helpers.polling import eventually
from tests.helpers.stack_world import Done, Emulator

SPEED = 200
"""Of the emulator's clock: what costs $5 an hour costs $5 in 18 s."""

DOCUMENT = ROOT / "docs/promotion.md"

STACKS = ("dev", "staging", "prod")


@dataclasses.dataclass
class Step:
    """A line of the table: $ billed to all three stacks while it took so many seconds."""

    what: str
    command: str
    outcome: str = ""
    seconds: float = 0.0
    dollars: float = 0.0
    hosts: int = 0
    """Contracts afterwards, all stacks together."""


class Story:
    """The steps in their order; each raises AssertionError if something was not as promised."""

    def __init__(
        self,
        checkout: Checkout,
        emulator: Emulator,
        say: Callable[[str], None] = print,
        *,
        asks_every: float = 0.1,
    ) -> None:
        """Prepare it; prod's client asks every so many seconds."""
        self.checkout = checkout
        self.emulator = emulator
        self.steps: list[Step] = []
        self._say = say
        self._asks_every = asks_every

    def play(self) -> None:
        """All of it."""
        self.prod_tells_its_gateway()
        self.prod_refuses_what_was_never_released()
        committed = self.checkout.committed()
        self.dev_pins_what_it_runs()
        self.dev_comes_up()
        self.a_release_is_written("r1")
        self.prod_refuses_what_staging_has_not_proven("r1")
        self.it_is_promoted("r1", "staging")
        self.it_is_promoted("r1", "prod")
        assert self.checkout.committed() == committed
        self.dev_moves_on()
        self.a_release_is_written("r2")
        self.prod_refuses_what_staging_has_not_proven("r2")
        self.it_is_promoted("r2", "staging")
        self.it_fails_in_prod("r2", keeping="r1")
        self.prod_goes_back_after_the_failure("r1")
        self.it_replaces_without_an_outage("r2")
        self.prod_rolls_back("r1")
        self.everything_is_destroyed()

    def prod_tells_its_gateway(self) -> None:
        """The file stands for whatever routes the clients."""
        place = shlex.quote(str(self.checkout.announced("prod")))
        new = f"{place}.new"
        tell = 'printf "%s\\n" "$ENDPOINT_URL" "$ENDPOINT_KEY" "$ENDPOINT_CERTIFICATE"'
        self.checkout.configure("prod", announceCommand=f"{tell} > {new} && mv {new} {place}")

    def prod_refuses_what_was_never_released(self) -> None:
        """Its own rules: settings with a tag and a branch are nothing for production."""
        with self._step("prod refuses its mere settings", "make up STACK=prod") as step:
            before = self.emulator.last_request()
            done = self.checkout.on_stack("prod", "up")
            assert done.status != 0, done.outcome()
            assert "is named by a tag, not by its digest" in done.output, done.outcome()
            assert self.emulator.writes(after=before) == []
            step.outcome = "refused: no release, and image and model are not pinned"

    def dev_pins_what_it_runs(self) -> None:
        """What a release is made of names its image by digest and its model by commit."""
        with self._step("dev pins image and model", "make pin STACK=dev") as step:
            done = self.checkout.python("toolchain.pin", "--stack", "dev")
            assert done.status == 0, done.outcome()
            assert "@sha256:" in self.checkout.configured("dev", "image")
            commits = self.checkout.configured("dev", "revisions")
            assert commits
            assert all(is_commit(commit) for commit in commits.values())
            step.outcome = (
                "the tag's digest, from the registry, and the branch's commit, from the Hub"
            )

    def dev_comes_up(self) -> None:
        """The first stack takes what its settings say."""
        with self._step("dev comes up", "make up STACK=dev") as step:
            step.outcome = _ready(self._up("dev"))

    def dev_moves_on(self) -> None:
        """A change is tried where it hurts nobody."""
        self.checkout.configure("dev", vllmOverrides={"max-num-seqs": 64})
        with self._step("dev tries another option", "make up STACK=dev") as step:
            done = self._up("dev")
            assert "restarts on the same host after draining" in done.output, done.outcome()
            step.outcome = "restarted in place, proven by its smoke test"

    def a_release_is_written(self, name: str) -> None:
        """What dev runs gets a name."""
        command = f"make release NAME={name} STACK=dev"
        with self._step(f"release {name} is written", command) as step:
            done = self.checkout.python("toolchain.release", name, "--stack", "dev")
            assert done.status == 0, done.outcome()
            step.outcome = done.output.strip().partition(": ")[2].partition(",")[0]

    def prod_refuses_what_staging_has_not_proven(self, name: str) -> None:
        """The gate."""
        command = f"make promote RELEASE={name} FROM=staging TO=prod"
        with self._step(f"{name} is kept out of prod", command) as step:
            before = self.emulator.last_request()
            if not self.checkout.outputs("staging"):
                self.checkout.on_stack("staging", "outputs")
            done = self._promote(name, "prod")
            assert done.status != 0, done.outcome()
            assert f"release {name} (" in done.output, done.outcome()
            assert "is not let in, nothing was changed or rented" in done.output, done.outcome()
            assert "Traceback" not in done.output, done.outcome()
            assert self.checkout.configured("prod", "release") != name
            assert self.emulator.writes(after=before) == []
            step.outcome = "refused in preview: staging does not run it"

    def it_is_promoted(self, name: str, stack: str) -> None:
        """What the stack before runs and has proven is let in, and runs."""
        with self._step(f"{name} to {stack}", f"make promote TO={stack}, make up") as step:
            # The stack before may be one that an older release of this project has brought up.
            self._has_outputs_of_an_older_release({"staging": "dev", "prod": "staging"}[stack])
            done = self._promote(name, stack)
            assert done.status == 0, done.outcome()
            step.outcome = _ready(self._up(stack))
            self._runs(stack, name)

    def it_fails_in_prod(self, name: str, *, keeping: str) -> None:
        """A release that was proven, and does not come up on prod's new host."""
        with self._step(f"{name} fails in prod", "make promote TO=prod, make up") as step:
            before = self.checkout.outputs("prod")
            done = self._promote(name, "prod")
            assert done.status == 0, done.outcome()
            assert "/h together; if the new one fails, nothing else changes" in done.output
            self.emulator.arm("engine_oom", 9)
            with self._client("prod") as client:
                done = self.checkout.on_stack("prod", "up")
            self.emulator.disarm()
            assert done.status != 0, done.outcome()
            assert "a GPU ran out of memory" in done.output, done.outcome()
            assert "untouched, and serves on" in done.output, done.outcome()
            old = _only(client, before)
            self._runs("prod", keeping)
            step.outcome = f"the update fails; {keeping} answered {old.answered} of {_all(old)}"

    def prod_goes_back_after_the_failure(self, name: str) -> None:
        """The failed machine goes, the old one has never noticed."""
        with self._step(f"prod goes back to {name}", "make rollback STACK=prod, make up") as step:
            before = self.checkout.outputs("prod")
            contracts = len(self.emulator.status()["contracts"])
            self._rollback("prod", name)
            with self._client("prod") as client:
                self._up("prod")
            old = _only(client, before)
            assert len(self.emulator.status()["contracts"]) == contracts - 1
            assert self.checkout.outputs("prod")["started_at"] == before["started_at"]
            self._runs("prod", name)
            step.outcome = f"the failed machine goes; {name} answered {old.answered} of {_all(old)}"

    def it_replaces_without_an_outage(self, name: str) -> None:
        """The new one answers before the old one goes."""
        with self._step(f"{name} to prod", "make promote TO=prod, make up") as step:
            self._has_outputs_of_an_older_release("prod")
            done = self._promote(name, "prod")
            assert done.status == 0, done.outcome()
            step.outcome = self._taken_over("prod")
            self._runs("prod", name)

    def prod_rolls_back(self, name: str) -> None:
        """Back to what ran before, the same way."""
        with self._step(f"prod rolls back to {name}", "make rollback STACK=prod, make up") as step:
            self._rollback("prod", name)
            step.outcome = self._taken_over("prod")
            self._runs("prod", name)

    def everything_is_destroyed(self) -> None:
        """Nothing is billed any more."""
        for stack in reversed(STACKS):
            with self._step(f"{stack} is destroyed", f"make down STACK={stack}") as step:
                done = self.checkout.on_stack(stack, "destroy")
                assert done.status == 0, done.outcome()
                step.outcome = "gone, read back"
        status = self.emulator.status()
        assert status["contracts"] == []
        assert status["dollars_per_hour"] == 0

    def _taken_over(self, stack: str) -> str:
        before = self.checkout.outputs(stack)
        with self._client(stack) as client:
            done = self._up(stack)
            after = self.checkout.outputs(stack)
            eventually(lambda: client.answered(after["endpoint_url"]) > 0)
        old, new = client.asked[before["endpoint_url"]], client.asked[after["endpoint_url"]]
        assert old.answered > 0
        assert old.failures == []
        assert new.answered > 0
        assert new.failures == []
        assert "its clients have left" in done.output, done.outcome()
        assert after["api_key"] != before["api_key"]
        assert after["ca_certificate"] == before["ca_certificate"]
        assert after["instance_id"] != before["instance_id"]
        return (
            f"the new machine answered {new.answered} of {_all(new)}, the old one, until its "
            f"clients had left, {old.answered} of {_all(old)}"
        )

    def _client(self, stack: str) -> Client:
        return Client(self.checkout, stack, self._asks_every)

    def _up(self, stack: str) -> Done:
        done = self.checkout.on_stack(stack, "up")
        assert done.status == 0, done.outcome()
        return done

    def _promote(self, name: str, stack: str) -> Done:
        return self.checkout.python("toolchain.promote", "release", name, "--to", stack)

    def _rollback(self, stack: str, name: str) -> None:
        done = self.checkout.python("toolchain.promote", "rollback", "--stack", stack)
        assert done.status == 0, done.outcome()
        assert f"back to {name} (" in done.output, done.outcome()
        assert self.checkout.configured(stack, "release") == name

    def _has_outputs_of_an_older_release(self, stack: str) -> None:
        """Give a stack's state an output for each fact, and an object for what it runs."""
        file = self.checkout.home / f"state/.pulumi/stacks/vast-vllm/{stack}.json"
        state = json.loads(file.read_text())
        (one,) = [
            resource
            for resource in state["checkpoint"]["latest"]["resources"]
            if resource["type"] == "pulumi:pulumi:Stack"
        ]
        assert "report" in one["outputs"]
        one["outputs"] = unfolded(one["outputs"])
        assert one["outputs"]["release"]["runs"]
        file.write_text(json.dumps(state))

    def _runs(self, stack: str, name: str) -> None:
        told = self.checkout.outputs(stack)["release"]
        assert told["name"] == name
        assert told["proven"] is True

    @contextmanager
    def _step(self, what: str, command: str) -> Iterator[Step]:
        step = Step(what, command)
        self._say(f"{what}: {command}")
        self.emulator.refill()
        spent, began = float(self.emulator.ledger()["total"]), time.monotonic()
        yield step
        step.seconds = time.monotonic() - began
        step.dollars = float(self.emulator.ledger()["total"]) - spent
        step.hosts = len(self.emulator.status()["contracts"])
        self.steps.append(step)
        self._say(f"  {step.outcome} ({step.seconds:.0f} s, ${step.dollars:.2f})")


def main() -> int:
    """Play the story and write the document."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "market").mkdir()
        with Emulator(folder / "market", speed=SPEED) as emulator:
            story = Story(Checkout(folder, emulator), emulator)
            story.play()
    DOCUMENT.write_text(document(story.steps))
    return 0


TEXT = """# From dev to prod

Written by `make promotion`; do not edit. Every step ran the real `pulumi` against the emulator. \
Its clock ran {speed} times as fast as the seconds here, and the dollars are for its time. A \
client asked prod's endpoint ten times a second, and went where prod's `announceCommand` said.

{table}

The whole took {minutes:.1f} minutes and cost ${dollars:.2f} of emulated money; 0 contracts and \
$0.00/h are left.
"""


def document(steps: list[Step]) -> str:
    """The whole page."""
    lines = [
        "| step | command | outcome | hosts after | seconds | billed |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one.what} | `{one.command}` | {one.outcome} | {one.hosts} | {one.seconds:.0f} "
        f"| ${one.dollars:.2f} |"
        for one in steps
    ]
    return TEXT.format(
        speed=SPEED,
        table="\n".join(lines),
        minutes=sum(one.seconds for one in steps) / 60,
        dollars=sum(one.dollars for one in steps),
    )


def _ready(done: Done) -> str:
    assert "answers at" in done.output, done.outcome()
    return "answers, smoke test passed"


def _only(client: Client, before: dict[str, Any]) -> Asked:
    """What became of the questions to the one endpoint that there is; none may have failed."""
    assert list(client.asked) == [before["endpoint_url"]]
    asked = client.asked[before["endpoint_url"]]
    assert asked.answered > 0
    assert asked.failures == []
    return asked


def _all(asked: Asked) -> int:
    return asked.answered + len(asked.failures)


if __name__ == "__main__":
    sys.exit(main())
