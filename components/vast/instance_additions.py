"""What older releases did not write of a rented machine, and what its absence means. Pure."""

from __future__ import annotations

from components.core.state_upgrade import Additions, within
from components.vast.lifecycle.auto_shutdown import AutoShutdown
from components.vast.lifecycle.contract_expiry import ExpiryPolicy
from components.vast.lifecycle.preemption import PreemptionPolicy
from components.vast.market.requirements import ADDITIONS

INPUT_ADDITIONS: Additions = {
    **within("search", ADDITIONS),
    "losses": {},
    "outbid_policy": PreemptionPolicy().to_bag(),
    "leash": AutoShutdown().to_bag(),
    "term": ExpiryPolicy().to_bag(),
    "adopt": 0,
    "term.create_first": False,
    "first_contact": "",
    "token_for": [],
    "leash.market_end": False,
    "fleet": {},
}
"""Inputs that the first release did not have, and its behaviour without them."""

OUTPUT_ADDITIONS: Additions = {
    "strays": [],
    "carried_label": None,
    "intended_status": "",
    "interruptible": False,
    "min_bid": 0.0,
    "storage_per_hour": 0.0,
    "contract_ends_at": 0.0,
    "ends_itself_at": 0.0,
    "price_asked": None,
    "account_id": 0,
    "bid": 0.0,
    "current_state": "",
    "next_state": "",
    "host_key_from": None,
    "market_job": 0,
    "market_ends_at": 0.0,
}
"""Outputs that the first release did not have, and what their absence means."""

UNMAPPED: Additions = {"ssh_port": 0, "host_port": 0}
"""Ports that older releases left out if they were not mapped when a price was accepted."""
