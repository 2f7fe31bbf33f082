"""Two endpoints with different models in one stack, of which the first is from an older release.

The program is the project's own `__main__.py` with the lines that docs/environments.md adds.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.documented import block
from tests.helpers.places import ROOT
from tests.helpers.stack_world import Done, Emulator, Stack, run

HEAD, FIRST = (ROOT / "__main__.py").read_text().split("endpoint = ModelEndpoint", 1)
FIRST = f"endpoint = ModelEndpoint{FIRST}"
SECOND = block("docs/environments.md", "Two endpoints in one stack")
CHANGED = SECOND.replace(
    "variant(settings, ", 'variant(settings, vllmOverrides={"max-num-seqs": 64}, '
)


def by_reference(module: str, name: str) -> str:
    """A provider as states have it: what pickle writes of an instance without attributes."""
    texts = [b"\x8c" + bytes([len(text)]) + text.encode() + b"\x94" for text in (module, name)]
    body = b"".join(texts) + b"\x93\x94)\x81\x94."
    return base64.b64encode(b"\x80\x04\x95" + len(body).to_bytes(8, "little") + body).decode()


OLDER = {
    "Lease": by_reference("components.vast.lease", "LeaseProvider"),
    "Holdings": by_reference("components.vast.holdings", "HoldingsProvider"),
}
"""Providers of the resources that did not know their endpoint's name, where they were then."""


class Program(Stack):
    """A stack whose program is changed: a folder of its own, beside the project's parts."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        self.program = folder / "program"
        self.program.mkdir()
        for name in (".venv", "components", "models", "Pulumi.yaml", "Pulumi.README.md"):
            (self.program / name).symlink_to(ROOT / name)
        super().__init__(folder / "stack", emulator, name="two")

    def write(self, *parts: str) -> None:
        """Make these the program."""
        (self.program / "__main__.py").write_text("\n".join(parts))

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        """Outputs in the state of all resources of a dynamic type, by the endpoint's name."""
        return {
            one["urn"].split("::")[-1].partition("-")[0]: one["outputs"]
            for one in self.state()["resources"]
            if one["type"].endswith(f"dynamic/{kind}")
        }

    def make_older(self) -> None:
        """Make the first endpoint's resources what an older release has written."""
        place = self.backend / ".pulumi/stacks/vast-vllm/two.json"
        content = json.loads(place.read_text())
        named = [
            one
            for one in content["checkpoint"]["latest"]["resources"]
            if "endpoint" in one.get("inputs", {})
        ]
        assert len(named) == len(OLDER)
        for one in named:
            for bag in (one["inputs"], one["outputs"]):
                del bag["endpoint"]
                bag["__provider"] = OLDER[one["type"].rpartition(":")[2]]
        place.write_text(json.dumps(content))

    def _pulumi(self, *arguments: str) -> Done:
        command = ["pulumi", "--non-interactive", *arguments]
        done = run(command, self.environment, folder=self.program)
        self.said.append(done.output)
        return done


def test_providers_of_an_older_release_are_those_of_a_state_that_it_wrote():
    written = (ROOT / "tests/states/2026-11-24.json").read_text()
    assert OLDER["Lease"] in written


@pytest.fixture
def stack(emulator: Emulator, tmp_path: Path) -> Iterator[Program]:
    one = Program(tmp_path, emulator)
    one.configure(model="mistral-small-4-nvfp4-1xh200", minReliability="0.9")
    yield one
    done = one.destroy()
    assert done.status == 0, done.outcome()
    assert emulator.status()["contracts"] == []


def served(stack: Program, name: str) -> tuple[Any, ...]:
    """What must not change of an endpoint that nothing is done to."""
    instance, server = (stack.resources(kind)[name] for kind in ("vast:Instance", "vllm:Server"))
    return instance["instance_id"], instance["label"], server["started_at"], server["key_digest"]


def answer(known: dict[str, Any], name: str) -> httpx.Response:
    context = ssl.create_default_context(cadata=known[f"{name}_ca_certificate"])
    return httpx.post(
        f"{known[f'{name}_url']}/chat/completions",
        headers={"Authorization": f"Bearer {known[f'{name}_api_key']}"},
        json={
            "model": "Qwen/Qwen2.5-0.5B-Instruct",
            "messages": [{"role": "user", "content": "Still there?"}],
            "max_tokens": 1,
        },
        verify=context,
        trust_env=False,
        timeout=30,
    )


def test_a_second_endpoint_comes_and_the_first_one_goes(stack, emulator):
    since = emulator.last_request()
    stack.write(HEAD, FIRST, SECOND.replace('"assistant"', '"endpoint-b"'))
    refused = stack.up()
    assert refused.status != 0
    assert "the name of the endpoint endpoint begins the name of endpoint-b" in refused.output
    assert "Traceback" not in refused.output, refused.outcome()
    assert emulator.writes(since) == []

    stack.write(HEAD, FIRST)
    done = stack.up()
    assert done.status == 0, done.outcome()
    stack.make_older()
    previewed = stack.preview("--expect-no-changes")
    assert previewed.status == 0, previewed.outcome()
    first = served(stack, "endpoint")

    stack.write(HEAD, FIRST, SECOND)
    done = stack.up()
    assert done.status == 0, done.outcome()
    second = served(stack, "assistant")
    assert served(stack, "endpoint") == first
    contracts = {one["id"]: one["label"] for one in emulator.status()["contracts"]}
    assert contracts == {id_: label for id_, label, *_ in (first, second)}
    assert "is left alone" not in done.output
    models = {one["model"] for one in stack.resources("vllm:Server").values()}
    assert len(models) == 2

    stack.write(HEAD, FIRST, CHANGED)
    done = stack.up()
    assert done.status == 0, done.outcome()
    changed = served(stack, "assistant")
    assert served(stack, "endpoint") == first
    assert (changed[0], changed[1], changed[3]) == (second[0], second[1], second[3])
    assert changed[2] != second[2]
    assert "endpoint" not in stack.resources("vast:Lease")["endpoint"]

    since = emulator.last_request()
    stack.write(HEAD, CHANGED)
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert emulator.writes(since) == [f"DELETE /api/v0/instances/{int(first[0])}/"]
    assert served(stack, "assistant") == changed
    assert emulator.contract()["id"] == changed[0]
    assert answer(stack.outputs(), "assistant").status_code == httpx.codes.OK
