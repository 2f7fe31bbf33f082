"""The checks of the account: key, permissions, credit, and what is billed. Pure."""

from __future__ import annotations

from components.vast.lifecycle.auto_shutdown import moment, overdue_since
from toolchain.day_two.attempt import Failed
from toolchain.day_two.doctor.checks import Check
from toolchain.day_two.doctor.facts import Facts
from toolchain.day_two.doctor.findings import Finding, left_out, ok, unknown, wrong
from toolchain.day_two.fleet import Fleet
from toolchain.orphans import find_orphans

SET_KEY = "`vastai set api-key <key> && chmod 600 ~/.config/vastai/vast_api_key`"
"""The official client leaves its file readable by everybody."""

EXPORT_KEY = "`export VAST_API_KEY=<key>`"

PERMISSIONS = "toolchain/day_two/permissions.json"
"""Of a key for this project, as `vastai create api-key` reads them."""

NEEDED = {
    "misc": "no machine can be searched for",
    "instance_read": "no machine can be looked at",
    "instance_write": "no machine can be rented or ended",
    "user_read": "credit and account cannot be read",
    "billing_read": "`make cost` and `make status` know no dollars",
}
"""Permissions, and what does not work without them (vast-api reference, 9)."""

ENOUGH_HOURS = 1.0
"""Hours at the stack's highest price that the credit should last."""

BILLING = "https://cloud.vast.ai/billing/"

REFUSED_BY_VARIABLE = {"MarketUrlRefused": "VAST_URL", "PaceRefused": "VAST_PACE"}
"""Errors of the client that a variable of the environment causes."""


def market(facts: Facts) -> Finding:
    """The way to the market."""
    name = "market"
    found = facts.market
    if found is None:
        return left_out(name, "not asked")
    if isinstance(found, str):
        return ok(name, f"{found} answers")
    if found.kind in REFUSED_BY_VARIABLE:
        return wrong(name, found.text, f"`unset {REFUSED_BY_VARIABLE[found.kind]}`")
    if found.kind == "NoSharedFolder":
        return wrong(name, found.text, _usable_folder(facts))
    return wrong(name, found.text, "look at the network, at proxies and at firewalls")


def key(facts: Facts) -> Finding:
    """The API key: found, and for nobody else's eyes."""
    name = "key"
    found = facts.key
    if found is None:
        return left_out(name, "not asked")
    if isinstance(found, Failed):
        return wrong(name, found.text, _another_key(facts))
    if isinstance(facts.account, Failed) and facts.account.kind == "KeyRefused":
        return wrong(name, facts.account.text, _another_key(facts))
    if found.is_readable_by_others:
        text = f"others on this computer can read {found.source}, which opens the account"
        return wrong(name, text, f"`chmod 600 {found.source}`")
    return ok(name, f"found in {found.source}")


def account(facts: Facts) -> Finding:
    """Of which account the key is, and whether that is the one that rented."""
    name = "account"
    found = facts.account
    if found is None or (isinstance(found, Failed) and found.kind in _OTHERS_SAY):
        return left_out(name, "see above")
    if isinstance(found, Failed):
        return unknown(name, found.text)
    rented_on = {
        one.state.account_id
        for one in (facts.fleet.machines if isinstance(facts.fleet, Fleet) else ())
        if one.state.account_id
    }
    if found.account_id and rented_on - {found.account_id}:
        other = ", ".join(map(str, sorted(rented_on - {found.account_id})))
        text = (
            f"the key is of account {found.account_id}, and the machines of the stack "
            f"{facts.stack} are on account {other}, where they are billed"
        )
        return wrong(name, text, f"{_another_key(facts)} with a key of account {other}")
    return ok(name, f"account {found.account_id}")


def permissions(facts: Facts) -> Finding:
    """What the key may do, by name."""
    name = "permissions"
    missing = set(_refused(facts))
    listed = facts.account.permissions if not isinstance(facts.account, Failed | None) else None
    if listed is not None:
        missing |= NEEDED.keys() - listed
    if missing:
        names = [one for one in NEEDED if one in missing]
        lacks = "; ".join(f"without {one} {NEEDED[one]}" for one in names)
        return wrong(
            name,
            f"the key lacks {', '.join(names)}: {lacks}",
            "`vastai create api-key --name vast-vllm --permission_file "
            f"{PERMISSIONS} --api-key <key of the account>`, then {_another_key(facts)}",
        )
    if facts.account is None or isinstance(facts.account, Failed):
        return left_out(name, "see above")
    if listed is None:
        text = "it reads all that is needed; Vast does not list what this key may change"
        return ok(name, text)
    return ok(name, ", ".join(sorted(listed)))


def credit(facts: Facts) -> Finding:
    """Whether the credit lasts for an hour at the stack's highest price."""
    name = "credit"
    if facts.account is None or isinstance(facts.account, Failed):
        return left_out(name, "see above")
    dollars, price = facts.account.credit, highest_price(facts)
    if dollars <= 0 or dollars < price * ENOUGH_HOURS:
        lasts = f", less than {ENOUGH_HOURS:g} h at ${price:.2f}/h" if price else ""
        return wrong(name, f"${dollars:.2f}{lasts}", _add_credit(facts))
    lasts = f", {dollars / price:.0f} h at up to ${price:.2f}/h" if price else ""
    return ok(name, f"${dollars:.2f}{lasts}")


def orphans(facts: Facts) -> Finding:
    """What is billed under the project's labels and stands in no state."""
    name = "orphans"
    if isinstance(facts.contracts, Failed | None) or isinstance(facts.known, Failed | None):
        return left_out(name, "see above")
    found = find_orphans("vast-vllm", list(facts.contracts), facts.known)
    if not found:
        there = len(facts.contracts)
        one_or_all = "the one contract" if there == 1 else f"each of {there} contracts"
        return ok(name, f"{one_or_all} stands in a state")
    ones = ", ".join(f"{one.contract.id} (${one.contract.dollars_per_hour:.2f}/h)" for one in found)
    are = "contract is" if len(found) == 1 else "contracts are"
    if not all(one.stack_known for one in found):
        return wrong(
            name,
            f"{len(found)} {are} billed and in no state here, perhaps in another backend: {ones}",
            "`make orphans ON=account` lists whose they are, and what ends them",
        )
    return wrong(
        name,
        f"{len(found)} {are} billed and in no state: {ones}",
        "`make orphans DELETE=1 ON=account` ends what is in no state",
    )


def overdue(facts: Facts) -> Finding:
    """Machines that should have ended themselves and are there."""
    name = "overdue"
    if isinstance(facts.contracts, Failed | None):
        return left_out(name, "see above")
    alive = {one.id for one in facts.contracts}
    late = [
        one
        for one in facts.recorded
        if one.instance_id in alive and overdue_since(one.ends_at, facts.now)
    ]
    if not late:
        return ok(name, "no machine is past its recorded end")
    ones = ", ".join(f"{one.instance_id} (since {moment(one.ends_at)})" for one in late)
    return wrong(
        name,
        f"machines are billed past their own end: {ones}",
        "`make overdue DELETE=1 ON=account` ends them",
    )


def highest_price(facts: Facts) -> float:
    """The most $/h that the stack can cost: what it pays, or the cap in its settings; 0 unknown."""
    paid = sum(
        one.state.observed.hourly_cost
        for one in (facts.fleet.machines if isinstance(facts.fleet, Fleet) else ())
    )
    if not isinstance(facts.settings, dict):
        return paid
    try:
        cap = float(facts.settings.get("maxDollarsPerHour") or 0)
        replicas = float(facts.settings.get("replicas") or 1)
    except (TypeError, ValueError):
        return paid
    return max(paid, cap * replicas)


_OTHERS_SAY = frozenset(
    {"KeyRefused", "PermissionMissing", "NoCredential", "NoSharedFolder", *REFUSED_BY_VARIABLE}
)
"""Errors that another check reports."""


def _refused(facts: Facts) -> list[str]:
    """Permissions that a call was refused for."""
    asked = {
        "user_read": facts.account,
        "instance_read": facts.contracts,
        "billing_read": facts.ledger,
    }
    return [
        name
        for name, answer in asked.items()
        if isinstance(answer, Failed) and answer.kind == "PermissionMissing"
    ]


def _another_key(facts: Facts) -> str:
    """How another key is used: the variable comes before the file."""
    is_set = not isinstance(facts.environment, Failed) and facts.environment.get("VAST_API_KEY")
    return EXPORT_KEY if is_set else SET_KEY


def _usable_folder(facts: Facts) -> str:
    if not isinstance(facts.environment, Failed) and facts.environment.get("XDG_CACHE_HOME"):
        return "`unset XDG_CACHE_HOME`"
    return "`chmod -R u+rwX ~/.cache/vast-vllm`, or make room on its disk"


def _add_credit(facts: Facts) -> str:
    if facts.on_account or isinstance(facts.environment, Failed):
        return f"add credit on {BILLING}"
    url = facts.environment["VAST_URL"]
    return f"`curl -sS --json '{{\"set\": 1000}}' {url}/emulator/credit`"


ACCOUNT_CHECKS: tuple[Check, ...] = (
    market,
    key,
    account,
    permissions,
    credit,
    orphans,
    overdue,
)
"""In the order of the table."""
