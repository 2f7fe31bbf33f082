"""The least trusted machine says no more which commit goes on: what a stack takes is the Hub's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from components.plan import make_plan
from components.settings import parse
from components.vllm import pushed_configuration
from components.vllm.hub_references import short
from components.vllm.server_state import ServerInputs
from emulator.standins.hub import commit_of
from tests.helpers.stack_fixtures import own_emulator, own_stack
from tests.helpers.stack_world import PROJECT, Done, Emulator, Stack
from tests.unit.test_settings import values

MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
AT_THE_HUB = commit_of(MODEL)
MOVED_TO = commit_of(MODEL, 1)
CLAIMED = "badc0ffee0ddf00dbadc0ffee0ddf00dbadc0ffe"
TOKEN = "hf_sentinel_of_a_test"
SMALL = {
    "model": "qwen2.5-0.5b-1x4090",
    "datacenterOnly": False,
    "minReliability": "0.5",
    "huggingFaceToken": TOKEN,
}
pytestmark = pytest.mark.timeout(900)

NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9"}


emulator = own_emulator()
stack = own_stack("hub", SMALL)


def on_host(emulator: Emulator) -> Path:
    return emulator.folder / "emulator/containers" / str(emulator.contract()["id"]) / "root/serving"


def said(done: Done) -> str:
    assert "Traceback" not in done.output, done.outcome()
    return " ".join(done.output.split())


def refused_before_money(emulator: Emulator, done: Done) -> str:
    assert done.status != 0, done.outcome()
    assert emulator.status()["contracts"] == []
    return said(done)


def test_without_the_hub_a_branch_is_taken_on_nobodys_word(stack, emulator):
    text = refused_before_money(emulator, stack.with_environment(NOWHERE).up())
    assert "the Hub at http://127.0.0.1:9 is unreachable" in text
    assert f"nobody says which commit main of {MODEL} is" in text
    assert "nothing was rented or changed" in text


def test_a_hub_that_lies_about_its_shape_is_no_hub(stack, emulator):
    emulator.arm("hub_down", 50, how="garbled")
    text = refused_before_money(emulator, stack.up())
    emulator.disarm()
    assert f"nobody says which commit main of {MODEL} is" in text


def test_a_machine_in_the_middle_gets_no_token_and_the_next_machine_does(stack, emulator):
    emulator.arm("machine_in_the_middle")
    done = stack.up()
    assert done.status == 0, done.outcome()

    text = said(done)
    assert "another machine answers at 127.0.0.1:" in text
    assert "nothing secret was sent to it; given back" in text
    (heard,) = (emulator.folder / "emulator/overheard").iterdir()
    assert heard.name != str(emulator.contract()["id"])
    # It was logged in to, and that is all.
    assert set(heard.read_text().split("\n")) == {"a login", ""}
    assert TOKEN in (on_host(emulator) / "environment").read_text()
    assert stack.outputs()["release"]["host_key"] == "the market's log"


def test_what_the_hub_says_is_pushed_and_released(stack, emulator):
    known = stack.outputs()
    serving = on_host(emulator)
    assert f"REVISION={AT_THE_HUB}\n" in (serving / "model.env").read_text()
    assert f"revision: {AT_THE_HUB}\n" in (serving / "serve.yaml").read_text()
    runs = json.loads(known["release"]["runs"])
    assert runs["profile"]["revision"] == AT_THE_HUB
    assert known["release"]["sources"] == {MODEL: {"commit": "the Hub's", "files": "the Hub's"}}


def test_with_the_hub_down_an_unchanged_stack_goes_on(stack):
    done = stack.with_environment(NOWHERE).preview("--expect-no-changes")
    assert done.status == 0, done.outcome()
    assert f"is unreachable (ConnectError); this stack stays at {short(AT_THE_HUB)}" in said(done)


def test_a_branch_that_moves_on_is_told_and_changes_nothing(stack, emulator):
    emulator.arm("hub_moved", 50)
    done = stack.preview("--expect-no-changes")
    emulator.disarm()
    assert done.status == 0, done.outcome()
    assert f"main of {MODEL} has moved on to {short(MOVED_TO)}; this stack stays at" in said(done)
    assert "until `make pin` takes the new commit" in said(done)


def test_naming_the_commit_that_runs_restarts_nothing(stack):
    started_at = stack.outputs()["started_at"]
    stack.configure(**SMALL, revisions={MODEL: AT_THE_HUB})
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert stack.outputs()["started_at"] == started_at
    assert stack.preview("--expect-no-changes").status == 0


def as_an_older_release_left_it(stack: Stack, serving: Path) -> None:
    """Take out of a state what stacks had not before commits were the Hub's, and off the host."""
    file = stack.backend / ".pulumi/stacks" / PROJECT / f"{stack.name}.json"
    content = json.loads(file.read_text())
    latest = content["checkpoint"]["latest"]
    kept = [one for one in latest["resources"] if "HubRevisions" not in one["urn"]]
    for resource in kept:
        by_property = resource.get("propertyDependencies") or {}
        for names in (resource.get("dependencies") or [], *filter(None, by_property.values())):
            names[:] = [name for name in names if "HubRevisions" not in name]
        if resource["type"].endswith("vllm:Server"):
            for name in ("commits", "hub_files", "files_compared"):
                resource["inputs"].pop(name, None)
                resource["outputs"].pop(name, None)
            made = make_plan(parse(values(model=SMALL["model"], huggingFaceToken=TOKEN)))
            secrets = ("environment", "stack_key", "private_key", "client_certificate")
            known = dict.fromkeys(secrets, "") | {"environment": made.environment}
            pushed = ServerInputs.from_bag({**resource["inputs"], **known})
            (serving / "pushed").write_text(pushed_configuration.pushed_digest(pushed))
            digest = hashlib.sha256(pushed.serve_yaml.encode()).hexdigest()
            (serving / "state/config_digest").write_text(digest)
    latest["resources"] = kept
    file.write_text(json.dumps(content))


def test_a_hosts_word_in_a_state_is_checked_at_the_next_up(stack, emulator):
    stack.configure(**SMALL)
    assert stack.up().status == 0
    before = stack.outputs()
    as_an_older_release_left_it(stack, on_host(emulator))

    without = stack.with_environment(NOWHERE).up()
    assert without.status != 0, without.outcome()
    assert "nobody says which commit main" in said(without)

    after = emulator.last_request()
    preview = stack.preview()
    assert preview.status == 0, preview.outcome()
    assert "restarts on the same host only if it runs others" in said(preview)
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert "the server runs with this configuration already" in said(done)
    assert emulator.writes(after=after) == []
    known = stack.outputs()
    assert known["started_at"] == before["started_at"]
    assert known["release"] == before["release"]
    assert stack.preview("--expect-no-changes").status == 0


def test_a_commit_that_is_named_is_taken_without_the_hub(stack):
    stack.configure(**SMALL, revisions={MODEL: MOVED_TO})
    done = stack.with_environment(NOWHERE).up()
    assert done.status == 0, done.outcome()
    assert f"{MODEL} is taken at {short(MOVED_TO)}, which the settings name" in said(done)
    release = stack.outputs()["release"]
    assert json.loads(release["runs"])["profile"]["revision"] == MOVED_TO
    assert release["sources"][MODEL] == {
        "commit": "the settings', while the Hub was down",
        "files": "the host's claim",
    }

    found = stack.up()
    assert found.status == 0, found.outcome()
    sources = {MODEL: {"commit": "the Hub's", "files": "the Hub's"}}
    assert stack.outputs()["release"]["sources"] == sources
    assert stack.preview("--expect-no-changes").status == 0


def test_a_commit_that_a_host_makes_up_is_refused_named_and_marked(stack, emulator):
    before = stack.outputs()
    (on_host(emulator) / "state/resolved_revision").write_text(f"{CLAIMED}\n")

    failed = stack.up()

    text = said(failed)
    assert failed.status != 0, failed.outcome()
    named = f"the host names commit {CLAIMED} of {MODEL}, and had to fetch {MOVED_TO}"
    assert named in text
    assert "is marked unfit and costs $" in text
    label = emulator.contract()["label"]
    assert label.startswith(f"{PROJECT}/hub/endpoint-instance/unfit-other_weights-")
    assert stack.outputs()["release"] == before["release"]
    assert CLAIMED not in json.dumps(stack.outputs())

    unfit, since = emulator.contract()["machine_id"], emulator.last_request()
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert "was marked unfit (other weights)" in said(done)
    assert emulator.contract()["machine_id"] != unfit
    assert stack.outputs()["machine_id"] == emulator.contract()["machine_id"]
    assert stack.outputs()["started_at"] > before["started_at"]
    writes = [call.split()[0] for call in emulator.writes(after=since)]
    assert writes.index("DELETE") < writes.index("PUT"), "two machines were paid at once"
    assert stack.preview("--expect-no-changes").status == 0
    assert json.loads(stack.outputs()["release"]["runs"])["profile"]["revision"] == MOVED_TO
