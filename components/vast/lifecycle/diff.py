"""What has to change about a rented machine: another one, an update, or nothing. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from components.machine import gpus
from components.vast.errors import CannotAdopt
from components.vast.instance_state import InstanceInputs, InstanceState
from components.vast.labels import renter_of
from components.vast.lifecycle import drift, market_end, preemption
from components.vast.lifecycle.contract_expiry import ContractTerm, ExpiryPolicy, accepts
from components.vast.lifecycle.contract_expiry import replaces as replaced_for
from components.vast.market.query import parse_query, still_fits
from components.vast.market.requirements import Search
from components.vast.market.search import starts_on
from components.vast.quarantine import quarantine_reason
from components.vast.rental.adoption import TAKE_OUT

REPLACE_ON_CHANGE = ("image", "disk_gb", "port", "public_key")
"""Inputs that are fixed for the life of a contract: a change needs another machine."""

UPDATE_IN_PLACE = ("label_prefix", "search", "min_driver", "boot_minutes", "private_key")
"""Inputs that a running machine can take over."""

POLICIES = ("outbid_policy", "leash", "term")
"""Rules that a running machine takes over as well."""


@dataclasses.dataclass(frozen=True)
class Change:
    """What the next `up` does."""

    replaces: tuple[str, ...]
    """Properties for which another machine is rented, after this one is destroyed."""
    updates: bool
    """Whether there is anything to do about this machine."""

    message: str = ""
    """What a person has to know of it before it is done; empty for nothing."""

    def __bool__(self) -> bool:
        """Whether there is anything to do at all."""
        return bool(self.replaces) or self.updates


def decide(id_: str, old: InstanceState, new: InstanceInputs, now: float) -> Change:
    """Replace what a contract cannot change, what the query excludes, and what is lost.

    `now` is in seconds since 1970.

    Raises:
        CannotAdopt: if `adopt` names another machine than this one, or this one is to be replaced.
    """
    _refuse_a_second(id_, old.inputs, new)
    replaces = changed_inputs(old.inputs, new, REPLACE_ON_CHANGE)
    others = changed_inputs(old.inputs, new, (*UPDATE_IN_PLACE, *POLICIES))
    if "search" not in new.unknown:
        if old.inputs.need.contract != new.need.contract:
            replaces.append("contract")
        if "search" in others and not _could_choose(new.search, old):
            replaces.append("search")
    _refuse_the_replaced(id_, new, replaces)
    outage = _outage(old, new, replaces)
    replaces += _lost(old, new, now)
    return Change(tuple(replaces), bool(others) or needs_update(old, new), outage)


def changed_inputs(old: InstanceInputs, new: InstanceInputs, names: Iterable[str]) -> list[str]:
    """Name the inputs that differ; one that is not known yet counts as different."""
    return [name for name in names if name in new.unknown or _differs(old, new, name)]


def needs_update(old: InstanceState, new: InstanceInputs) -> bool:
    """Whether a running machine is not as it should be, whatever was asked of it."""
    return (
        is_kept(old, new)
        or needs_mending(old)
        or accepts(old.term(new.cap), new.term)
        or lacks_market_end(old, new)
    )


def is_kept(old: InstanceState, new: InstanceInputs) -> bool:
    """Whether a machine was stopped and is waited for. Only an outbid machine is replaced."""
    state = old.observed.market_state
    return state.is_stopped and not (state.is_outbid and next_step(new) == "rerent")


def needs_mending(old: InstanceState) -> bool:
    """Whether a refresh found another label, or another contract of the same resource."""
    return bool(old.strays) or old.observed.carried_label != old.label


def lacks_market_end(old: InstanceState, new: InstanceInputs) -> bool:
    """Whether the market has another end of a machine than it was to be given, or none."""
    wanted = market_end.wanted(new.leash, old.ends_itself_at)
    return abs(old.market_job.starts_at - wanted) >= 1


def next_step(new: InstanceInputs) -> preemption.Step:
    """Decide what is done about a machine that was taken away, by the count of such losses."""
    return preemption.next_step(new.outbid_policy, new.losses)


def is_over(term: ContractTerm, rule: ExpiryPolicy, now: float) -> bool:
    """Whether the rule ends a contract now; one whose end is not known is left alone."""
    return bool(term.ends_at) and replaced_for(term, rule, now)


def _differs(old: InstanceInputs, new: InstanceInputs, name: str) -> bool:
    if name == "search":
        # A refresh compares a state with its own inputs, which lack the same.
        lacking = old.lacking_of_search - new.lacking_of_search
        return bool(new.search.changed_from(old.search, lacking))
    return bool(getattr(old, name) != getattr(new, name))


def _outage(old: InstanceState, new: InstanceInputs, replaces: list[str]) -> str:
    """Say that no machine of several stays: what a contract cannot change is the same for all.

    The first one says it for all of them. With `create-first` such a change is no replacement.
    """
    of_all = [name for name in replaces if name in (*REPLACE_ON_CHANGE, "contract")]
    is_first = renter_of(new.label_prefix).replica == 0
    if not (of_all and is_first and old.inputs.fleet and new.fleet):
        return ""
    return (
        "the machines of all replicas end before others are rented, so nobody answers until those "
        "are up; with `replacement: create-first` the new ones come up beside them"
    )


def _lost(old: InstanceState, new: InstanceInputs, now: float) -> list[str]:
    """Name what a refresh found that another machine is rented for."""
    observed = old.observed
    found = {
        "status": drift.is_lost(observed.status, observed.intended_status)
        and not is_kept(old, new),
        "contract_ends_at": is_over(old.term(new.cap), new.term, now),
        "carried_label": bool(quarantine_reason(observed.carried_label)),
    }
    return [name for name, is_so in found.items() if is_so]


def _could_choose(search: Search, old: InstanceState) -> bool:
    """Whether the running machine is one that the new search could have chosen."""
    query = parse_query(search.query)
    query.setdefault("num_gpus", {"eq": search.need.num_gpus})
    name = old.observed.gpu_name
    starts = gpus.capability(name) is None or starts_on({"gpu_name": name}, search.need)
    row = {"gpu_name": name, "num_gpus": old.observed.num_gpus}
    return starts and still_fits(row, query)


def _refuse_a_second(id_: str, old: InstanceInputs, new: InstanceInputs) -> None:
    """Refuse to adopt another machine while the stack has a machine, which nobody would own then.

    A refresh comes with the recorded inputs. If it failed here, the state could neither be mended
    nor destroyed, so an adoption that the state names already is no request.
    """
    if new.adopt and str(new.adopt) != id_ and new.adopt != old.adopt:
        raise CannotAdopt(
            f"instance {new.adopt} cannot become this stack's, which has instance {id_} already: "
            "run `pulumi destroy` first, or adopt it into another stack; without an adoption, take "
            "the setting `adopt` out (`pulumi config rm adopt`)"
        )


def _refuse_the_replaced(id_: str, new: InstanceInputs, replaces: list[str]) -> None:
    """Refuse to replace a machine that is to be adopted: it would be gone by then.

    Only for changed inputs, which a refresh never brings. What drifted is refused by the `check`
    of its successor: an error here would fail the refresh that finds it, and so every `destroy`.
    """
    if replaces and str(new.adopt) == id_:
        raise CannotAdopt(
            f"instance {id_} is to be replaced ({', '.join(replaces)}) and `adopt` names it, which "
            f"will be gone by then: {TAKE_OUT}; nothing was changed"
        )
