"""The marketplace at work: it rents, carries every contract through time, and bills.

All decisions about a contract are in `contracts`; this module owns the order of things: what is
due is done first, then what a call asks for, and both are kept in one transaction.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from emulator import contracts, images, scheduled
from emulator.account import open_account
from emulator.clock import EmulatedClock
from emulator.contract_faults import ContractFaults
from emulator.contract_types import STOPPED, Charge, Contract, Effect, Phase, Step
from emulator.effects import Effects
from emulator.errors import ApiError, no_such_ask, no_such_instance
from emulator.faults import Armed, FaultBook
from emulator.host import Host
from emulator.ledger import by_day
from emulator.market import Machine, Offer, draw_market, free_gpus, is_seen, offers_of
from emulator.metering import meter
from emulator.rental import Place, draw_up, has_image, new_address, refuse_unfit
from emulator.store import FIRST_CONTRACT, Store
from emulator.terms import Terms
from emulator.volumes import Volumes

MOST_BID_PER_GPU = 32.0
IDLE = 60.0
"""Emulated seconds after which the clock is kept even if nothing is rented."""


class Marketplace:
    """One account's view of one market, with everything that it rented."""

    def __init__(
        self,
        *,
        store: Store,
        clock: EmulatedClock,
        host: Host,
        chance: random.Random,
        account_key: str,
        wall_clock: Callable[[], float],
        calm: bool = False,
        flickers: bool = False,
    ) -> None:
        """Open what `store` holds; `chance` draws addresses and ports, never the market.

        `wall_clock` is the clients' own time, in real epoch seconds. On a `calm` market other
        tenants neither come nor go. One that `flickers` lists other offers from second to second.
        """
        self._calm = calm
        self._flickers = flickers
        self.store = store
        self.clock = clock
        self.host = host
        self.account_key = account_key
        self.wall_clock = wall_clock
        self.faults = FaultBook(
            [Armed(**one) for one in store.fact("faults", [])],
            lambda armed: store.set_fact("faults", [one.as_dict() for one in armed]),
        )
        self._chance = chance
        self._lock = asyncio.Lock()
        self._kept = clock.now()
        self.seed = int(store.fact("seed", 0))
        self.initial_credit = float(store.fact("initial_credit", 0.0))
        self._birth = float(store.fact("birth", clock.now()))
        store.set_fact("birth", self._birth)
        self._machines = {one.id: one for one in draw_market(self.seed)}
        self._contracts = {one.id: one for one in store.contracts()}
        self.volumes = Volumes(store, host, self.machine)
        self._contract_faults = ContractFaults(self.faults, store)
        self._effects = Effects(
            host=host,
            volumes=self.volumes,
            account_key=account_key,
            machine=self.machine,
            secrets=self.secrets,
            taken_ports=self._taken_ports,
        )

    # What there is

    def machine(self, machine_id: int) -> Machine:
        """Return a machine of the market."""
        return self._machines[machine_id]

    def machines(self) -> list[Machine]:
        """Return all machines of the market."""
        return list(self._machines.values())

    def offers(self) -> list[Offer]:
        """Return what the market lists now."""
        now = self.clock.now()
        vanished = set(self.store.fact("vanished", []))
        return [
            offer
            for machine in self._machines.values()
            for offer in offers_of(
                machine,
                now=now,
                birth=self._birth,
                held=self._held(machine.id),
                calm=self._calm,
            )
            if offer.id not in vanished and (not self._flickers or is_seen(offer, now))
        ]

    def contracts(self) -> list[Contract]:
        """Return the contracts that the API lists: alive, and rented a moment ago at least."""
        return [one for one in self.alive() if one.phase is not Phase.NEW]

    def alive(self) -> list[Contract]:
        """Return every contract that is not gone, also those too new to be listed."""
        return [one for one in self._contracts.values() if one.phase is not Phase.GONE]

    def ever(self) -> list[Contract]:
        """Return every contract since the last reset, for the ledger's labels."""
        return list(self._contracts.values())

    def contract(self, contract_id: int) -> Contract:
        """Return a live contract.

        Raises:
            ApiError: 404 `no_such_instance`.
        """
        found = self._contracts.get(contract_id)
        if found is None or found.phase is Phase.GONE:
            raise no_such_instance(contract_id)
        return found

    def spent(self) -> float:
        """Return $ spent since the last reset."""
        return self.store.spent()

    def credit(self) -> float:
        """Return the $ that are left."""
        return float(self.store.fact("granted", 0.0)) - self.spent()

    def per_hour(self) -> float:
        """Return $/h that everything costs now, without traffic."""
        return sum(one.per_hour_now() for one in self.alive()) + self.volumes.per_hour()

    def secrets(self) -> dict[str, str]:
        """Return the account's environment variables, which go into every container."""
        return {body["key"]: body["value"] for _, body in self.store.documents("secret")}

    # What passes

    @asynccontextmanager
    async def at_once(self) -> AsyncIterator[float]:
        """Do one thing at one moment: what was due is done, nothing comes between."""
        async with self._lock:
            await self._carry_forward()
            yield self.clock.now()

    async def tick(self) -> None:
        """Carry everything to the present moment."""
        async with self.at_once():
            pass

    async def resume(self, *, rebooted: bool) -> None:
        """Bring the containers back that an earlier process left.

        After `rebooted` (an orderly `down`, or this machine's own reboot) they run their start
        script again; otherwise their processes are still there and are adopted.
        """
        async with self._lock:
            for contract in self.alive():
                if not contract.container_up or contract.offline_until is not None:
                    continue
                if rebooted:
                    await self._keep(Step(contract, (Effect.START,)))
                else:
                    await self._effects.adopt(contract)

    async def shut_down(self) -> None:
        """End all processes; the contracts stay, and stay billed from the next start on."""
        async with self._lock:
            await self._carry_forward()
            await self.host.shut_down()
            self.store.set_fact("clock", self.clock.now())
            self.store.set_fact("orderly_end", value=True)

    async def reset(self, *, seed: int, credit: float) -> None:
        """Destroy everything and begin again with an empty account."""
        async with self._lock:
            await self.host.shut_down()
            for contract in self._contracts.values():
                self.host.remove(contract.id)
            for body in self.volumes.all():
                self.host.remove_volume(body["id"])
            goes_on = self.store.next_id("contract", FIRST_CONTRACT)
            self.store.clear()
            self._contracts = {}
            self.seed = seed
            self.initial_credit = credit
            self._birth = self.clock.now()
            self._machines = {one.id: one for one in draw_market(seed)}
            self.faults.clear()
            self.store.set_fact("birth", self._birth)
            self.store.set_fact("clock", self._birth)
            open_account(self.store, seed=seed, credit=credit, first_contract=goes_on)

    # What a caller does

    async def rent(self, offer_id: int, terms: Terms) -> Contract:
        """Take an offer: the contract that this returns is billed from now on.

        One that cannot start is `parked`: stopped, with its disk billed (marketplace-facts, 3).

        Raises:
            ApiError: the offer is gone, the terms do not fit it, or the credit is used up; it
                cannot start and is to be cancelled then.
        """
        async with self.at_once() as now:
            offered = next((offer for offer in self.offers() if offer.id == offer_id), None)
            machine = offered.machine.id if offered else None
            broke = self.credit() <= 0
            self._contract_faults.refuse_rent(offer_id, machine=machine, broke=broke)
            offer = self._offer(offer_id)
            refuse_unfit(offer, terms)
            parked = self._contract_faults.is_parked(offer, terms)
            drawn_up = draw_up(
                offer,
                terms,
                self._place(),
                now=now,
                cached=has_image(offer.machine, terms.image, self.ever()),
                ssh_keys=[body["public_key"] for _, body in self.store.documents("ssh_key")],
                faults=self.faults.strike_new(offer.machine.id),
                parked=parked,
            )
            opened = contracts.open_contract(drawn_up, now)
            contract = self.volumes.attach(opened.contract, terms)
            await self._keep(replace(opened, contract=contract))
            return contract

    async def set_state(self, contract_id: int, state: str) -> bool:
        """Start or stop; False if the start has to wait for free GPUs (it stays queued)."""
        async with self.at_once() as now:
            contract = self.contract(contract_id)
            if state == STOPPED:
                await self._keep(Step(contracts.stop(contract, now)))
                return True
            if self.credit() <= 0:
                raise ApiError(400, "missing_billing", "Your account lacks credit.")
            free = self._gpus_free_for(contract, now)
            started = contracts.start(contract, now, gpus_free=free)
            await self._keep(Step(started))
            return not started.start_queued

    async def change(self, contract_id: int, **fields: Any) -> Contract:
        """Replace fields of a contract that its life does not depend on: label, image, env, …."""
        async with self.at_once():
            changed = replace(self.contract(contract_id), **fields)
            await self._keep(Step(changed))
            return changed

    async def authorize(self, contract_id: int, ssh_keys: list[str]) -> None:
        """Let these public keys, and no other of the account's, into the instance."""
        contract = await self.change(contract_id, ssh_keys=ssh_keys)
        self.host.authorize(contract)

    async def reboot(self, contract_id: int) -> None:
        """Stop and start the container; GPUs and disk stay."""
        async with self.at_once() as now:
            await self._keep(contracts.reboot(self.contract(contract_id), now))

    async def recycle(self, contract_id: int) -> None:
        """Make the container again from its image; its disk content is lost."""
        async with self.at_once() as now:
            await self._keep(contracts.recycle(self.contract(contract_id), now))

    async def bid(self, contract_id: int, price: float | None) -> float:
        """Change an interruptible contract's bid; None bids what wins. Returns the $/h."""
        async with self.at_once():
            contract = self.contract(contract_id)
            if not contract.is_bid:
                raise ApiError(400, "invalid_args", f"Instance {contract_id} is not interruptible.")
            wanted = contract.min_bid if price is None else price
            highest = MOST_BID_PER_GPU * contract.num_gpus
            if not 0 < wanted <= highest:
                raise ApiError(400, "invalid_args", f"price {wanted} is not up to {highest} $/h")
            await self._keep(Step(replace(contract, gpu_per_hour=wanted)))
            return wanted

    async def destroy(self, contract_id: int) -> None:
        """End the contract; it stays listed for a moment."""
        async with self.at_once() as now:
            await self._keep(Step(contracts.destroy(self.contract(contract_id), now)))

    # Behind the scenes

    def _held(self, machine_id: int) -> int:
        held = (one for one in self._contracts.values() if one.machine_id == machine_id)
        return sum(one.num_gpus for one in held if one.holds_gpus)

    def _offer(self, offer_id: int) -> Offer:
        for offer in self.offers():
            if offer.id == offer_id:
                return offer
        raise no_such_ask(offer_id)

    def _place(self) -> Place:
        return Place(
            contract_id=self.store.next_id("contract", FIRST_CONTRACT),
            address=new_address(self._chance, {one.address for one in self.alive()}),
            ssh_port=self.host.free_port(self._taken_ports()),
        )

    def _taken_ports(self) -> set[int]:
        return {port for one in self.alive() for port in (one.ssh_port, *one.ports.values())}

    def _gpus_free_for(self, contract: Contract, now: float) -> bool:
        if contract.holds_gpus:
            return True
        held = self._held(contract.machine_id)
        machine = self.machine(contract.machine_id)
        free = free_gpus(machine, now=now, birth=self._birth, held=held, calm=self._calm)
        wins = not contract.is_bid or contract.gpu_per_hour >= contract.min_bid
        return wins and free >= contract.num_gpus

    async def _carry_forward(self) -> None:
        now = self.clock.now()
        charges: list[Charge] = []
        moved: list[Contract] = []
        ends = scheduled.ends_until(self.store.documents(scheduled.KIND), now)
        for contract in self.alive():
            step = scheduled.carry(contract, now, ends.get(contract.id))
            metered, passed = meter(step.contract, self.host, now)
            charges += [*step.charges, *passed]
            settled = await self._settle(replace(step, contract=metered), now)
            self._contracts[settled.id] = settled
            moved.append(settled)
        if moved or self.volumes.all() or now - self._kept >= IDLE:
            with self.store.transaction():
                charges += self.volumes.charge(now)
                for contract in moved:
                    self.store.save_contract(contract)
                self.store.add_entries(by_day(charges))
                self.store.set_fact("clock", now)
            self._kept = now
        self._end_without_credit(now)

    async def _settle(self, step: Step, now: float) -> Contract:
        contract = await self._effects.carry_out(step.contract, step.effects)
        waits = contract.start_queued and contract.phase is Phase.STOPPED
        if waits and self._gpus_free_for(contract, now):
            return contracts.start(contract, now, gpus_free=True)
        if self._ended_by_itself(contract):
            return contracts.exited(contract, now)
        struck = self._contract_faults.strike(contract, now)
        return await self._effects.carry_out(struck.contract, struck.effects)

    def _ended_by_itself(self, contract: Contract) -> bool:
        """With runtype args the container lives as long as its main process, if it has one."""
        main = contract.onstart or contract.args or images.serves_vllm(contract.image)
        up = contract.container_up and contract.offline_until is None
        return bool(contract.runtype == "args" and main and up) and not self.host.main_alive(
            contract.id
        )

    def _end_without_credit(self, now: float) -> None:
        since = self.store.fact("broke_since")
        if self.credit() > 0:
            if since is not None:
                self.store.set_fact("broke_since", None)
            return
        if since is None:
            self.store.set_fact("broke_since", now)
            since = now
        for contract in self.alive():
            if now - since >= contracts.KEPT_AFTER_END:
                self._put(contracts.destroy(contract, now))
            elif contract.holds_gpus:
                self._put(contracts.stop(contract, now))

    async def _keep(self, step: Step) -> None:
        self._put(await self._effects.carry_out(step.contract, step.effects))

    def _put(self, contract: Contract) -> None:
        if self._contracts.get(contract.id) != contract:
            self._contracts[contract.id] = contract
            self.store.save_contract(contract)
