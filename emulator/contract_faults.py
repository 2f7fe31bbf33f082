"""Faults that strike contracts: when they are rented, and while they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from emulator import contracts
from emulator.contract_types import Contract, Effect, Phase, Step
from emulator.errors import insufficient_credit, no_such_ask
from emulator.faults import FaultBook, Occasion
from emulator.market import DAY, Offer
from emulator.rental import can_start
from emulator.store import Store
from emulator.terms import Terms


class ContractFaults:
    """What armed faults do to an account's contracts; `store` takes what a host asks for."""

    def __init__(self, faults: FaultBook, store: Store) -> None:
        self._faults = faults
        self._store = store

    def refuse_rent(self, offer_id: int, *, machine: int | None, broke: bool) -> None:
        """Refuse to rent an offer that is taken meanwhile, or an account without credit.

        Raises:
            ApiError: `no_such_ask` or `insufficient_credit`.
        """
        occasion = Occasion(machine=machine, call="create")
        taken = self._faults.strike("offer_taken", occasion)
        if taken is not None:
            self._store.set_fact("vanished", [*self._store.fact("vanished", []), offer_id])
            raise no_such_ask(offer_id, int(taken.get("http", 404)))
        if self._faults.strike("no_credit", occasion) is not None or broke:
            raise insufficient_credit()

    def is_parked(self, offer: Offer, terms: Terms) -> bool:
        """Say whether the contract is made and cannot start.

        Raises:
            ApiError: 410 `no_such_ask` if it is to be cancelled then.
        """
        occasion = Occasion(machine=offer.machine.id, call="create")
        hit = self._faults.strike("start_refused", occasion)
        if hit is None and can_start(offer, terms):
            return False
        if terms.cancel_unavail and (hit or {}).get("cancel_ignored") != "true":
            raise no_such_ask(offer.id, 410)
        return True

    def strike(self, contract: Contract, now: float) -> Step:
        """Change a running contract by the first armed fault that it is an occasion of."""
        if contract.phase is not Phase.RUNNING or not self._faults.armed():
            return Step(contract)
        occasion = Occasion(machine=contract.machine_id, contract=contract.id)
        if contract.is_bid and (hit := self._faults.strike("outbid", occasion)) is not None:
            floor = float(hit.get("floor", contract.gpu_per_hour * 1.25))
            older = hit.get("older") == "true"
            return contracts.outbid(contract, now, floor=floor, seconds=_seconds(hit), older=older)
        if (hit := self._faults.strike("container_exits", occasion)) is not None:
            return contracts.container_exits(contract, now, seconds=_seconds(hit))
        if (hit := self._faults.strike("host_offline", occasion)) is not None:
            return contracts.host_lost(contract, now, seconds=float(hit.get("seconds", 3 * DAY)))
        if (hit := self._faults.strike("hostile", occasion)) is not None:
            return Step(
                replace(contract, faults={**contract.faults, "hostile": hit}), (Effect.TURN,)
            )
        return self._strike_terms(contract, occasion, now)

    def _strike_terms(self, contract: Contract, occasion: Occasion, now: float) -> Step:
        """What a host may change about its contract."""
        if (hit := self._faults.strike("contract_ends", occasion)) is not None:
            return Step(replace(contract, end_date=now + float(hit.get("seconds", 0))))
        if (hit := self._faults.strike("price_raised", occasion)) is not None:
            self._ask_for_more(contract, float(hit.get("factor", 1.25)), now)
        return Step(contract)

    def _ask_for_more(self, contract: Contract, factor: float, now: float) -> None:
        self._store.save_document(
            "price_increase",
            self._store.next_id("price_increase", 501),
            {
                "contract_id": contract.id,
                "old": contract.gpu_per_hour,
                "new": contract.gpu_per_hour * factor,
                "created_at": now,
                "ask_end_date": contract.end_date + 30 * DAY,
            },
        )


def _seconds(params: Mapping[str, str]) -> float | None:
    """Return a fault's emulated seconds; None for those without an end."""
    return float(params["seconds"]) if "seconds" in params else None
