"""One stack through its life, with the real CLI: each test is the next thing that a person does."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import openai
import psutil
import pytest
import yaml

from emulator.running import container_processes
from tests.helpers.documented import block
from tests.helpers.stack_world import PATH, Emulator, Stack, run
from tests.helpers.state_secrets import key_of, secret_texts

RECIPE = (
    "gpu_name=H200 num_gpus=2 direct_port_count>=1 rentable=true disk_space>=500 cuda_vers>=12.2"
)
CHANGED: dict[str, Any] = {
    "offerQuery": RECIPE,
    "diskGb": 500,
    "vllmOverrides": {"max-num-seqs": 64},
    "mediaFrom": "none",
}
NEW_KEY: dict[str, Any] = {"keyGeneration": 2, "keyGraceMinutes": 0, "maxRequestMib": 1}

RECIPE_PICTURE = (
    "https://static.wikia.nocookie.net/essentialsdocs/images/7/70/Battle.png/revision/latest"
    "?cb=20220523172438"
)


@pytest.fixture(scope="module")
def stack(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack(tmp_path_factory.mktemp("stack"), emulator)
    one.configure(offerQuery=RECIPE, diskGb=500)
    yield one
    if emulator.status()["contracts"]:
        one.destroy()


def ask(stack: Stack, key: str | None = None, *, about: str | None = None, more: str = "") -> str:
    """Ask as the README does, or about a picture at an address, as the recipe does."""
    content: list[Any] = [{"type": "text", "text": f"Which way is up?{more}"}]
    if about is not None:
        content.append({"type": "image_url", "image_url": {"url": about}})
    known = stack.outputs()
    trust = ssl.create_default_context(cadata=known["ca_certificate"])
    with openai.OpenAI(
        base_url=known["endpoint_url"],
        api_key=key or known["api_key"],
        max_retries=0,
        http_client=httpx2.Client(verify=trust, trust_env=False, timeout=30),
    ) as client:
        answer = client.chat.completions.create(
            model=known["model"], messages=[{"role": "user", "content": content}]
        )
    return str(answer.choices[0].message.content)


def test_preview_asks_the_market_and_rents_nothing(stack, emulator):
    before = emulator.last_request()
    done = stack.preview()
    assert done.status == 0, done.outcome()
    assert "offers, best: 2x H200" in done.output
    assert "mediaFrom is anywhere: whoever has the key" in " ".join(done.output.split())
    assert "23.3 sequences of 131072 tokens" in done.output
    assert emulator.writes(after=before) == []


def test_up_shows_each_stage_and_ends_with_the_outputs(stack, emulator):
    done = stack.up()
    assert done.status == 0, done.outcome()
    for said in (
        "instance: renting",
        "works: 2x NVIDIA H200",
        "fetching the weights",
        "answers at",
    ):
        assert said in done.output
    outputs = re.split(r"^(?:Outputs|Resources):$", done.output, flags=re.MULTILINE)[1]
    assert len(outputs.splitlines()) < 40, outputs
    for secret in ("api_key", "ssh_private_key"):
        assert re.search(rf"{secret} *: \[secret\]", done.output)
    known = stack.outputs()
    assert known == stack.printed_outputs()
    assert known["model"] == "mistralai/Mistral-Small-4-119B-2603"
    assert known["max_model_len"] == 131072
    assert known["gpu"] == "2x H200"
    assert isinstance(known["instance_id"], int)
    assert 4 < known["hourly_cost"] < 8
    assert set(known["boot_seconds"]) >= {"image", "ssh", "completion"}
    assert known["smoke_report"]["ok"] is True
    assert known["smoke_report"]["tokens_per_second"] > 0
    assert len(known["smoke_report"]["checks"]) == 10
    assert known["endpoint_url"].startswith("https://127.0.0.1:")
    assert re.fullmatch("[0-9a-f]{64}", known["api_key"])
    assert len(emulator.status()["contracts"]) == 1


def test_a_person_logs_in_with_the_outputs_as_they_are(stack, tmp_path):
    known = stack.outputs()
    (tmp_path / "stack.key").touch(mode=0o600)
    (tmp_path / "stack.key").write_text(known["ssh_private_key"])
    (tmp_path / "stack.known").write_text(f"{known['known_hosts']}\n")
    command = [*known["ssh_command"].split(), "sh ~/serving/supervise.sh status"]
    done = run(command, {"PATH": PATH}, folder=tmp_path)
    assert done.status == 0, done.outcome()
    assert "phase" in done.output


def test_the_openai_client_talks_to_it(stack):
    assert "Which way is up?" in ask(stack)


def test_the_recipes_example_asks_about_a_picture_by_its_address(stack):
    assert "PNG of 720x432 pixels from static.wikia" in ask(stack, about=RECIPE_PICTURE)


def test_the_readmes_examples_run_as_printed(stack):
    """OpenAI's client and, in the same program, LangChain's, waiting and not."""
    example = block("README.md", "Use it", 0) + block("docs/use.md", "LangChain")
    environment = {**stack.environment, "PULUMI_STACK": stack.name}
    done = run(["python", "-c", example], environment)
    assert done.status == 0, done.outcome()
    assert done.output.count("Why is the sky blue?") == 3


def test_the_readmes_lines_for_curl_run_as_printed(stack):
    lines = block("README.md", "Use it", 1)
    environment = {**stack.environment, "PULUMI_STACK": stack.name}
    done = run(["bash", "-euc", lines], environment, folder=stack.folder)
    assert done.status == 0, done.outcome()
    assert '"id":"mistralai/Mistral-Small-4-119B-2603"' in done.output


def test_who_has_no_key_is_refused_on_every_route_but_health(stack):
    known = stack.outputs()
    trust = ssl.create_default_context(cadata=known["ca_certificate"])
    base = known["endpoint_url"].removesuffix("/v1")
    with httpx.Client(base_url=base, verify=trust, trust_env=False) as http:
        for path in (
            "/v1/models",
            "/metrics",
            "/docs",
            "/openapi.json",
            "/invocations",
            "/version",
        ):
            assert http.get(path).status_code == 401, path
            wrong = {"Authorization": "Bearer wrong"}
            assert http.get(path, headers=wrong).status_code == 401, path
        assert http.get("/health").status_code == 200
    with pytest.raises(openai.AuthenticationError):
        ask(stack, key="wrong")


def test_a_second_up_changes_nothing_and_writes_nothing_to_vasts_api(stack, emulator):
    before = emulator.last_request()
    done = stack.up("--expect-no-changes")
    assert done.status == 0, done.outcome()
    assert "12 unchanged" in done.output
    assert emulator.writes(after=before) == []


def test_refresh_finds_everything_as_it_was(stack, emulator):
    before = emulator.last_request()
    done = stack.refresh("--expect-no-changes")
    assert done.status == 0, done.outcome()
    assert emulator.writes(after=before) == []
    assert any(call["method"] == "GET" for call in emulator.requests(after=before))


def test_the_state_refers_to_the_providers_by_name_alone(stack):
    blobs = {
        resource["type"]: base64.b64decode(resource["inputs"]["__provider"])
        for resource in stack.state()["resources"]
        if "__provider" in resource.get("inputs", {})
    }
    assert len(blobs) == 9
    for kind, blob in blobs.items():
        assert len(blob) < 100, kind
        assert blob.count(b"components.") == 1, kind


def test_a_changed_flag_restarts_the_server_on_the_same_host_and_downloads_nothing(stack, emulator):
    before, known = emulator.last_request(), stack.outputs()
    traffic = downloaded(emulator, known["instance_id"])
    stack.configure(**CHANGED)
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert "endpoint-server updated" in done.output
    text = " ".join(done.output.split())
    assert "restarts on the same host after draining (" in text
    assert re.search(r"max-num-seqs \S+ -> 64[^)]*\): away for", text), done.outcome()
    assert "nothing is downloaded" in text
    assert emulator.writes(after=before) == []
    now = stack.outputs()
    assert now["instance_id"] == known["instance_id"]
    assert now["started_at"] >= known["started_at"]
    assert "max-num-seqs: 64" in server_inputs(stack)["serve_yaml"]
    assert downloaded(emulator, known["instance_id"]) - traffic < 1e6
    assert "Which way" in ask(stack)


def test_pictures_come_from_whom_the_settings_name_alone(stack):
    for inside in ("http://127.0.0.1:8000/metrics", "https://example.com/moved.png"):
        with pytest.raises(openai.BadRequestError, match="must be from one of the allowed domains"):
            ask(stack, about=inside)
    with pytest.raises(openai.BadRequestError, match=r"\['none\.invalid'\]"):
        ask(stack, about=RECIPE_PICTURE)


def test_a_new_key_replaces_the_old_one_and_nothing_restarts(stack, emulator):
    before, known = emulator.last_request(), stack.outputs()
    stack.configure(**CHANGED, **NEW_KEY)
    done = stack.up()
    assert done.status == 0, done.outcome()
    now = stack.outputs()
    assert now["api_key"] != known["api_key"]
    assert now["started_at"] == known["started_at"]
    assert emulator.writes(after=before) == []
    assert "Which way" in ask(stack)
    with pytest.raises(openai.AuthenticationError):
        ask(stack, key=known["api_key"])
    with pytest.raises(openai.APIStatusError, match="larger than this server takes"):
        ask(stack, more="x" * 2**20)


def test_a_change_that_does_not_come_up_is_undone_and_the_old_one_serves(stack, emulator):
    before, known = emulator.last_request(), stack.outputs()
    # The parser takes any name for a backend; the engine does not.
    overrides = {"max-num-seqs": 64, "attention-backend": "NO_SUCH_BACKEND"}
    stack.configure(**CHANGED | {"vllmOverrides": overrides}, **NEW_KEY)
    done = stack.up()
    assert done.status != 0
    assert "pulumi/dynamic" not in done.output  # the log's own traceback is shown, ours is not
    text = " ".join(done.output.split())
    assert "NO_SUCH_BACKEND" in text
    assert "the previous configuration serves again" in text
    assert emulator.writes(after=before) == []
    assert stack.outputs()["api_key"] == known["api_key"]
    assert "Which way" in ask(stack)
    stack.configure(**CHANGED, **NEW_KEY)
    # The other backend asks for other GPUs, so what would be searched for goes back as well.
    again = stack.up()
    assert again.status == 0, again.outcome()
    assert "the supervisor has started" not in again.output
    assert emulator.writes(after=before) == []
    done = stack.preview("--expect-no-changes")
    assert done.status == 0, done.outcome()


def test_no_secret_lies_anywhere_in_clear(stack, emulator):
    known = stack.outputs()
    secrets = {
        "API key": known["api_key"],
        "SSH key": known["ssh_private_key"].splitlines()[2],
        "Vast key": emulator.key,
        "passphrase": stack.passphrase,
        "authority's key": authoritys_key(stack),
    }
    # Keys that machines have theirs of: of this generation and the one before it.
    salt = yaml.safe_load(stack.config_file.read_text())["encryptionsalt"]
    written = secret_texts(key_of(stack.passphrase, salt), stack.written())
    of_the_stack = sorted(text for text in written if re.fullmatch("[0-9a-f]{48}", text))
    assert len(of_the_stack) == 2
    secrets |= {f"stack's key {n}": key for n, key in enumerate(of_the_stack)}
    assert all(len(secret) >= 16 for secret in secrets.values())
    processes = "\n".join(
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    )
    containers = "\n".join(
        file.read_text(errors="replace")
        for file in (emulator.folder / "emulator/containers").rglob("*")
        if file.is_file() and file.stat().st_size < 10_000_000
    )
    assert "supervise.sh" in processes
    assert "allowed_keys" in containers
    on_host = container_processes(emulator.folder / "emulator/containers", None)
    environments, servers = "", []
    for process in on_host:
        with contextlib.suppress(psutil.Error):
            environments += f"{process.environ()}\n"
            if "serve.yaml" in process.cmdline():
                servers.append(process.environ())
    assert "EMULATED_HOST" in environments
    assert servers
    assert all("CONTAINER_API_KEY" not in server for server in servers)
    containers += environments
    places = {
        "backend": stack.written(),
        "output": "\n".join(stack.said),
        "command lines": processes,
    }
    for name, secret in secrets.items():
        for place, text in places.items():
            assert secret not in text, f"{name} in {place}"
    for name, secret in secrets.items():
        assert secret not in containers, f"{name} on the host"


def test_a_person_sees_what_runs_and_what_was_done(stack):
    seen = day_two(stack, "status")
    assert seen["verdict"] == "well", seen
    (machine,) = seen["machines"]
    assert (machine["state"], machine["server"]) == ("running", "answers")
    assert machine["gpu_memory_used"] > 0
    assert seen["costs"]["written"] > 0
    done = run([*DAY_TWO, "logs", "--stack", "test", "--account"], stack.environment)
    assert done.status == 0, done.outcome()
    assert "Application startup complete" in done.output or "GET /metrics" in done.output
    events = day_two(stack, "history")["events"]
    assert [one["what"] for one in events[:2]] == ["up", "up"]
    assert {one["outcome"] for one in events} == {"succeeded", "failed"}


def test_the_doctor_names_what_is_wrong_and_its_commands_mend_it(stack, emulator):
    locks = stack.backend / ".pulumi/locks/organization/vast-vllm/test"
    lock = {"pid": 99_999_999, "username": "me", "hostname": socket.gethostname()}
    locks.mkdir(parents=True, exist_ok=True)
    (locks / "left.json").write_text(json.dumps({**lock, "timestamp": "2026-11-28T20:00:00Z"}))
    rent_beside(emulator)
    other = stack.with_environment({"PULUMI_CONFIG_PASSPHRASE_FILE": str(stack.config_file)})
    problems = {one["about"]: one for one in day_two(other, "doctor")["problems"]}
    assert {"lock", "orphans", "stack"} <= problems.keys()
    for about in ("lock", "orphans"):
        for command in re.findall(r"`([^`]+)`", problems[about]["mend"]):
            done = run(["sh", "-c", without_set_up(command, stack)], stack.environment)
            assert done.status == 0, done.outcome()
    assert problems["stack"]["mend"].startswith("`export PULUMI_CONFIG_PASSPHRASE_FILE=")
    left = {one["about"] for one in day_two(stack, "doctor")["problems"]}
    assert not left & {"lock", "orphans", "stack"}, left


def test_destroy_ends_the_bill(stack, emulator):
    done = stack.destroy()
    assert done.status == 0, done.outcome()
    assert "costs nothing any more" in done.output
    assert emulator.status()["contracts"] == []
    assert emulator.ledger()["dollars_per_hour"] == 0
    seen = day_two(stack, "status")
    assert seen["verdict"] == "not well"
    assert seen["problems"][0]["text"].startswith("nothing runs in it")
    # The market's clock runs faster than this one, so its ends lie in the future.
    done = [one["what"] for one in day_two(stack, "history")["events"] if one["what"] != "market"]
    assert done[-1] == "destroy"


DAY_TWO = ("sh", "-c", 'exec python -m "toolchain.day_two.$0" "$@"')


def day_two(stack: Stack, command: str) -> dict[str, Any]:
    """Run a command of day two on the account of whoever has the stack, and read its model."""
    words = [*DAY_TWO, command, "--stack", stack.name, "--account", "--json"]
    done = run(words, stack.environment, apart=True)
    read = json.loads(done.output)
    assert read["format"] == f"vast-vllm/{command}/1", read
    assert done.status == ["well", "not well", "could not be asked"].index(read["verdict"])
    return dict(read)


def rent_beside(emulator: Emulator) -> None:
    """Rent a machine under the stack's label, with its own key's digest, that no state knows."""
    label = emulator.contract()["label"]
    headers = {"Authorization": f"Bearer {emulator.key}"}
    with httpx.Client(base_url=f"{emulator.url}/api/v0", headers=headers, trust_env=False) as api:
        query = {"gpu_name": {"eq": "H200"}, "num_gpus": {"eq": "2"}, "rentable": {"eq": True}}
        offer = api.post("/bundles/", json=query).json()["offers"][-1]["id"]
        order = {
            "image": "vllm/vllm-openai:v0.33.0",
            "disk": 100,
            "label": f"{label[:-10]}{'0' * 10}",
        }
        assert api.put(f"/asks/{offer}/", json=order).json()["success"]


def without_set_up(command: str, stack: Stack) -> str:
    """The command, or the last one of what `make` would run for it: its set-up is of a checkout."""
    if not command.startswith("make "):
        return command
    printed = run(["sh", "-c", command.replace("make ", "make -n ", 1)], stack.environment).output
    return printed.strip().splitlines()[-1]


def authoritys_key(stack: Stack) -> str:
    """Find what is encrypted in the authority's outputs and nowhere else: its key."""
    key = key_of(stack.passphrase, stack.salt)
    found = {
        (resource["type"], part): secret_texts(key, json.dumps(resource.get(part) or {}))
        for resource in stack.state()["resources"]
        for part in ("inputs", "outputs")
    }
    own = found.pop(("pulumi-python:dynamic/tls:Authority", "outputs"))
    (only_there,) = own - set().union(*found.values())
    return only_there


def server_inputs(stack: Stack) -> dict[str, str]:
    for resource in stack.state()["resources"]:
        if resource["type"].endswith("vllm:Server"):
            return dict(resource["inputs"])
    raise AssertionError("no server in the state")


def downloaded(emulator: Emulator, instance_id: int) -> float:
    for contract in emulator.ledger()["contracts"]:
        if contract["id"] == instance_id:
            return float(contract["quantities"].get("bwd", 0))
    raise AssertionError(f"no contract {instance_id} in the ledger")
