"""`VastInstance`: one rented machine that works, in the state from the moment it does.

`create` returns a host that runs, is reachable and is what was ordered, or leaves nothing billed.
Anything that needs another machine is a replacement, and the old one goes first: two of them at
once would cost twice for the whole boot.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import pulumi
from pulumi import dynamic

from components.core.errors import StackError
from components.core.progress import Progress
from components.core.property_bag import Properties, changed
from components.machine import first_contact, gpus
from components.machine.agent_answers import moment
from components.machine.errors import HostUnfit
from components.machine.inspection import Expected, Inspection, inspect
from components.machine.onstart import onstart
from components.machine.ssh_types import (
    FOLDER,
    CommandFailed,
    HostAddress,
    HostUnreachable,
    LoginRefused,
    Nonsense,
)
from components.machine.tcp_probe import Reach, reach
from components.resources.context import current
from components.resources.provider import Provider, refused
from components.vast import adoption, drift, market, outbid
from components.vast.adoption import SECONDS_TO_END, TAKE_OUT, Wanted
from components.vast.api.account import account_of, hold_to
from components.vast.api.client import VastApi
from components.vast.api.models import Instance, PriceAsked
from components.vast.api.payloads import RentRequest
from components.vast.attempts import Attempt
from components.vast.boot import PRICE_TOLERANCE, Boot, Deadlines, Rented
from components.vast.ending import Ending, left_alone
from components.vast.errors import BootFailed, CannotAdopt, LeftRunning, StillOutbid
from components.vast.estimates import ESTIMATES, Estimate, Estimates
from components.vast.lifecycle import auto_shutdown, market_end
from components.vast.lifecycle.auto_shutdown import Leash
from components.vast.lifecycle.market_end import FirstEnd, MarketEnd
from components.vast.market import HOURS_A_MONTH
from components.vast.offer import candidates, contract_of, gained, need_of, show_market
from components.vast.outbid import MarketState
from components.vast.owner import nonce, owner_in, owner_of, told_apart
from components.vast.refresh_log import NOTE, InTheState
from components.vast.rent_note import SUFFIX, RentNote
from components.vast.rental import Limits, Rental
from components.vast.second_look import second_look
from components.vast.term import Rule, Term, accepts
from components.vast.term import in_words as term_in_words
from components.vast.term import replaces as replaced_for
from components.vast.unfit import why_unfit
from components.vllm.readiness.plan import DOWNLOAD_SHARE

if TYPE_CHECKING:
    from components.vllm.host import Host

ORDERED = ("image", "disk_gb", "port", "public_key")
"""Inputs that are fixed for the life of a contract: a change needs another machine."""

OTHERS = ("label_prefix", "search", "min_driver", "boot_minutes", "private_key")
"""Inputs that a running machine can take over."""


class InstanceProvider(Provider):
    """CRUD of `VastInstance`: translates between property bags and `Rental`."""

    def check(self, olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Where a machine is going to be rented, say what the market offers and what it costs.

        The inputs of before are empty for a machine that is new or is to be replaced.
        """
        later = ("losses", "token_for")
        known = {key: value for key, value in news.items() if key not in later}
        try:
            if not olds and _to_adopt(news):
                # Also before the stack's key exists, without which no order can be named.
                _tell_before_adopting(news)
            elif not olds and not pulumi.contains_unknowns(known):
                _tell_before_renting(news)
        except StackError as error:
            return refused(news, error)
        return dynamic.CheckResult(news, [])

    def diff(self, id_: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Replace what a contract cannot change, what the query excludes, and what is lost."""
        _refuse_a_second(id_, olds, news)
        if olds.get("search"):
            search = news["search"]
            wanted = {} if pulumi.contains_unknowns(search) else search
            olds = {**olds, "search": gained(olds["search"], wanted)}
        replaces = changed(olds, news, ORDERED)
        others = [*changed(olds, news, OTHERS), *_changed_policies(olds, news)]
        if contract_of(olds.get("search")) != _contract_wanted(news):
            replaces.append("contract")
        if "search" in others and not _search_allows(olds, news):
            replaces.append("search")
        _refuse_the_replaced(id_, news, replaces)
        market_state = MarketState.read(olds)
        lost = drift.is_lost(str(olds.get("status")), str(olds.get("intended_status")))
        is_kept = market_state.is_stopped and not _is_rented_anew(market_state, news)
        if lost and not is_kept:
            replaces.append("status")
        term, rule = _term(olds, news), Rule.read(news)
        if _is_over(term, rule):
            replaces.append("contract_ends_at")
        if why_unfit(str(olds.get("carried_label") or "")):
            replaces.append("carried_label")
        return dynamic.DiffResult(
            changes=bool(
                replaces
                or others
                or is_kept
                or _to_mend(olds)
                or accepts(term, rule)
                or _is_unarmed(olds, news)
            ),
            replaces=replaces,
            delete_before_replace=True,
        )

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Adopt or rent; return a machine that works."""
        api = current().market()
        search = props["search"]
        need = need_of(search)
        by_hand = _to_adopt(props)
        asked = False

        def ask() -> list[market.Candidate]:
            nonlocal asked
            anew, asked = asked, True
            return candidates(api, str(search["query"]), need, anew=anew)

        progress = _progress()
        order = _order(props, api.url)
        ports = ("22/tcp", f"{int(props['port'])}/tcp")
        with _Machine(props, progress, order.label) as machine:
            rental = _rental(api, props, progress, _first_end(api, props, progress))
            if by_hand:
                _adopt(api, props, order, machine, ports)
                rented = rental.take_over(by_hand, order, machine, ports)
            else:
                rented = rental.obtain(order, ask, machine, ports)
            ends_at = _leashed(machine, rented, props, api.url, progress)
            armed = _armed(api, rented, props, ends_at, progress)
        _note_estimate(api, rented.instance, need, progress, had_its_weights=bool(by_hand))
        outs = {
            **_outputs(props, order, rented),
            "ends_itself_at": ends_at,
            **armed,
            "account_id": account_of(api),
        }
        return dynamic.CreateResult(str(rented.instance.id), outs)

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Look at the contract and say what drifted; gone only if GET and list agree."""
        contracts, live = _seen(int(id_), props)
        if live is None:
            current().say(drift.gone(int(id_), props, current().clock.epoch()))
            # No state knows of it from now on.
            _disarm_what_is_gone(current().market(patient=False), int(id_), props, _progress())
            return dynamic.ReadResult("", {})
        strays = _others(contracts, props, live.id)
        api = current().market(patient=False)
        InTheState(api.shared(NOTE), current().clock).note(str(live.id))
        now = current().clock.epoch()
        losses = outbid.noted(props.get("losses") or {}, [live], now)
        for sentence in drift.drift(_recorded(props, losses, now), live, strays):
            current().say(sentence)
        price = _price_asked(live.id)
        found = {**_live(live, props), "price_asked": price}
        term = _term({**props, **found}, props)
        for sentence in term_in_words(term, Rule.read(props), now):
            current().say(f"instance {live.id} {sentence}")
        found |= {"strays": [stray.id for stray in strays], "losses": losses}
        found |= _seen_at_the_market(api, live.id, props)
        if not props.get("account_id"):
            # It was not to be had when the machine was rented. That it is seen here settles it.
            found["account_id"] = account_of(api)
        return dynamic.ReadResult(id_, {**props, **found})

    def update(self, id_: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Take over inputs that change nothing about the machine; mend its label and its kin.

        One that was taken away and is to be kept is waited for.
        """
        mended: Properties = {}
        if _to_mend(olds):
            mended = _mend(int(id_), olds)
        if changed(olds, news, ["label_prefix"]):
            mended |= _rename(int(id_), olds, news)
        market_state = MarketState.read(olds)
        if market_state.is_outbid:
            mended |= _won_back(int(id_), olds, news)
        elif market_state.is_stopped:
            mended |= _started_again(int(id_), news)
        term = _term(olds, news)
        if term.asked is not None and accepts(term, Rule.read(news)):
            mended |= _accept(int(id_), term.asked, news)
        if Leash.read(olds) != Leash.read(news) or _is_unarmed(olds, news):
            mended |= _given_another_end(int(id_), olds, news, mended)
        return dynamic.UpdateResult({**olds, **news, **mended})

    def delete(self, id_: str, props: Properties) -> None:
        """End the contract and read back that it is gone."""
        api, progress = current().market(), _progress()
        hold_to(api, int(props.get("account_id") or 0), f"instance {id_}")
        _note_loss(api, id_, props, progress)
        why = why_unfit(str(props.get("carried_label") or ""))
        if why:
            with _note(api, props, progress).alone() as page:
                page.exclude(int(props["machine_id"]), why)
        progress.say(f"destroying instance {id_}")
        price = float(props.get("hourly_cost") or 0)
        Ending(api, current().clock, progress).end(int(id_), price)
        progress.say(f"instance {id_} is gone and costs nothing any more")
        _disarm_what_is_gone(api, int(id_), props, progress)


class VastInstance(dynamic.Resource, module="vast", name="Instance"):
    """A rented machine."""

    instance_id: pulumi.Output[int]
    machine_id: pulumi.Output[int]
    public_ip: pulumi.Output[str]
    ssh_port: pulumi.Output[int]
    host_port: pulumi.Output[int]
    """Where the container's `port` is reached from outside; may move at a restart."""
    host_key: pulumi.Output[str]
    """The SSH host key seen at first contact; checked ever after."""
    host_key_from: pulumi.Output[str | None]
    """Who vouched for it then, `first_contact.BY_LOG` or `BY_TRUST`; None if an older release
    rented the machine, which asked nobody."""
    gpu: pulumi.Output[str]
    hourly_cost: pulumi.Output[float]
    """$/h with the disk, without traffic."""
    location: pulumi.Output[str]
    status: pulumi.Output[str]
    boot_seconds: pulumi.Output[dict[str, float]]
    """By stage: contract, image, container, ports, ssh, check."""
    host_facts: pulumi.Output[dict[str, Any]]
    """What the host check found: GPUs and the link between them, driver, disk, memory, and the
    rate from the Hub in Mbit/s (None with a note if it was not measured)."""

    ends_itself_at: pulumi.Output[float]
    """When its time to live is over, in seconds since 1970; 0 for never."""

    market_ends_at: pulumi.Output[float]
    """When the market's own job to destroy it starts, in seconds since 1970; 0 without one."""

    def __init__(
        self,
        name: str,
        *,
        label_prefix: str,
        search: pulumi.Input[Mapping[str, Any]],
        image: str,
        disk_gb: float,
        port: int,
        public_key: pulumi.Input[str],
        private_key: pulumi.Input[str],
        min_driver: str,
        adopt: int,
        boot_minutes: float,
        outbid_policy: outbid.Policy,
        losses: pulumi.Input[Mapping[str, Any]],
        time_to_live: Leash,
        term: Rule,
        first_contact: str,
        token_for: pulumi.Input[Sequence[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Rent for `label_prefix` (`<project>/<stack>/<resource>/`) what `search` finds.

        `first_contact` is the setting as it is written. `token_for` are the repositories that the
        Hub gives to the holder of the stack's token alone.
        """
        inputs = {
            "label_prefix": label_prefix,
            "search": search,
            "image": image,
            "disk_gb": disk_gb,
            "port": port,
            "public_key": public_key,
            "private_key": private_key,
            "min_driver": min_driver,
            "adopt": adopt,
            "boot_minutes": boot_minutes,
            "outbid_policy": dataclasses.asdict(outbid_policy),
            "losses": losses,
            "leash": dataclasses.asdict(time_to_live),
            "term": dataclasses.asdict(term),
            "first_contact": first_contact,
            "token_for": token_for,
        }
        outputs = dict.fromkeys(
            [
                "instance_id",
                "machine_id",
                "public_ip",
                "ssh_port",
                "host_port",
                "host_key",
                "host_key_from",
                "gpu",
                "hourly_cost",
                "location",
                "status",
                "boot_seconds",
                "host_facts",
                "ends_itself_at",
                *market_end.NONE,
            ]
        )
        # `diff` says so as well, but is not asked where a person wants it replaced: its successor
        # would find the contract by the label, adopt it, and see it destroyed.
        own = pulumi.ResourceOptions(
            additional_secret_outputs=["private_key"], delete_before_replace=True
        )
        super().__init__(
            InstanceProvider(),
            name,
            {**inputs, **outputs},
            pulumi.ResourceOptions.merge(opts, own),
        )


class _Machine:
    """`boot.Machine` over SSH, with the stack's key; a context manager."""

    def __init__(self, props: Properties, progress: Progress, label: str) -> None:
        self._props = props
        self._progress = progress
        self._label = label
        self._host: Host | None = None
        self._address: HostAddress | None = None
        self._late = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def reach(self, instance: Instance, port: str) -> Reach:
        return reach(instance.public_ip, instance.ports[port])

    def log_in(self, instance: Instance) -> str:
        try:
            return self.door(instance).connect()
        except (HostUnreachable, LoginRefused) as error:
            raise BootFailed(str(error)) from None

    def named_keys(self, instance: Instance) -> frozenset[str]:
        try:
            log = current().container_log().lines(instance.id, first_contact.MARK)
        except StackError as error:
            raise BootFailed(str(error)) from None
        key = first_contact.proof_key(str(self._props["private_key"]), self._label)
        named = first_contact.named(log, key)
        if not named:
            raise BootFailed("the market's log names none")
        return named

    def inspect(self, instance: Instance, *, adopted: bool) -> Inspection:
        expected = _expected(instance, self._props, adopted=adopted)
        try:
            return inspect(self.door(instance), expected, self._progress.say)
        except Nonsense as error:
            raise HostUnfit(str(error)) from None
        except CommandFailed as error:
            # Once may be a moment's; a machine that is late twice costs the time of its check.
            self._late += 1
            if self._late > 1:
                raise HostUnfit(str(error)) from None
            raise BootFailed(str(error)) from None
        except (HostUnreachable, LoginRefused) as error:
            raise BootFailed(str(error)) from None

    def run(self, instance: Instance, script: str) -> str:
        """Run a script in `sh` and give what it said; `BootFailed` if it fails."""
        try:
            done = self.door(instance).run("sh -s", stdin=script, timeout=SECONDS_TO_END + 60.0)
        except (HostUnreachable, LoginRefused, CommandFailed) as error:
            raise BootFailed(str(error)) from None
        if done.exit_status != 0:
            raise BootFailed(
                f"taking over ended with {done.exit_status}: {done.stderr.strip()[-300:]}"
            )
        return done.stdout.strip()

    def door(self, instance: Instance) -> Host:
        """The door to this machine: one connection, as long as it stays where it is."""
        address = HostAddress(instance.public_ip, instance.ports["22/tcp"])
        if self._host is None or address != self._address:
            self._leave()
            self._late = 0
            self._host = current().host(address, str(self._props["private_key"]))
            self._address = address
        return self._host

    def _leave(self) -> None:
        if self._host is not None:
            self._host.close()
        self._host = None


def _seen(instance_id: int, props: Properties) -> tuple[list[Instance], Instance | None]:
    """All contracts and this one, which is None only if list, single GET and list agree.

    Raises:
        StackError: of the door's kinds, naming the instance too.
    """
    try:
        return _looked_up(current().market(patient=False), instance_id, props)
    except StackError as error:
        error.args = (
            f"nothing can be said of instance {instance_id}, which stays in the state: {error}",
        )
        raise


def _looked_up(
    api: VastApi, instance_id: int, props: Properties
) -> tuple[list[Instance], Instance | None]:
    contracts = api.instances()
    listed = [one for one in contracts if one.id == instance_id]
    live = listed[0] if listed else api.instance(instance_id)
    if live is not None and props.get("status") == "running":
        served = (str(props["public_ip"]), int(props["host_port"]))
        live = second_look(api, current().clock, _progress(), live, lambda: reach(*served))
    if live is None:
        hold_to(api, int(props.get("account_id") or 0), f"instance {instance_id}")
    return contracts, live


def _tell_before_renting(props: Properties) -> None:
    """Show what a rental would be; raise if there can be none.

    Beside a contract of before that is only told: whether an interrupted `up` goes on with it or a
    person replaces it by name is not known here, and the one must not fail for the other.
    """
    api = current().market(patient=False)
    label = _order(props, api.url).label
    contracts = api.instances()
    search = props["search"]
    query, need = str(search["query"]), need_of(search)
    there = _to_go_on_with(contracts, label, props)
    try:
        show_market(api, query, need, renting=True)
    except StackError as error:
        if there is None:
            raise
        current().say(
            f"if instance {there.id} is being replaced, it ends and none comes in its place: "
            f"{error}"
        )
    if there is not None:
        return
    beside, others = _beside(contracts, props)
    for other in others:
        current().say(left_alone(other))
    if beside:
        best = candidates(api, query, need, anew=False)[0].offer.dollars_per_hour
        current().say(_both_bills(beside, best))


def _to_go_on_with(contracts: list[Instance], label: str, props: Properties) -> Instance | None:
    """The contract of before that `create` goes on with, which is told, unless it is replaced."""
    for one in contracts:
        if one.label != label or drift.is_lost(one.actual_status, one.intended_status):
            continue
        if _ends_by_rule(one, props):
            continue
        cap = market.hourly_cap(need_of(props["search"]))
        if one.dollars_per_hour > cap * PRICE_TOLERANCE:
            current().say(
                f"instance {one.id} was rented for this resource before and costs "
                f"${one.dollars_per_hour:.2f}/h, above the cap of ${cap:.2f}/h: `pulumi up` ends "
                "it and rents another one; raise the cap to go on with it"
            )
            continue
        current().say(
            f"instance {one.id} was rented for this resource before and costs "
            f"${one.dollars_per_hour:.2f}/h: unless it is being replaced, `pulumi up` goes on "
            "with it"
        )
        return one
    return None


def _ends_by_rule(instance: Instance, props: Properties) -> bool:
    """Whether `diff` replaces it; whether it is to cost more is asked only where that matters."""
    rule = Rule.read(props)
    if rule.when != "replace":
        return False
    found = {**_live(instance, props), "price_asked": _price_asked(instance.id)}
    return _is_over(_term(found, props), rule)


def _to_adopt(props: Properties) -> int:
    """Id of the contract that is to be taken over, or 0."""
    return int(props.get("adopt") or 0)


def _refuse_a_second(id_: str, olds: Properties, news: Properties) -> None:
    """Refuse to adopt beside a machine that is there: the other one would stay nobody's.

    What the state says already is asked for by nobody now. A refresh comes by with the recorded
    inputs, and one that failed here could neither be mended nor destroyed.
    """
    other = _to_adopt(news)
    if other and str(other) != id_ and other != _to_adopt(olds):
        raise CannotAdopt(
            f"instance {other} cannot become this stack's, which has instance {id_} already: run "
            "`pulumi destroy` first, or adopt it into another stack; without an adoption, take the "
            "setting `adopt` out (`pulumi config rm adopt`)"
        )


def _refuse_the_replaced(id_: str, news: Properties, replaces: list[str]) -> None:
    """Refuse to replace a machine by itself: it would be gone when it is to be adopted.

    Only for changed inputs, which a refresh never brings. What drifted is refused by the `check`
    of its successor: an error here would fail the refresh that finds it, and so every `destroy`.
    """
    if replaces and str(_to_adopt(news)) == id_:
        raise CannotAdopt(
            f"instance {id_} is to be replaced ({', '.join(replaces)}) and `adopt` names it, which "
            f"will be gone by then: {TAKE_OUT}; nothing was changed"
        )


def _wanted(props: Properties) -> Wanted:
    search = props["search"]
    return Wanted(
        label_prefix=str(props["label_prefix"]),
        owner=owner_in(props),
        query=str(search["query"]),
        need=need_of(search),
        image=str(props["image"]),
        disk_gb=float(props["disk_gb"]),
        port=int(props["port"]),
    )


def _tell_before_adopting(props: Properties) -> None:
    found = adoption.find(current().market(patient=False), _to_adopt(props), _wanted(props))
    if found.label.startswith(str(props["label_prefix"])):
        _tell_before_adopting_again(found, props)
        return
    wanted = Leash.read(props)
    end = f"; from then on it {auto_shutdown.in_words(wanted)}" if wanted else ""
    current().say(
        f"instance {found.id} (${found.dollars_per_hour:.2f}/h, {found.num_gpus}x "
        f"{found.gpu_name}) fits and becomes this stack's: nothing is rented; the server that "
        f"runs on it ends, its weights stay{end}"
    )


def _tell_before_adopting_again(found: Instance, props: Properties) -> None:
    """Say what becomes of one that carries this resource's label, as an interrupted `up` leaves it.

    Raises:
        CannotAdopt: if the rule replaces it, so that it would be gone when it is to be adopted.
    """
    if _ends_by_rule(found, props):
        raise CannotAdopt(
            f"instance {found.id} is to be replaced (whenContractEnds) and `adopt` names it, which "
            f"will be gone by then: {TAKE_OUT}; nothing was changed"
        )
    current().say(
        f"instance {found.id} (${found.dollars_per_hour:.2f}/h) fits and carries this resource's "
        "label already: `pulumi up` takes it over and rents nothing; if it is being replaced, that "
        f"ends it and then fails: then {TAKE_OUT}"
    )


def _adopt(
    api: VastApi, props: Properties, order: RentRequest, machine: _Machine, ports: tuple[str, ...]
) -> None:
    """Give the contract that is to be taken over this stack's label, if it fits and works."""
    wanted = _wanted(props)
    found = adoption.find(api, _to_adopt(props), wanted)
    clock, progress = current().clock, _progress()

    def check() -> Rented:
        boot = Boot(
            api,
            clock,
            progress,
            Deadlines(image=float(props["boot_minutes"]) * 60),
            attempt=Attempt(1, found.machine_id, found.location, found.dollars_per_hour),
            max_dollars_per_hour=market.hourly_cap(wanted.need),
            interruptible=wanted.need.contract == "interruptible",
            until=clock.monotonic() + wanted.need.rent_budget_minutes * 60,
            proof_needed=_proof_needed(props),
        )
        return boot.bring_up(found.id, machine, ports, adopted=True)

    key = str(props["public_key"])
    adoption.adopt(api, progress, found, order=order, public_key=key, check=check, run=machine.run)


def _beside(contracts: list[Instance], props: Properties) -> tuple[list[Instance], list[Instance]]:
    """The stack's contracts under another name, which is how create-first replaces one.

    And those that are another backend's.
    """
    label_prefix = str(props["label_prefix"])
    project, stack = label_prefix.split("/")[:2]
    mine, others = told_apart(contracts, f"{project}/{stack}/", owner_in(props))
    return [one for one in mine if not one.label.startswith(label_prefix)], others


def _both_bills(beside: list[Instance], dollars_per_hour: float) -> str:
    now = sum(one.dollars_per_hour for one in beside)
    named = ", ".join(str(one.id) for one in beside)
    return (
        f"the new machine comes up beside instance {named}: what serves goes on until the new one "
        f"has answered and its clients have left; till then all are billed, ${now:.2f}/h and about "
        f"${dollars_per_hour:.2f}/h, ${now + dollars_per_hour:.2f}/h together; if the new one "
        "fails, nothing else changes"
    )


def _search_allows(olds: Properties, news: Properties) -> bool:
    """Whether the running machine is one that the new search could have chosen."""
    if pulumi.contains_unknowns(news["search"]):
        return True
    query = market.parse(str(news["search"]["query"]))
    query.setdefault("num_gpus", {"eq": news["search"]["num_gpus"]})
    known = gpus.capability(str(olds.get("gpu_name") or ""))
    row = {"gpu_name": olds.get("gpu_name")}
    starts = known is None or market.starts_on(row, need_of(news["search"]))
    return starts and market.still_fits(olds, query)


def _changed_policies(olds: Properties, news: Properties) -> list[str]:
    """Rules that a running machine takes over; a state that lacks one had what it defaults to."""
    rules = {"outbid_policy": outbid.Policy.read, "leash": Leash.read, "term": Rule.read}
    return [name for name, read in rules.items() if read(olds) != read(news)]


def _contract_wanted(news: Properties) -> str:
    search = news["search"]
    return "on-demand" if pulumi.contains_unknowns(search) else contract_of(search)


def _is_rented_anew(market_state: MarketState, news: Properties) -> bool:
    """Whether another machine is rented for one that was stopped: only if it was outbid."""
    return market_state.is_outbid and _step(news) == "rerent"


def _step(news: Properties) -> outbid.Step:
    """What is done about a machine that was taken away, by the lease's count of such losses."""
    losses = news.get("losses") or {}
    return outbid.next_step(
        outbid.Policy.read(news), {} if pulumi.contains_unknowns(losses) else losses
    )


def _term(olds: Properties, news: Properties) -> Term:
    return Term.read(olds, _cap(news))


def _is_over(term: Term, rule: Rule) -> bool:
    """Whether the rule ends a contract now; one whose end is not known is left alone."""
    return bool(term.ends_at) and replaced_for(term, rule, current().clock.epoch())


def _cap(props: Properties) -> float | None:
    """The highest $/h, with the disk, if it is known."""
    search = props.get("search") or {}
    if pulumi.contains_unknowns(search):
        return None
    caps = [
        float(search[key]) / hours
        for key, hours in (("max_dollars_per_hour", 1), ("max_dollars_per_month", HOURS_A_MONTH))
        if key in search
    ]
    return min(caps, default=None)


def _price_asked(instance_id: int) -> Properties | None:
    """What the host asks for; a list that cannot be had is told, and stops nothing."""
    try:
        asked = current().market(patient=False).price_asked(instance_id)
    except StackError as error:
        current().say(f"whether a higher price is asked for is not known ({error})")
        return None
    return dataclasses.asdict(asked) if asked else None


def _accept(instance_id: int, asked: PriceAsked, news: Properties) -> Properties:
    """Take the price that the host asks for, and read the contract again."""
    api = current().market()
    _progress().say(
        f"accepting ${asked.dollars_per_hour:.2f}/h for the GPUs of instance {instance_id}"
    )
    api.accept_price(asked)
    live = api.instance(instance_id)
    return {"price_asked": None, **(_live(live, news) if live else {})}


def _won_back(instance_id: int, olds: Properties, news: Properties) -> Properties:
    """Wait for a machine's GPUs, with a higher bid if that is the rule.

    Raises:
        StillOutbid: if they do not come back, or may not be bid for.
    """
    api = current().market()
    progress = _progress()
    policy = outbid.Policy.read(news)
    floor = float(olds.get("min_bid") or 0)
    cap = market.hourly_cap(need_of(news["search"]))
    price = market.bid(floor, float(olds.get("storage_per_hour") or 0), cap)
    step = _step(news)
    if step == "stuck" or (step == "rebid" and price is None):
        words = outbid.in_words(policy, news.get("losses") or {}, price, floor)
        raise StillOutbid(f"instance {instance_id} was outbid and is kept: {words}")
    if step == "rebid" and price is not None:
        progress.say(f"bidding ${price:.3f}/h for the GPUs of instance {instance_id}")
        api.set_bid(instance_id, price)
    return _back(api, progress, instance_id, news)


def _started_again(instance_id: int, news: Properties) -> Properties:
    """Start a machine that the market or somebody stopped, though its bid wins.

    Raises:
        StillOutbid: if others have its GPUs and the rule is not to wait, or if it does not run.
    """
    api = current().market()
    progress = _progress()
    progress.say(
        f"instance {instance_id} was stopped, by the market or by hand, and its bid wins: "
        "starting it"
    )
    if not api.start(instance_id) and outbid.Policy.read(news).when != "wait":
        raise StillOutbid(
            f"instance {instance_id} is stopped though its bid wins: a tenant on demand has its "
            "GPUs, and it starts by itself when that one goes; it was not counted as outbid and "
            "nothing was destroyed; run `pulumi up` again later, take another machine by "
            "`pulumi up --replace` with its URN, or `pulumi destroy`"
        )
    return _back(api, progress, instance_id, news)


def _note_loss(api: VastApi, id_: str, props: Properties, progress: Progress) -> None:
    """Note that a machine which was outbid goes: the lease may not have counted it."""
    loss = (props.get("losses") or {}).get(id_)
    if not loss:
        return
    stack = "/".join(str(props["label_prefix"]).split("/")[:2])
    try:
        outbid.LossNote(api.shared(outbid.LOSSES), current().clock).add(f"{stack}/", id_, loss)
    except StackError as error:
        progress.say(f"that instance {id_} was outbid is not noted ({error})")


def _back(api: VastApi, progress: Progress, instance_id: int, news: Properties) -> Properties:
    """Wait until a stopped machine runs again, and say what it is then."""
    ports = ("22/tcp", f"{int(news['port'])}/tcp")
    seconds = float(news["boot_minutes"]) * 60
    back = outbid.wait_until_back(
        api, current().clock, progress, instance_id, ports=ports, seconds=seconds
    )
    return _live(back, news)


def _leashed(
    machine: _Machine, rented: Rented, props: Properties, api_url: str, progress: Progress
) -> float:
    """Tell a machine that was just rented or adopted how long it may live.

    One that was adopted may have been told something else when it was rented: it is told as well
    that it may live for ever, since its watch would go on by what its start script brought.

    Raises:
        LeftRunning: if it cannot be told; it is in no state yet, and is adopted by the next `up`.
    """
    instance = rented.instance
    try:
        return _put_on_leash(
            machine.door(instance), Leash.read(props), api_url, progress, always=rented.adopted
        )
    except StackError as error:
        raise LeftRunning(
            f"instance {instance.id} works and costs ${instance.dollars_per_hour:.2f}/h, and could "
            f"not be told how long it may live ({error}): run `pulumi up` to go on with it or "
            f"`pulumi destroy` to end it, or `vastai destroy instance {instance.id} -y`"
        ) from None


def _armed(
    api: VastApi, rented: Rented, props: Properties, ends_at: float, progress: Progress
) -> Properties:
    """Give the market the end of a machine that was just rented or adopted, if it is to have one.

    Raises:
        LeftRunning: if it does not take it; the machine is in no state yet, and is adopted by the
            next `up`.
    """
    starts_at, instance = market_end.wanted(Leash.read(props), ends_at), rented.instance
    own = MarketEnd(api, progress, instance.id)
    if not starts_at:
        if rented.adopted:
            # An earlier try, with other settings, may have given it one.
            _disarmed(own, progress)
        return dict(market_end.NONE)
    try:
        return own.arm(starts_at)
    except StackError as error:
        raise LeftRunning(
            f"instance {instance.id} works and costs ${instance.dollars_per_hour:.2f}/h, and "
            f"{error}; it ends itself all the same if its host lets it: run `pulumi up` to try "
            "again or, after that, to go on without, or `pulumi destroy`"
        ) from None


def _is_unarmed(olds: Properties, news: Properties) -> bool:
    """Whether the market has another end of a machine than it was to be given, or none."""
    ends_at = float(olds.get("ends_itself_at") or 0)
    wanted = market_end.wanted(Leash.read(news), ends_at)
    return abs(float(olds.get("market_ends_at") or 0) - wanted) >= 1


def _given_another_end(
    instance_id: int, olds: Properties, news: Properties, mended: Properties
) -> Properties:
    """Tell machine and market when it ends now, so that at no moment the market would come first.

    Raises:
        MarketEndRefused, KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if the market does not
            take, or does not say, what has to hold before the machine is told; nothing has changed
            then.
    """
    progress = _progress()
    before, wanted = Leash.read(olds), Leash.read(news)
    ends_at = float(olds.get("ends_itself_at") or 0)
    market = MarketEnd(current().market(), progress, instance_id)
    # It started by now at the latest.
    latest = wanted.ends_at(before.began(ends_at) or current().clock.epoch())
    known = {name: olds.get(name) or none for name, none in market_end.NONE.items()}
    is_later = not latest or latest > ends_at
    if not market_end.wanted(wanted, latest):
        known = _given_no_end(market, before, is_later and bool(ends_at), known, progress)
    elif not ends_at:
        # It lives for ever until it is told, so it is told first; but not if nobody answers here.
        known = market.look()
    elif is_later or not known["market_job"]:
        known = market.arm(market_end.wanted(wanted, max(latest, ends_at)))
    if before.of_the_host() != wanted.of_the_host():
        try:
            with _host({**olds, **news, **mended}) as host:
                told = _put_on_leash(host, wanted, current().market().url, progress, always=True)
        except StackError:
            if known["market_job"] and not olds.get("market_job"):
                # No state would know of it.
                _disarmed(market, progress)
            raise
        # A host's word may bring its end forward, and not put it off.
        ends_at = min(told, latest)
    starts_at = market_end.wanted(wanted, ends_at)
    if starts_at and abs(known["market_ends_at"] - starts_at) >= 1:
        try:
            known = market.arm(starts_at)
        except StackError as error:
            progress.say(f"{error}; until then the market ends it later, or not at all")
    return {"ends_itself_at": ends_at, **known}


def _given_no_end(
    market: MarketEnd, before: Leash, is_later: bool, known: Properties, progress: Progress
) -> Properties:
    """Take the market's end of a machine away, before the machine may live on.

    One that nobody knows of can be there after an `up` that failed to read it back.

    Raises:
        MarketEndRefused: if the market does not let it go.
    """
    if before.market_end or known["market_job"]:
        return market.disarm()
    found: Properties = {}
    if is_later:
        try:
            found = market.look()
        except StackError as error:
            progress.say(f"whether the market ends the machine is not known ({error})")
    return market.disarm() if found.get("market_job") else dict(market_end.NONE)


def _seen_at_the_market(api: VastApi, instance_id: int, props: Properties) -> Properties:
    """Read back the market's own end of a machine that is to have one."""
    if not market_end.wanted(Leash.read(props), float(props.get("ends_itself_at") or 0)):
        return {}
    try:
        found = MarketEnd(api, _progress(), instance_id).look()
    except StackError as error:
        current().say(
            f"whether the market still ends instance {instance_id} is not known ({error})"
        )
        return {}
    if _is_unarmed({**props, **found}, props):
        current().say(
            f"the market has no end for instance {instance_id}, or another one than it was given "
            "(marketEnd): the next `pulumi up` gives it again"
        )
    return found


def _disarm_what_is_gone(
    api: VastApi, instance_id: int, props: Properties, progress: Progress
) -> None:
    """Take the market's job away when its machine is gone; what is left of it does no harm."""
    if props.get("market_job"):
        _disarmed(MarketEnd(api, progress, instance_id), progress)


def _disarmed(end: MarketEnd, progress: Progress) -> None:
    """Take the market's end of a machine away; a failure is told and stops nothing."""
    try:
        end.disarm()
    except StackError as error:
        progress.say(str(error))


def _put_on_leash(
    host: Host, wanted: Leash, api_url: str, progress: Progress, *, always: bool = False
) -> float:
    """Tell a machine's own watch how long it may live; return when its time is over, 0 for never.

    Nothing restarts. A machine that never had a leash and gets none is left alone, unless `always`.
    A host that says that it starts in the future does not put its end off.
    """
    if not (wanted or always):
        return 0.0
    host.put(auto_shutdown.pushed(wanted, api_url))
    script = f'sh "$HOME/{FOLDER}/{auto_shutdown.SCRIPT_NAME}"'
    said = host.run(f"{script} start && {script} status").stdout
    status = dict(line.partition("=")[::2] for line in said.splitlines())
    progress.say(f"the machine {auto_shutdown.in_words(wanted)}")
    if wanted and "key" not in status:
        progress.say("but it has no key of its own (CONTAINER_API_KEY): it cannot end itself")
    first_start = moment(status.get("first_start", ""))
    now = current().clock.epoch()
    return wanted.ends_at(now if first_start is None else min(first_start, now))


def _host(props: Properties) -> Host:
    """The door to a machine of the state, held to its recorded host key."""
    address = HostAddress(str(props["public_ip"]), int(props["ssh_port"]))
    return current().host(
        address, str(props["private_key"]), known_host_key=str(props.get("host_key") or "") or None
    )


def _to_mend(olds: Properties) -> bool:
    """Whether a refresh found a foreign label, or another contract of the same resource."""
    label = olds.get("label")
    return bool(olds.get("strays")) or olds.get("carried_label", label) != label


def _mend(instance_id: int, olds: Properties) -> Properties:
    api = current().market()
    progress = _progress()
    label = str(olds["label"])
    if olds.get("carried_label", label) != label:
        progress.say(f"putting the label {label} back on instance {instance_id}")
        api.set_label(instance_id, label)
    if olds.get("strays"):
        Ending(api, current().clock, progress).sweep(
            str(olds["label_prefix"]), owner=owner_in(olds), keep=instance_id
        )
    return {"carried_label": label, "strays": []}


def _rename(instance_id: int, olds: Properties, news: Properties) -> Properties:
    """Carry a machine over to the label of a stack or project that was renamed."""
    label = f"{news['label_prefix']}{str(olds['label']).rpartition('/')[2]}"
    _progress().say(f"instance {instance_id} gets the label {label}")
    current().market().set_label(instance_id, label)
    return {"label": label, "carried_label": label}


def _others(contracts: list[Instance], props: Properties, keep: int) -> list[Instance]:
    """Other contracts of the same resource and owner."""
    mine, _ = told_apart(contracts, str(props["label_prefix"]), owner_in(props))
    return [one for one in mine if one.id != keep]


def _order(props: Properties, api_url: str) -> RentRequest:
    # Not how long it may live: that changes in place, and an order of before is still this one.
    script = onstart(str(props["public_key"]))
    facts = [props[key] for key in ORDERED] + [props["search"]["query"], script]
    if contract_of(props["search"]) != "on-demand":
        facts.append(contract_of(props["search"]))
    owner = owner_of(str(props["public_key"]))
    label = f"{props['label_prefix']}{nonce(owner, json.dumps(facts))}"
    return RentRequest(
        image=str(props["image"]),
        disk_gb=float(props["disk_gb"]),
        label=label,
        owner=owner,
        onstart=onstart(
            str(props["public_key"]),
            auto_shutdown.carried(Leash.read(props), api_url),
            first_contact.proof_key(str(props["private_key"]), label),
        ),
        ports=(int(props["port"]),),
    )


def _first_end(api: VastApi, props: Properties, progress: Progress) -> FirstEnd | None:
    """The market's end of a machine while it boots: it may take all of its time to start."""
    wanted = Leash.read(props)
    if not wanted.market_end:
        return None
    clock, seconds = current().clock, float(props["boot_minutes"]) * 60
    return FirstEnd(
        api, progress, lambda: market_end.wanted(wanted, wanted.ends_at(clock.epoch() + seconds))
    )


def _rental(api: VastApi, props: Properties, progress: Progress, guard: FirstEnd | None) -> Rental:
    clock = current().clock
    need = need_of(props["search"])
    limits = Limits(
        deadlines=Deadlines(image=float(props["boot_minutes"]) * 60),
        max_dollars_per_hour=market.hourly_cap(need),
        interruptible=need.contract == "interruptible",
        budget_seconds=need.rent_budget_minutes * 60,
        budget_dollars=need.rent_budget_dollars,
        proof_needed=_proof_needed(props),
    )
    return Rental(api, clock, progress, limits, _note(api, props, progress), guard=guard)


def _proof_needed(props: Properties) -> str:
    return first_contact.proof_needed(
        str(props.get("first_contact") or ""), props.get("token_for") or []
    )


def _note(api: VastApi, props: Properties, progress: Progress) -> RentNote:
    name = hashlib.sha256(str(props["label_prefix"]).encode()).hexdigest()[:16]
    return RentNote(api.shared(f"{name}{SUFFIX}"), current().clock, progress)


def _expected(instance: Instance, props: Properties, *, adopted: bool) -> Expected:
    need = need_of(props["search"])
    # What is rented by hand has no label of the stack's before its own server has ended.
    is_labelled = instance.label.startswith(str(props["label_prefix"]))
    return Expected(
        gpu_name=instance.gpu_name,
        num_gpus=need.num_gpus,
        gpu_ram_mib=instance.gpu_ram_mib,
        # One that was rented by hand has weights on its disk already.
        disk_gb=float(props["disk_gb"]) - (need.weights_gb if _to_adopt(props) else 0),
        min_driver=str(props["min_driver"]),
        weights_gb=need.weights_gb,
        repository=need.repository,
        revision=need.revision,
        files=need.files,
        download_seconds=need.ready_minutes * 60 * DOWNLOAD_SHARE,
        may_serve=adopted and is_labelled,
    )


def _note_estimate(
    api: VastApi,
    instance: Instance,
    need: market.Need,
    progress: Progress,
    *,
    had_its_weights: bool,
) -> None:
    """Note what the machine is expected to cost: a destroyed stack's state no longer says it.

    A machine that works must not stay out of the state over it.
    """
    traffic = 0.0 if had_its_weights else instance.inet_down_dollars_per_gb * need.download_gb
    expected = Estimate(instance.dollars_per_hour, traffic, instance.started_at or None)
    try:
        Estimates(api.shared(ESTIMATES)).note(instance.id, expected)
    except StackError as error:
        progress.say(f"`make cost` will not know what was expected of it ({error})")


def _recorded(props: Properties, losses: outbid.Losses, now: float) -> drift.Recorded:
    """Read the state, which an older release may have written."""
    return drift.Recorded(
        status=str(props.get("status")),
        public_ip=str(props.get("public_ip")),
        ssh_port=int(props.get("ssh_port") or 0),
        host_port=int(props.get("host_port") or 0),
        served=f"{int(props['port'])}/tcp",
        dollars_per_hour=float(props.get("hourly_cost") or 0),
        label=str(props.get("label") or ""),
        max_dollars_per_hour=_cap(props),
        policy=outbid.Policy.read(props),
        losses=losses,
        overdue_since=auto_shutdown.overdue_since(float(props.get("ends_itself_at") or 0), now),
    )


def _outputs(props: Properties, order: RentRequest, rented: Rented) -> Properties:
    facts, rate = rented.inspection.facts, rented.inspection.rate
    return {
        **props,
        **_live(rented.instance, props),
        "label": order.label,
        "strays": [],
        "host_key": rented.host_key,
        "host_key_from": first_contact.BY_LOG if rented.is_named else first_contact.BY_TRUST,
        "host_facts": {
            **dataclasses.asdict(facts),
            "gpu_names": list(facts.gpu_names),
            "download_mbps": rate.mbps,
            "download_note": rate.note,
        },
        "boot_seconds": {stage: round(took, 1) for stage, took in rented.boot_seconds.items()},
        "adopted": rented.adopted,
    }


def _live(instance: Instance, props: Properties) -> Properties:
    """What a refresh may find changed."""
    return {
        "instance_id": instance.id,
        "machine_id": instance.machine_id,
        "status": instance.actual_status,
        "intended_status": instance.intended_status,
        "current_state": instance.current_state,
        "next_state": instance.next_state,
        "carried_label": instance.label,
        "interruptible": instance.interruptible,
        "bid": instance.bid,
        "min_bid": instance.min_bid,
        "storage_per_hour": round(instance.storage_dollars_per_hour, 4),
        "public_ip": instance.public_ip,
        "ssh_port": instance.ports.get("22/tcp", props.get("ssh_port")),
        "host_port": instance.ports.get(f"{int(props['port'])}/tcp", props.get("host_port")),
        "gpu": f"{instance.num_gpus}x {instance.gpu_name}",
        "gpu_name": instance.gpu_name,
        "num_gpus": instance.num_gpus,
        "hourly_cost": round(instance.dollars_per_hour, 4),
        "location": instance.location,
        "datacenter": instance.datacenter,
        "contract_ends_at": instance.ends_at,
    }


def _progress() -> Progress:
    return current().progress("instance")
