"""Lets a router serve what is asked for, or what it served before. Over clients.

The files are written beside those that serve, HAProxy checks them, and one renaming makes them
count. Then the router is asked as clients ask it. Files that are not proven so give way to those
that were proven last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from components.core.display import shown
from components.machine.agent_answers import AnswerUnreadable, read_request
from components.machine.own_computer import Computer, ComputerUnreachable
from components.router import change, facts, keys, scripts
from components.router.access import Access, preflight
from components.router.bundle import Bundle, Place, bundle
from components.router.errors import RouterFailed, RouterLost, RouterRefused
from components.router.facts import Facts
from components.router.state import RouterRequest, RouterState, Supervisor, url_of
from components.tls import certificates

PROOF_SECONDS = 30.0
"""In which a router that was started or reloaded has to serve its new files."""

QUIET_SECONDS = 3.0
"""In which a router that does not serve yet is nothing to speak of."""

LOOK_EVERY = 0.25
"""Seconds between two questions."""

WRONG_KEY = "no-key-of-this-stack"

OK, UNAUTHORIZED = 200, 401

Answers = Mapping[str, Sequence[str]]


def install(wanted: RouterRequest, state: RouterState | None, access: Access) -> RouterState:
    """Let a router serve what is asked for; `state` is the router so far, or None.

    Raises:
        RouterRefused: it cannot run there.
        RouterFailed: it does not serve so; what served before serves again.
        RouterLost: machines shall leave, and it cannot be told.
        ComputerUnreachable: its computer cannot be reached.
    """
    try:
        return _installed(wanted, state, access)
    except (ComputerUnreachable, RouterFailed, RouterRefused) as error:
        gone = change.leaving(state.request, wanted) if state else []
        if state is None or not gone:
            raise
        if wanted.lost_router != "go-on":
            raise RouterLost(_still_billed(gone, error)) from None
        problem = f"it was not told that {_machines(gone)} left ({error})"
        access.progress.say(f"{problem}; `lostRouter` lets the `up` go on")
        return dataclasses.replace(state, request=wanted, problem=problem)


def _installed(wanted: RouterRequest, state: RouterState | None, access: Access) -> RouterState:
    found = preflight(wanted, state.owner if state else "", access)
    computer = access.connect(wanted.host)
    new = _planned(wanted, state, found, computer, access)
    files = bundle(wanted, Place(new.folder, new.listen, new.threads), new.key_digests, new.leaf)
    new = dataclasses.replace(new, digest=files.digest)
    did = _put(computer, new, found, files)
    new = dataclasses.replace(new, supervisor=_supervisor(did))
    if why := _refused(did) or unproven(new, access):
        raise RouterFailed(f"{why}; {_gone_back(computer, new, found, access)}")
    computer.run(scripts.proven(wanted.label, files.digest))
    access.progress.say(
        f"it serves {len(wanted.members)} machines at {url_of(wanted.address, wanted.port)}; "
        + scripts.supervision(new.supervisor, lingers=found.lingers, where=wanted.where)
    )
    return new


def _planned(
    wanted: RouterRequest,
    state: RouterState | None,
    found: Facts,
    computer: Computer,
    access: Access,
) -> RouterState:
    """Decide all of the next state but the digest of its files."""
    now = access.clock.epoch()
    return RouterState(
        request=wanted,
        version=found.version,
        digest="",
        leaf=_leaf(computer, wanted, state, now),
        folder=found.folder,
        listen=facts.listens_on(found, wanted.address),
        threads=found.threads,
        owner=state.owner if state else access.random_text(),
        supervisor="nobody",
        key_digests=keys.key_digests(wanted, state, now),
    )


def _leaf(computer: Computer, wanted: RouterRequest, state: RouterState | None, now: float) -> str:
    """Give the router's certificate: the existing one while it holds, else a new one.

    Raises:
        RouterFailed: if the computer makes no key.
        ComputerUnreachable: if it does not answer.
    """
    result = computer.run(scripts.key_request(wanted.label))
    request = result.stdout[result.stdout.find("-----BEGIN") :]
    try:
        public_key = read_request(request)
    except AnswerUnreadable:
        last = shown((result.stderr or result.stdout).strip()[-200:]) or "it prints nothing"
        raise RouterFailed(f"{wanted.where} makes no key for the router ({last})") from None
    if (
        state is not None
        and state.request.address == wanted.address
        and certificates.is_for(state.leaf, public_key)
        and not keys.is_due(state.leaf, wanted, now)
    ):
        return state.leaf
    return keys.signed(wanted, public_key, now)


def _put(computer: Computer, new: RouterState, found: Facts, files: Bundle) -> Answers:
    script = scripts.install(
        new.request.label,
        found.program,
        owner=new.owner,
        stack=" ".join(sorted(facts.stack_marks(new.request.authorities))),
        version=files.digest,
        files=files.files,
        unit=scripts.unit_of(new.request.label, found.program, new.folder),
    )
    result = computer.run(script, secrets=[new.request.client_certificate])
    did = scripts.answers(result.stdout)
    if not {"did", "refused", "failed"} & did.keys():
        last = shown(result.stderr.strip()[-200:]) or f"status {result.exit_status}"
        return {"failed": [f"its files cannot be written to {new.folder} ({last})"]}
    return did


def _supervisor(did: Answers) -> Supervisor:
    for kind in ("systemd", "systemd-user"):
        if kind in did.get("supervisor", ()):
            return "systemd" if kind == "systemd" else "systemd-user"
    return "nobody"


def _refused(did: Answers) -> str:
    """Say what HAProxy has against the files, or why it does not start; empty for nothing."""
    if "refused" in did:
        return f"HAProxy does not take its files: {_quoted(did['refused'])}"
    if "failed" in did:
        return f"HAProxy does not start: {_quoted(did['failed'])}"
    return ""


def _quoted(lines: Sequence[str]) -> str:
    return shown(" ".join(lines))[:500]


def unproven(state: RouterState, access: Access) -> str:
    """Ask a router as clients do until it serves its files; say what is wrong after that time."""
    request, clock = state.request, access.clock
    client = access.ask(
        url_of(request.address, request.port), request.authorities, request.client_certificate
    )
    started = clock.monotonic()
    where = f"at {url_of(request.address, request.port)}"
    while True:
        why = _wrong(client.status_of("/health", None), OK, f"`/health` {where}")
        if not why and client.version(request.stack_key) != state.digest:
            why = f"the router {where} does not serve its new files"
        why = why or _wrong(
            client.status_of("/v1/models", WRONG_KEY), UNAUTHORIZED, f"a wrong key {where}"
        )
        why = why or _wrong(
            client.status_of("/v1/models", request.stack_key), OK, f"the stack's key {where}"
        )
        waited = clock.monotonic() - started
        if not why or waited >= PROOF_SECONDS:
            return why
        access.progress.go_on("the proof of the router", "it has its new files already")
        if waited >= QUIET_SECONDS:
            access.progress.waiting(f"not yet: {why}")
        clock.sleep(LOOK_EVERY)


def _wrong(found: int | str, expected: int, what: str) -> str:
    if found == expected:
        return ""
    answer = f"gets {found}" if isinstance(found, int) else f"fails: the router {found}"
    return f"{what} {answer} instead of {expected}"


def _gone_back(computer: Computer, new: RouterState, found: Facts, access: Access) -> str:
    """Let what was proven last serve again, and say which that is."""
    request = new.request
    unit = scripts.unit_of(request.label, found.program, new.folder)
    script = scripts.back(request.label, found.program, version=new.digest, unit=unit)
    try:
        did = scripts.answers(computer.run(script).stdout)
    except ComputerUnreachable as error:
        return f"it could not go back either: {error}"
    if "good" not in did:
        return "it was stopped, since it has no earlier files"
    if "failed" in did:
        return f"it could not go back either: {_quoted(did['failed'])}"
    access.progress.say("it went back to its last good files")
    return "it serves its last good files again"


def _still_billed(gone: Sequence[str], error: Exception) -> str:
    return (
        f"the router cannot be told that {_machines(gone)} shall leave, so "
        f"{'it stays and is' if len(gone) == 1 else 'they stay and are'} billed: {error}; to end "
        f"{'it' if len(gone) == 1 else 'them'} all the same, `pulumi config set lostRouter go-on`"
    )


def _machines(contracts: Sequence[str]) -> str:
    noun = "the machine of contract" if len(contracts) == 1 else "the machines of contracts"
    return f"{noun} {', '.join(contracts)}"
