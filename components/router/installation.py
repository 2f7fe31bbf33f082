"""Lets a router serve what is asked for, or what it served before. Over clients.

The files are written beside those that serve, HAProxy checks them, and one renaming makes them
count. Then the router is asked as clients ask it. Files that are not proven so give way to those
that were proven last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from components.core.display import shown
from components.core.interruption import Interrupted
from components.machine.agent_answers import AnswerUnreadable, read_request
from components.machine.own_computer import Computer, ComputerUnreachable
from components.router import change, facts, keys, proof, scripts
from components.router.access import Access, preflight
from components.router.bundle import Bundle, bundle, place_of
from components.router.errors import RouterFailed, RouterLost, RouterRefused
from components.router.facts import Facts
from components.router.state import RouterRequest, RouterState, Supervisor, url_of
from components.tls import certificates

Answers = Mapping[str, Sequence[str]]


def install(wanted: RouterRequest, state: RouterState | None, access: Access) -> RouterState:
    """Let a router serve what is asked for; `state` is the router so far, or None.

    Raises:
        RouterRefused: it cannot run there.
        RouterFailed: it does not serve so; what served before serves again.
        RouterLost: machines shall leave, and it cannot be told.
        ComputerUnreachable: its computer cannot be reached.
    """
    wanted = wanted.named_as(state.request if state else None)
    try:
        return _installed(wanted, state, access)
    except (ComputerUnreachable, RouterFailed, RouterRefused) as error:
        gone = change.leaving(state.request, wanted) if state else []
        if state is None or not gone:
            error.args = (f"{error}{_also_billed(wanted, state)}",)
            raise
        # A router that serves without the new ones needs the machines that it has.
        is_lost = not (isinstance(error, RouterFailed) and error.serves)
        if not is_lost or wanted.lost_router != "go-on":
            raise RouterLost(_still_billed(gone, error, is_lost=is_lost)) from None
        problem = f"it was not told that {_machines(gone)} left ({error})"
        access.progress.say(f"{problem}; `lostRouter` lets the `up` go on")
        return dataclasses.replace(state, request=wanted, problem=problem)


def _installed(wanted: RouterRequest, state: RouterState | None, access: Access) -> RouterState:
    before, owner = (state.request, state.owner) if state else (None, "")
    found = preflight(wanted, before, owner, access)
    computer = access.connect(wanted.host)
    new = _planned(wanted, state, found, computer, access)
    files = bundle(wanted, place_of(new), new.key_digests, new.leaf, metrics=new.metrics_digests)
    new = dataclasses.replace(new, digest=files.digest)
    if state is not None and found.is_alive and _is_served(new, state, access):
        return dataclasses.replace(new, supervisor=found.supervises)
    did = _put(computer, new, found, files)
    new = dataclasses.replace(new, supervisor=_supervisor(did))
    try:
        why = _refused(did) or proof.unproven(new, access)
    except Interrupted as interrupted:
        became, _ = _gone_back(computer, new, found, access)
        raise Interrupted(f"{interrupted}; {became}") from None
    if why:
        became, serves = _gone_back(computer, new, found, access)
        raise RouterFailed(f"{why}; {became}", serves=serves)
    computer.run(scripts.proven(wanted.label, files.digest))
    for line in proof.not_reached_by(new, access):
        access.progress.say(line)
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
        connections=facts.connections(found),
        owner=state.owner if state else access.random_text(),
        supervisor="nobody",
        key_digests=keys.key_digests(wanted, state, now),
        metrics_digests=keys.metrics_digests(wanted, state, now),
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


def _is_served(new: RouterState, state: RouterState, access: Access) -> bool:
    """Whether all of it is served already: then nothing is written, and no process is started."""
    if state.problem or state.digest != new.digest:
        return False
    return not proof.wrong(proof.client_of(new, access), new)


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


def _gone_back(
    computer: Computer, new: RouterState, found: Facts, access: Access
) -> tuple[str, bool]:
    """Let what was proven last serve again; say what became of it, and whether it serves."""
    request = new.request
    unit = scripts.unit_of(request.label, found.program, new.folder)
    for again in (False, True, True):
        script = scripts.back(
            request.label,
            found.program,
            version=new.digest,
            unit=unit,
            patience=access.limits.stop,
            again=again,
        )
        try:
            did = scripts.answers(computer.run(script).stdout)
        except ComputerUnreachable as error:
            return f"it could not go back either: {error}", False
        if "good" not in did:
            return "it was stopped, since it has no earlier files", False
        if "failed" in did:
            return f"it could not go back either: {_quoted(did['failed'])}", False
        if proof.serves(new, did["good"][0], access):
            return "it serves its last good files again", True
    return "it went back to its last good files, and does not serve them yet", False


def _still_billed(gone: Sequence[str], error: Exception, *, is_lost: bool) -> str:
    them = "it" if len(gone) == 1 else "them"
    what = f"{_machines(gone)} {'stays and is' if len(gone) == 1 else 'stay and are'} billed"
    if not is_lost:
        return f"{what}, since the router did not take up the change: {error}"
    end = f"to end {them} all the same, `pulumi config set lostRouter go-on`"
    leave = f"{'it' if len(gone) == 1 else 'they'} shall leave"
    return f"{what}, since the router cannot be told that {leave}: {error}; {end}"


def _also_billed(wanted: RouterRequest, state: RouterState | None) -> str:
    """Say which machines came up for nothing so far."""
    new = sorted(wanted.contracts - (state.request.contracts if state else set()), key=int)
    if not new:
        return ""
    verbs = ("gets no requests and is", "get no requests and are")
    return f"; {_machines(new)} {verbs[len(new) > 1]} billed"


def _machines(contracts: Sequence[str]) -> str:
    noun = "the machine of contract" if len(contracts) == 1 else "the machines of contracts"
    return f"{noun} {', '.join(contracts)}"
