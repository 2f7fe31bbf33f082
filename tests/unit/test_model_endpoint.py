"""How the component is wired, under Pulumi's mocks: no engine, no provider process."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pulumi
import pytest
from pulumi.runtime.rpc import unwrap_rpc_secret

from components.endpoints import unheld_promises
from components.outputs import unfolded
from components.plan import MODELS, make_plan
from components.release.release import ReleaseSpec, digest_of
from components.settings import parse
from components.vllm import agent_files, server_state
from tests.helpers.engine import Mocks, mocked, settled
from tests.unit.test_settings import values

COMMAND = "command:local:Command"

ANSWERS: dict[str, dict[str, Any]] = {
    "pulumi-python:dynamic/vast:SshKey": {"private_key": "PRIVATE", "public_key": "ssh-ed25519 A"},
    "pulumi-python:dynamic/vllm:ApiKey": {
        "api_key": "KEY",
        "digest": "d" * 64,
        "previous_digest": "",
    },
    "pulumi-python:dynamic/vast:Instance": {
        "instance_id": 9001,
        "public_ip": "203.0.113.9",
        "ssh_port": 40022,
        "host_key": "ssh-ed25519 AAAA",
        "gpu": "4x H100 NVL",
        "hourly_cost": 2.5,
        "boot_seconds": {"image": 30.0},
    },
    "pulumi-python:dynamic/vllm:HubRevisions": {
        "resolved": {
            "mistralai/Mistral-Small-4-119B-2603": {
                "revision": "main",
                "commit": "0" * 40,
                "source": "hub",
                "files": [],
            }
        }
    },
    "pulumi-python:dynamic/vllm:Server": {
        "api_key": "MACHINE KEY",
        "endpoint_url": "https://203.0.113.9:40123/v1",
        "boot_seconds": {"load": 60.0},
        "model_revision": "0" * 40,
        "companion_revisions": {},
        "files": [],
        "files_compared": ["mistralai/Mistral-Small-4-119B-2603"],
    },
}


class EngineMocks(Mocks):
    def __init__(self) -> None:
        self.made: dict[str, pulumi.runtime.MockResourceArgs] = {}
        self.all: dict[str, pulumi.runtime.MockResourceArgs] = {}
        """By name: of several endpoints there are several of a type."""
        self.report: dict[str, Any] = {}
        """Of a smoke test that does not run now; empty: it runs and passes."""
        self.closed = False
        """Whether the Hub gives the model to those alone whom its owner lets in."""

    def new_resource(
        self, args: pulumi.runtime.MockResourceArgs
    ) -> tuple[str | None, dict[str, Any]]:
        self.made[args.typ] = self.all[args.name] = args
        answer = ANSWERS.get(args.typ, {})
        if "resolved" in answer:
            (told,) = answer["resolved"].values()
            wanted = [one["repository"] for one in args.inputs["references"]]
            answer = {"resolved": dict.fromkeys(wanted, told)}
        if self.closed and "resolved" in answer:
            closed = {name: {**one, "closed": True} for name, one in answer["resolved"].items()}
            answer = {"resolved": closed}
        if args.typ == COMMAND:
            environment = unwrap_rpc_secret(args.inputs["environment"])
            report = self.report or {"ok": True, "digest": environment.get("ENDPOINT_DIGEST")}
            answer = {"stdout": json.dumps(report)}
        return f"{args.name}-id", {**args.inputs, **answer}


@pytest.fixture
def mocks(loop_for_pulumi: None) -> EngineMocks:
    del loop_for_pulumi
    return mocked(EngineMocks())


def made_endpoint(**changes: Any):
    from components.model_endpoint import ModelEndpoint  # noqa: PLC0415  (mocks come first)

    return ModelEndpoint("endpoint", parse(values(**changes)))


def made_another(name: str, /, **changes: Any):
    from components.model_endpoint import ModelEndpoint, variant  # noqa: PLC0415  (mocks come first)

    outside = {key: changes.pop(key) for key in ("api_key", "label") if key in changes}
    return ModelEndpoint(name, variant(parse(values()), **changes), **outside)


def pulumi_test(test: Any) -> Any:
    """Let pytest run what `pulumi.runtime.test` makes of an async test."""
    run: Any = pulumi.runtime.test(test)

    def wrapped(mocks: EngineMocks) -> Any:
        return run(mocks)

    wrapped.__name__ = test.__name__
    return wrapped


@pulumi_test
async def test_the_children_are_named_after_the_endpoint_and_refer_to_code_by_name(mocks):
    made_endpoint()
    await settled()
    dynamic = {kind: args for kind, args in mocks.made.items() if "dynamic/" in kind}
    assert {args.name for args in dynamic.values()} >= {
        "endpoint-lease",
        "endpoint-offer",
        "endpoint-ssh-key",
        "endpoint-api-key",
        "endpoint-instance",
        "endpoint-holdings",
        "endpoint-server",
        "endpoint-revisions",
    }
    for kind, args in dynamic.items():
        blob = base64.b64decode(args.inputs["__provider"])
        assert len(blob) < 100, kind
        assert b"components." in blob, kind


@pulumi_test
async def test_the_label_names_project_stack_and_resource(mocks):
    made_endpoint()
    await settled()
    instance = mocks.made["pulumi-python:dynamic/vast:Instance"].inputs
    lease = mocks.made["pulumi-python:dynamic/vast:Lease"].inputs
    assert instance["label_prefix"] == "vast-vllm/dev/endpoint-instance/"
    assert (lease["label_prefix"], lease["endpoint"]) == ("vast-vllm/dev/", "endpoint")
    cleanup = mocks.made["pulumi-python:dynamic/vast:Holdings"].inputs
    assert (cleanup["label_prefix"], cleanup["endpoint"]) == ("vast-vllm/dev/", "endpoint")


SMALL = {"model": "qwen2.5-0.5b-1x4090"}


@pulumi_test
async def test_two_endpoints_of_a_program_share_nothing_by_themselves(mocks):
    made_endpoint()
    made_another("assistant", **SMALL)
    await settled()
    machine, sibling = (mocks.all[f"{name}-instance"].inputs for name in ("endpoint", "assistant"))
    assert machine["label_prefix"] == "vast-vllm/dev/endpoint-instance/"
    assert sibling["label_prefix"] == "vast-vllm/dev/assistant-instance/"
    assert sibling["search"]["repository"] != machine["search"]["repository"]
    of_endpoint = {name.partition("-")[2] for name in mocks.all if name.startswith("endpoint-")}
    of_sibling = {name.partition("-")[2] for name in mocks.all if name.startswith("assistant-")}
    assert of_endpoint == of_sibling
    assert {"lease", "holdings", "ssh-key", "api-key", "authority"} <= of_sibling


@pulumi_test
async def test_an_endpoint_takes_key_and_label_from_outside(mocks):
    from components.resources.api_key import ApiKey  # noqa: PLC0415  (after the mocks)

    shared = ApiKey("shared", generation=1, shared=False)
    label = "vast-vllm/dev/support/"
    made_another("assistant", api_key=shared, label=label, **SMALL)
    await settled()
    assert "assistant-api-key" not in mocks.all
    assert unwrap_rpc_secret(mocks.all["assistant-server"].inputs["stack_key"]) == "KEY"
    assert mocks.all["assistant-lease"].inputs["label_prefix"] == label
    assert mocks.all["assistant-instance"].inputs["label_prefix"] == f"{label}assistant-instance/"


def test_a_variant_has_the_settings_of_its_stack_but_for_the_changes(mocks):
    from components.model_endpoint import variant  # noqa: PLC0415  (mocks come first)

    del mocks
    settings = parse(values(vllmOverrides='{"max-num-seqs": 64}', mediaFrom="example.org"))
    assert variant(settings) == settings
    small = variant(settings, model="qwen2.5-0.5b-1x4090", diskGb=40)
    assert small == settings.model_copy(update={"model": "qwen2.5-0.5b-1x4090", "disk_gb": 40})


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("endpoint", SMALL, "two endpoints of this program are called endpoint"),
        ("endpoint-b", SMALL, "the name of the endpoint endpoint begins the name of endpoint-b"),
        ("assistant", {"model": "nobody"}, "there is no profile 'nobody'"),
        ("assistant", {"diskGB": 40}, "did you mean 'diskGb'"),
        ("assistant", {"maxDollarsPerHour": 0}, "'maxDollarsPerHour' is '0'"),
    ],
)
def test_a_second_endpoint_that_is_refused_keeps_the_first_from_renting(mocks, name, changes, said):
    """Pulumi registers what a program has declared also if the program then fails."""

    async def refused(_mocks: EngineMocks) -> None:
        first = made_endpoint()
        with pytest.raises(pulumi.RunError, match=said):
            made_another(name, **changes)
        with pytest.raises(pulumi.RunError, match=said):
            await first.instance.instance_id.future()

    with pytest.raises(pulumi.RunError, match=said):
        pulumi_test(refused)(mocks)
    assert not {"endpoint-lease", "endpoint-instance"} & mocks.all.keys()


@pulumi_test
async def test_the_host_is_told_a_digest_and_the_file_holds_no_key(mocks):
    made_endpoint(huggingFaceToken="hf_sentinel")
    await settled()
    server = mocks.made["pulumi-python:dynamic/vllm:Server"].inputs
    assert server["stack_key_digest"] == "d" * 64
    assert "hf_sentinel" not in server["serve_yaml"] + server["model_env"]
    assert "api-key" not in server["serve_yaml"]


@pulumi_test
async def test_the_key_that_is_shown_and_asked_with_is_the_machines(mocks):
    endpoint = made_endpoint()
    assert await endpoint.api_key.future() == "MACHINE KEY"
    await settled()
    environment = unwrap_rpc_secret(mocks.made[COMMAND].inputs["environment"])
    assert environment["ENDPOINT_KEY"] == "MACHINE KEY"


@pulumi_test
async def test_a_servers_key_is_of_this_project_and_stack_and_no_other(mocks):
    made_endpoint(keyGeneration="3", sharedApiKey="true")
    await settled()
    server = mocks.made["pulumi-python:dynamic/vllm:Server"].inputs
    assert unwrap_rpc_secret(server["stack_key"]) == "KEY"
    assert server["key_scope"] == "vast-vllm/vast-vllm/dev/"
    assert (server["key_generation"], server["shared_api_key"]) == (3, True)
    api_key = mocks.made["pulumi-python:dynamic/vllm:ApiKey"].inputs
    assert (api_key["generation"], api_key["shared"]) == (3, True)


@pulumi_test
async def test_boot_seconds_are_those_of_host_and_server(mocks):
    endpoint = made_endpoint()
    assert await endpoint.boot_seconds.future() == {"image": 30.0, "load": 60.0}
    assert mocks.made


def test_settings_that_cannot_work_stop_the_program_with_a_sentence(mocks):
    with pytest.raises(pulumi.RunError, match="there is no profile 'nobody'"):
        made_endpoint(model="nobody")
    assert not [kind for kind in mocks.made if "dynamic/" in kind]


@pulumi_test
async def test_a_persons_login_is_held_to_the_key_of_first_contact(mocks):
    endpoint = made_endpoint()
    assert (await endpoint.known_hosts.future()) == "[203.0.113.9]:40022 ssh-ed25519 AAAA"
    assert str(await endpoint.ssh_command.future()).endswith("-p 40022 root@203.0.113.9")
    assert mocks.made


@pytest.mark.parametrize(
    ("stack", "changes", "said"),
    [
        ("prod", {}, ["this stack is called prod and is held to no rule of production"]),
        ("live-eu", {}, ["this stack is called live-eu"]),
        ("dev", {}, []),
        ("prod", {"promoteFrom": "dev"}, ["takes its releases from dev", "is called prod"]),
    ],
)
def test_what_a_stack_looks_held_to_and_is_not_is_said(stack, changes, said):
    settings = parse(values(**changes))
    warnings = unheld_promises(settings, make_plan(settings), stack)
    assert len(warnings) == len(said)
    assert all(part in warning for part, warning in zip(said, warnings, strict=True))
    held = settings.model_copy(update={"production": True, "promote_from": ""})
    assert unheld_promises(held, make_plan(settings), stack) == []


@pulumi_test
async def test_create_first_names_what_is_rented_and_served_after_what_it_is(mocks):
    made_endpoint(replacement="create-first")
    await settled()
    names = {args.name for kind, args in mocks.made.items() if "dynamic/" in kind}
    lasting = {"endpoint-lease", "endpoint-holdings", "endpoint-ssh-key", "endpoint-api-key"}
    lasting |= {"endpoint-revisions"}
    assert lasting <= names
    instance = mocks.made["pulumi-python:dynamic/vast:Instance"]
    host = instance.name.removesuffix("-instance")
    assert re.fullmatch(r"endpoint-[0-9a-f]{8}", host)
    assert {f"{host}-offer", f"{host}-server"} <= names
    assert instance.inputs["label_prefix"] == f"vast-vllm/dev/{host}-instance/"
    server = mocks.made["pulumi-python:dynamic/vllm:Server"].inputs
    assert server["drain_minutes"] == 10


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ({"vllmOverrides": '{"max-num-seqs": 64}'}, True),
        ({"image": "vllm/vllm-openai:v0.33.0"}, True),
        ({"offerQuery": "gpu_name=H200 num_gpus=2 geolocation=NL"}, True),
        ({"machineGeneration": "2"}, True),
        ({"huggingFaceToken": "hf_other"}, True),
        ({"maxDollarsPerHour": "5"}, False),
        ({"keyGeneration": "2"}, False),
        ({"drainMinutes": "1"}, False),
    ],
)
def test_what_needs_a_host_of_its_own_under_create_first(change, another):
    before = make_plan(parse(values())).generation()
    after = make_plan(parse(values(**change))).generation()
    assert (after != before) is another


def test_newer_scripts_for_the_host_need_a_host_of_their_own_too(monkeypatch):
    made = make_plan(parse(values()))
    before = made.generation()
    monkeypatch.setattr(agent_files, "agent_digest", lambda **_: "f" * 64)
    assert made.generation() != before


def test_each_input_that_restarts_a_server_is_in_the_name_of_its_host():
    """One that is added there has to be added to `Plan.generation`, and then here."""
    assert server_state.RESTART_ON_CHANGE == (
        "serve_yaml",
        "model_env",
        "environment",
        "agent",
        "tls",
    )


def test_the_token_is_in_no_repr_of_a_plan():
    assert "hf_sentinel" not in repr(make_plan(parse(values(huggingFaceToken="hf_sentinel"))))


@pulumi_test
async def test_the_machine_knows_whether_another_one_comes_up_beside_it(mocks):
    made_endpoint(replacement="create-first")
    await settled()
    instance = mocks.made["pulumi-python:dynamic/vast:Instance"].inputs
    assert instance["term"]["create_first"] is True


async def release_of(endpoint: Any) -> dict[str, Any]:
    """All that the outputs say of what runs."""
    outputs = {
        "release": await endpoint.release.future(),
        "report": await endpoint.report.future(),
    }
    return dict(unfolded(outputs)["release"])


@pulumi_test
async def test_what_runs_is_an_output_with_its_digest(mocks):
    told = await release_of(made_endpoint())
    assert mocks.made
    assert told["name"] == ""
    assert told["proven"] is True
    assert told["digest"] == digest_of(ReleaseSpec.model_validate_json(told["runs"]))


@pulumi_test
async def test_what_runs_has_the_gpus_that_were_rented(mocks):
    told = await made_endpoint(offerQuery="gpu_ram>=130").release.future()
    assert mocks.made
    runs = make_plan(parse(values())).runs("0" * 40, {}, "4x H100 NVL")
    assert told["digest"] == digest_of(runs)


@pulumi_test
async def test_what_runs_says_whose_word_it_is(mocks):
    told = await release_of(made_endpoint())
    assert told["sources"] == {
        "mistralai/Mistral-Small-4-119B-2603": {"commit": "the Hub's", "files": "the Hub's"}
    }
    server = mocks.made["pulumi-python:dynamic/vllm:Server"].inputs
    assert server["commits"] == {"mistralai/Mistral-Small-4-119B-2603": "0" * 40}


@pulumi_test
async def test_what_runs_says_who_vouches_for_its_machine(mocks):
    told = await made_endpoint().release.future()
    assert mocks.made
    assert told["host_key"] == "first contact"


@pytest.mark.parametrize(
    ("settings", "token_for"),
    [({}, []), ({"huggingFaceToken": "hf_x"}, ["mistralai/Mistral-Small-4-119B-2603"])],
)
def test_what_the_hub_gives_to_the_token_s_holder_alone_is_known(mocks, settings, token_for):
    mocks.closed = True

    async def told(_mocks: EngineMocks) -> None:
        made_endpoint(**settings)
        await settled()
        for kind in ("vast:Instance", "vllm:Server"):
            made = mocks.made[f"pulumi-python:dynamic/{kind}"].inputs
            assert made["token_for"] == token_for
        assert mocks.made["pulumi-python:dynamic/vast:Instance"].inputs["first_contact"] == ""

    pulumi_test(told)(mocks)


@pytest.mark.parametrize(("takes_from", "let_in"), [("", True), ("dev", False)])
def test_what_runs_past_the_gate_of_its_stack_says_so(mocks, takes_from, let_in):
    async def said(_mocks: EngineMocks) -> None:
        endpoint = made_endpoint(promoteFrom=takes_from)
        assert (await endpoint.release.future())["let_in"] is let_in

    pulumi_test(said)(mocks)


@pytest.mark.parametrize("report", [{"ok": True}, {"ok": True, "digest": "sha256:" + "1" * 64}])
def test_a_report_of_something_else_or_of_before_proves_nothing(mocks, report):
    mocks.report = report

    async def not_proven(_mocks: EngineMocks) -> None:
        assert (await made_endpoint().release.future())["proven"] is False

    pulumi_test(not_proven)(mocks)


EAGLE = (MODELS / "mistral-small-4-fp8-2xh200-eagle.yaml").read_text()


@pytest.mark.parametrize(
    ("profile", "asks_again"),
    [
        (EAGLE, False),
        (EAGLE.replace("beyond that", "and beyond"), False),
        (EAGLE + "env: {VLLM_LOGGING_LEVEL: INFO}\n", True),
        (EAGLE + "revision: next\n", True),
        (EAGLE.replace("-eagle\n", "-eagle\n    revision: next\n", 1), True),
    ],
)
def test_whatever_a_release_holds_is_asked_for_anew(tmp_path, profile, asks_again):
    for name, text in (("before", EAGLE), ("after", profile)):
        (tmp_path / f"{name}.yaml").write_text(text)
    before, after = (
        make_plan(parse(values(model=name)), models=tmp_path) for name in ("before", "after")
    )
    assert (digest_of(after.as_asked()) != digest_of(before.as_asked())) is asks_again
