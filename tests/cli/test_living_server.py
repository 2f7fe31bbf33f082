"""A server that lives on while keys, flags and luck change: seen by clients who never stop."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from components.machine.ssh import SshClient
from components.machine.ssh_types import HostAddress
from components.tls import certificates
from components.tls.authorities import DAY, Authority
from tests.helpers.documented import block
from tests.helpers.polling import eventually
from tests.helpers.stack_world import PROJECT, Emulator, Stack, run
from tests.helpers.tls_host import TlsHost
from tests.process.test_workflow import RENEWED

SMALL = {"model": "qwen2.5-0.5b-1x4090", "minReliability": "0.9"}
CLIENTS = 6
"""Each asks five times a second: more of them would take a core from the change that they watch."""

handshakes_break_off = pytest.mark.filterwarnings(
    "ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning"
)
"""The HTTP client leaves the socket of a handshake that broke off to the garbage collector."""


@pytest.fixture(scope="module")
def stack(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack(tmp_path_factory.mktemp("stack"), emulator, "living", is_forked=True)
    one.configure(**SMALL)
    done = one.up()
    assert done.status == 0, done.outcome()
    yield one
    done = one.destroy()
    assert done.status == 0, done.outcome()


@dataclasses.dataclass
class Clients:
    """Threads that ask for a completion over and over with one key, until told to stop."""

    url: str
    key: str
    model: str
    certificate: str
    identity: str = ""
    """What they show: PEM of certificate and key."""
    reconnects: bool = False
    """Each question on a connection of its own, and on after one that failed."""
    statuses: list[int | str] = dataclasses.field(default_factory=list)
    _over: threading.Event = dataclasses.field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        eventually(lambda: len(self.statuses) >= CLIENTS)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        trust = ssl.create_default_context(cadata=self.certificate)
        if self.identity:
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(self.identity)
                file.flush()
                trust.load_cert_chain(file.name)
        question = {
            "model": self.model,
            "max_tokens": 4,
            "messages": [{"role": "user", "content": "again"}],
        }
        headers = {"Authorization": f"Bearer {self.key}"}
        limits = httpx.Limits(max_keepalive_connections=0 if self.reconnects else None)
        with httpx.Client(
            verify=trust, trust_env=False, headers=headers, timeout=30, limits=limits
        ) as client:
            while not self._over.is_set():
                try:
                    answer = client.post(f"{self.url}/chat/completions", json=question)
                except httpx.TransportError as error:
                    self.statuses.append(f"{type(error).__name__} {error}")
                    if not self.reconnects:
                        return
                else:
                    self.statuses.append(answer.status_code)
                # A client that asks without a pause would measure this machine, not the gate.
                self._over.wait(0.2)


def clients(stack: Stack, known: dict[str, Any] | None = None) -> Clients:
    known = known or stack.outputs()
    return Clients(known["endpoint_url"], known["api_key"], known["model"], known["ca_certificate"])


def test_no_request_fails_while_the_key_is_rotated(stack):
    before = stack.outputs()
    with clients(stack) as old:
        stack.configure(**SMALL, keyGeneration=2)
        done = stack.up()
        assert done.status == 0, done.outcome()
        after = stack.outputs()
        asked = len(old.statuses)
        with clients(stack) as new:
            pass
        eventually(lambda: len(old.statuses) > asked + CLIENTS)
    assert "the old one works 10 minutes longer, and nothing restarts" in done.output
    assert after["api_key"] != before["api_key"]
    assert after["started_at"] == before["started_at"]
    assert after["boot_seconds"] == before["boot_seconds"]
    assert set(old.statuses) == {200}
    assert set(new.statuses) == {200}
    assert len(old.statuses) > 5 * CLIENTS


def test_a_dead_server_is_found_by_refresh_and_brought_back_by_up(stack, emulator):
    for process in server_processes(emulator):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    done = stack.refresh()
    assert done.status == 0, done.outcome()
    before = emulator.last_request()
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert "was found not ready" in done.output
    assert emulator.writes(after=before) == []
    with clients(stack) as again:
        pass
    assert set(again.statuses) == {200}


def test_a_state_set_back_by_a_backup_goes_on_with_the_machine_that_serves(stack, emulator):
    """The backup is older than the machine: it lacks `endpoint-instance` and what stands on it."""
    before, known = emulator.last_request(), stack.outputs()
    gone = {"endpoint-instance", "endpoint-holdings", "endpoint-server", "endpoint-smoke-test"}
    done = stack.set_back(without=gone)
    assert done.status == 0, done.outcome()
    with clients(stack, known) as meanwhile:
        done = stack.up()
    assert done.status == 0, done.outcome()
    assert "was rented for this resource before" in done.output
    assert "only its GPUs are checked" in done.output
    assert stack.outputs()["instance_id"] == known["instance_id"]
    assert stack.outputs()["started_at"] == known["started_at"]
    assert emulator.writes(after=before) == []
    assert set(meanwhile.statuses) == {200}


def test_no_request_fails_while_another_authority_joins(stack, emulator):
    """The machine's certificate is signed anew for it, and taken up by the server that runs."""
    before, since = stack.outputs(), emulator.last_request()
    shown = leaf(before)
    with clients(stack) as old:
        stack.configure(**SMALL, keyGeneration=2, caGeneration=2)
        done = stack.up()
        assert done.status == 0, done.outcome()
        after = stack.outputs()
    assert set(old.statuses) == {200}
    text = " ".join(done.output.split())
    assert "clients have 30 days to take it" in text
    assert "takes a new certificate, and nothing restarts" in text
    assert after["started_at"] == before["started_at"]
    assert emulator.writes(after=since) == []
    assert after["ca_certificate"].startswith(before["ca_certificate"])
    assert after["ca_certificate"].count("BEGIN CERTIFICATE") == 2
    assert leaf(after) != shown
    for known in (before, after):
        with Clients(*where(after), known["ca_certificate"]) as again:
            pass
        assert set(again.statuses) == {200}


def test_a_certificate_that_ends_soon_is_renewed_by_what_the_scheduled_job_asks_for(
    stack, emulator
):
    stack.configure(**SMALL, keyGeneration=2, caGeneration=2)
    before, since = stack.outputs(), emulator.last_request()
    let_its_certificate_end_in_20_days(stack)
    warned = stack.refresh()
    assert "the machine's certificate ends in 19 days: `pulumi up` renews it" in warned.output
    shown = leaf(before)
    with clients(stack) as asking:
        done = stack.up(*(part for one in RENEWED for part in ("--target", one)))
        assert done.status == 0, done.outcome()
        eventually(lambda: leaf(before) != shown)
    assert set(asking.statuses) == {200}
    assert "~ 2 updated\n    10 unchanged" in done.output
    assert stack.outputs()["started_at"] == before["started_at"]
    assert emulator.writes(after=since) == []
    assert stack.preview("--expect-no-changes").status == 0


def let_its_certificate_end_in_20_days(stack: Stack) -> None:
    """Let the state have one; whoever signed it, its end is what counts here."""
    signed = Authority.made(time.time())
    key = load_pem_private_key(certificates.new_key().encode(), password=None)
    public = key.public_key()
    assert isinstance(public, certificates.PublicKey)
    ends_soon = certificates.machine_certificate(
        signed.key,
        signed.certificate,
        public,
        ip="127.0.0.1",
        instance_id=1,
        now=time.time() - (certificates.LEAF_DAYS - 20) * DAY,
    )
    file, latest, content = checkpoint(stack)
    for resource in latest["resources"]:
        if "tls:Authority" in resource["urn"]:
            resource["outputs"]["leaf"] = ends_soon
    file.write_text(json.dumps(content))


def checkpoint(stack: Stack) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The file of a state, its resources' part, and all of it."""
    file = stack.backend / ".pulumi/stacks" / PROJECT / f"{stack.name}.json"
    content = json.loads(file.read_text())
    return file, content["checkpoint"]["latest"], content


def as_an_older_release_left_it(stack: Stack, emulator: Emulator) -> str:
    """Let the machine have a certificate of its own, and the state know it; give the former."""
    (contract,) = emulator.status()["contracts"]
    home = emulator.folder / "emulator/containers" / str(contract["id"]) / "root"
    (home / "serving/tls/pushed.pem").unlink()
    (home / "serving/pushed").write_text("older scripts")
    address = urlsplit(stack.outputs()["endpoint_url"]).hostname
    former = TlsHost(home).make_former_certificate(str(address))
    file, latest, content = checkpoint(stack)
    latest["resources"] = [one for one in latest["resources"] if "tls:Authority" not in one["urn"]]
    for resource in latest["resources"]:
        by_property = resource.get("propertyDependencies") or {}
        for names in (resource.get("dependencies") or [], *filter(None, by_property.values())):
            names[:] = [name for name in names if "tls:Authority" not in name]
        if resource["type"].endswith("vllm:Server"):
            for part in ("inputs", "outputs"):
                resource[part]["agent"] = "older scripts"
                for name in ("authorities", "leaf", "former_certificate", "cross_certificate"):
                    resource[part].pop(name, None)
            resource["outputs"]["ca_certificate"] = former
    file.write_text(json.dumps(content))
    return former


@handshakes_break_off
def test_clients_of_an_older_release_are_served_on_with_what_they_pin(stack, emulator):
    stack.configure(**SMALL, keyGeneration=2)
    before, since = stack.outputs(), emulator.last_request()
    former = as_an_older_release_left_it(stack, emulator)
    eventually(lambda: leaf(before) == former)
    asks = Clients(*where(before), former, reconnects=True)
    with asks as old:
        done = stack.up()
        assert done.status == 0, done.outcome()
        answered = old.statuses.count(200)
        eventually(lambda: old.statuses.count(200) > answered + CLIENTS)
    after = stack.outputs()
    assert "newer scripts" in done.output
    lines = done.output.partition("Diagnostics:")[0]
    assert lines.count("server: the supervisor has started") == 1
    assert emulator.writes(after=since) == []
    # While it restarts nobody is answered; nobody finds another certificate than the pinned one.
    assert not [one for one in old.statuses if "CERTIFICATE" in str(one)]
    assert after["ca_certificate"].endswith(former)
    assert after["ca_certificate"].count("BEGIN CERTIFICATE") == 2
    authority = after["ca_certificate"].removesuffix(former)
    for pinned in (former, authority, after["ca_certificate"]):
        with Clients(*where(after), pinned) as again:
            pass
        assert set(again.statuses) == {200}
    assert stack.preview("--expect-no-changes").status == 0


@handshakes_break_off
def test_who_shows_no_certificate_gets_no_further_than_tls(stack, emulator):
    """The stack itself does show one: its refresh, its smoke test, and the host's own watch."""
    stack.configure(**SMALL, keyGeneration=2, clientCertificates=True)
    since = emulator.last_request()
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert emulator.writes(after=since) == []
    known = stack.outputs()
    assert known["smoke_report"]["ok"] is True
    trusted = known["ca_certificate"]
    for identity, answers in ((known["client_certificate"], True), ("", False)):
        with Clients(*where(known), trusted, reconnects=True, identity=identity) as asking:
            pass
        assert (set(asking.statuses) == {200}) is answers
        assert (200 in asking.statuses) is answers
    environment = {**stack.environment, "PULUMI_STACK": stack.name}
    pins = block("README.md", "Use it", 1).splitlines()[0]
    lines = f"{pins}\n{block('docs/use.md', 'Client certificates', 0)}"
    curl = run(["bash", "-euc", lines], environment, folder=stack.folder)
    assert curl.status == 0, curl.outcome()
    assert f'"id":"{known["model"]}"' in curl.output
    example = block("README.md", "Use it", 0)
    shows = example.replace("client =", f"{block('docs/use.md', 'Client certificates', 1)}client =")
    assert run(["python", "-c", shows], environment, folder=stack.folder).status == 0
    assert run(["python", "-c", example], environment, folder=stack.folder).status != 0
    with on_its_machine(known) as host:
        counted = host.run("sh serving/supervise.sh requests")
    assert re.match(r"running=\d+\nwaiting=\d+\nfinished=[1-9]", counted.stdout), counted
    refreshed = stack.refresh("--expect-no-changes")
    assert refreshed.status == 0, refreshed.outcome()
    assert known["client_certificate"].splitlines()[-3] not in "".join(stack.said)


def on_its_machine(known: Mapping[str, Any]) -> SshClient:
    """The shell of the stack's machine."""
    found = re.search(r"-p (\d+) root@(\S+)$", known["ssh_command"])
    assert found, known["ssh_command"]
    return SshClient(HostAddress(found[2], int(found[1])), known["ssh_private_key"])


def where(known: Mapping[str, Any]) -> tuple[str, str, str]:
    return known["endpoint_url"], known["api_key"], known["model"]


def leaf(known: Mapping[str, Any]) -> str:
    """The certificate that a server shows, whoever vouches for it."""
    url = urlsplit(known["endpoint_url"])
    return ssl.get_server_certificate((str(url.hostname), int(url.port or 443)), timeout=5)


def server_processes(emulator: Emulator) -> list[psutil.Process]:
    """The supervisor and vLLM, which would be restarted by it, in every container."""
    containers = emulator.folder / "emulator/containers"
    found = []
    for process in psutil.process_iter():
        try:
            home = Path(process.environ().get("HOME", "/nowhere"))
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        serves = "supervise.sh run" in line or "vllm serve" in line or "standins.vllm" in line
        if serves and home.is_relative_to(containers):
            found.append(process)
    assert found
    return found
