"""Rules among the endpoints of one program, and facts of one endpoint beside its plan. Pure.

Everything that an endpoint rents is found by its label, and the label has the endpoint's name. So
two endpoints of one program may not be mistaken for each other by their names.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from components.core.errors import ConfigurationError
from components.machine.first_contact import BY_TRUST
from components.release.production_rules import is_called_production
from components.release.release import ReleaseSpec, digest_of, short, sources

if TYPE_CHECKING:
    from components.plan import Plan
    from components.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


class EndpointRefused(ConfigurationError):
    """An endpoint that the others of its program, or the toolchain, could not tell apart."""


@dataclasses.dataclass(frozen=True)
class Declared:
    """An endpoint as the program declares it."""

    name: str
    label: str
    """Beginning of its labels, `<project>/<stack>/` or what follows that, with a slash."""
    adopt: int = 0
    """Id of the contract that it takes over; 0 for none."""
    promote_from: str = ""
    router: str = ""
    """Computer and port of its router; empty without one."""

    @classmethod
    def of(cls, name: str, label: str, settings: Settings) -> Self:
        """Take from the settings what endpoints of one program may not both have."""
        where = settings.router_host or "this computer"
        router = f"port {settings.router_port} of {where}" if settings.is_fleet else ""
        return cls(name, label, settings.adopt, settings.promote_from, router)

    @property
    def path(self) -> str:
        """What the labels of all its machines begin with."""
        return f"{self.label}{self.name}"


def check(new: Declared, others: Iterable[Declared], stack_label: str) -> None:
    """Hold an endpoint to its own rules and to the others of its program.

    Args:
        new: the endpoint.
        others: those that the program declared before.
        stack_label: `<project>/<stack>/`, by which the toolchain finds what a stack has rented.

    Raises:
        EndpointRefused: one sentence; nothing was rented.
    """
    if not _NAME.fullmatch(new.name):
        raise EndpointRefused(
            f"{new.name!r} is no name for an endpoint: its machines' labels have the name, so it "
            "takes letters, digits, dots, dashes and underscores, and no dash at its end"
        )
    if not new.label.startswith(stack_label) or not new.label.endswith("/"):
        raise EndpointRefused(
            f"the label {new.label!r} of the endpoint {new.name} must begin with {stack_label} and "
            "end with a slash: `make orphans` and `make cost` find its machines by that"
        )
    for other in others:
        _tell_apart(new, other)


def check_key(name: str, settings: Settings, *, is_of_fleet: bool) -> None:
    """Hold a key that an endpoint is given to what several machines need of it.

    Raises:
        EndpointRefused: one sentence; nothing was rented.
    """
    if settings.is_fleet and not is_of_fleet:
        raise EndpointRefused(
            f"the endpoint {name} has several machines, and the ApiKey that it is given keeps no "
            "replaced keys for them: make that ApiKey with `fleet=True`"
        )


def token_for(settings: Settings, plan: Plan, closed: Sequence[str]) -> list[str]:
    """Name the repositories that only the holder of the stack's token can fetch.

    `closed` are the repositories that the Hub reports as such; a profile knows of its own model.
    """
    if not settings.hugging_face_token:
        return []
    own = [plan.profile.repository] if plan.profile.gated else []
    return sorted({*closed, *own})


def unheld_promises(settings: Settings, plan: Plan, stack: str) -> list[str]:
    """Report checks that a stack seems to have and does not have."""
    messages = []
    if settings.promote_from and plan.release is None:
        messages.append(
            f"this stack takes its releases from {settings.promote_from} and names none: it runs "
            "what its own settings say, which nobody has proven; `make promote` sets a release"
        )
    if is_called_production(stack) and not settings.production:
        messages.append(
            f"this stack is called {stack} and is held to no rule of production: "
            "`production: true` in its configuration holds it to them"
        )
    return messages


def passing_router_warning(settings: Settings, environment: Mapping[str, str]) -> str:
    """Warn of a router on a computer that a workflow gets for a job; empty if it is on none.

    `CI` is what GitHub, GitLab and others set in each job.
    """
    if not settings.is_fleet or settings.router_host or not environment.get("CI"):
        return ""
    return (
        "the router would run on this job's own computer, and nobody can reach the endpoint once "
        "the job is over: set `routerHost` to a computer that stays"
    )


def release_facts(
    *,
    runs: ReleaseSpec,
    files: Sequence[Mapping[str, Any]],
    resolved: Mapping[str, Any],
    compared: Sequence[str],
    smoke_report: Mapping[str, Any],
    host_key_from: str | None,
    name: str,
    let_in: bool,
) -> dict[str, Any]:
    """Say what an endpoint runs, as the gate of another stack and a release want to know it.

    Args:
        runs: what runs.
        files: those of the model on the host.
        resolved: commits by the Hub's word, by repository.
        compared: repositories whose files were compared with the Hub's list.
        smoke_report: the newest report; it proves the digest that it carries, and no other.
        host_key_from: who vouched for the SSH host key; None if an older release asked nobody.
        name: of the release; empty if what runs is none.
        let_in: whether this stack's gate has let it in; one without a gate lets in everything.
    """
    digest = digest_of(runs)
    return {
        "name": name,
        "digest": digest,
        "proven": _proves(smoke_report, digest),
        "let_in": let_in,
        "runs": runs.model_dump_json(),
        "files": files,
        "sources": sources(resolved, compared),
        "host_key": host_key_from or BY_TRUST,
    }


def replica_name(endpoint: str, index: int) -> str:
    """Name a machine of an endpoint by its number; the first one, 0, has the endpoint's name."""
    return endpoint if index == 0 else f"{endpoint}-r{index}"


@dataclasses.dataclass(frozen=True)
class Proof:
    """What one of several machines runs, and what its newest smoke test found."""

    name: str
    runs: ReleaseSpec
    report: Mapping[str, Any]


def release_of_several(
    first: Mapping[str, Any], proofs: Sequence[Proof], through_router: Mapping[str, Any]
) -> dict[str, Any]:
    """Say what an endpoint of several machines runs: the same on each, or nothing that is proven.

    Args:
        first: `release_facts` of the first machine.
        proofs: those of all machines, the first one's first.
        through_router: the newest report of the smoke test through the router.
    """
    digest = first["digest"]
    messages = [message for proof in proofs if (message := _unproven(proof, proofs[0]))]
    if not _proves(through_router, digest):
        messages.append("what runs has not passed the smoke test through the router")
    said = {"unproven": messages} if messages else {}
    return {**first, "proven": not messages, **said}


def _unproven(proof: Proof, first: Proof) -> str:
    """Say why a machine does not prove what the first one runs; empty if it does."""
    digest = digest_of(proof.runs)
    if digest != digest_of(first.runs):
        return (
            f"{proof.name} runs {_differs(proof.runs, first.runs)} than {first.name}, "
            f"{short(digest)} instead of {short(digest_of(first.runs))}"
        )
    return "" if _proves(proof.report, digest) else f"{proof.name} has not passed its smoke test"


def _differs(one: ReleaseSpec, other: ReleaseSpec) -> str:
    """Name what differs between what two machines run."""
    parts = {
        "another commit": (one.profile.revision, other.profile.revision),
        "other companions": (one.profile.companions, other.profile.companions),
        "other GPUs": (
            (one.profile.num_gpus, one.profile.gpu_name),
            (other.profile.num_gpus, other.profile.gpu_name),
        ),
    }
    named = [name for name, (mine, theirs) in parts.items() if mine != theirs]
    return " and ".join(named) or "other options"


def _proves(report: Mapping[str, Any], digest: str) -> bool:
    return bool(report.get("ok")) and report.get("digest") == digest


def _tell_apart(new: Declared, other: Declared) -> None:
    shorter, longer = sorted((new, other), key=lambda one: len(one.path))
    if new.path == other.path:
        raise EndpointRefused(
            f"two endpoints of this program are called {new.name}: each would end the other's "
            "machines; give one of them another name"
        )
    if longer.path.startswith(shorter.path):
        raise EndpointRefused(
            f"the name of the endpoint {shorter.name} begins the name of {longer.name}: by their "
            "labels, one could be taken for the other's; give one of them another name"
        )
    if new.adopt and new.adopt == other.adopt:
        raise EndpointRefused(
            f"the endpoints {other.name} and {new.name} would both take over instance {new.adopt}: "
            "set `adopt` to 0 for one of them"
        )
    if new.router and new.router == other.router:
        raise EndpointRefused(
            f"the endpoints {other.name} and {new.name} would both have their router at "
            f"{new.router}: set another `routerPort` for one of them"
        )
    if new.promote_from and other.promote_from:
        raise EndpointRefused(
            f"the endpoints {other.name} and {new.name} both take their releases from another "
            "stack, and a stack says of one endpoint alone what it runs (output `release`): set "
            "`promoteFrom` for one of them, or put the other into a project of its own"
        )
