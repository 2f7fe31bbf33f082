"""A claim on a machine ends with the process that made it, however that ends."""

from __future__ import annotations

import subprocess
import sys

from components.vast.api.locked_file import LockedJsonFile
from components.vast.fleet import Fleet
from components.vast.rental.claims import Claims
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import offer
from tests.helpers.places import ROOT

CLAIM = """
import sys, time
from pathlib import Path
from components.vast.api.locked_file import LockedJsonFile
from components.vast.fleet import Fleet
from components.vast.rental.claims import Claims
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import offer
folder = Path(sys.argv[1])
claims = Claims(
    lambda name: LockedJsonFile(folder / name), VirtualClock(),
    label_prefix="p/s/endpoint-instance/", owner="", fleet=Fleet(2, "host"),
)
with claims.on(offer(machine_id=7, host_id=901)):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_claim_of_a_killed_process_is_free_again(tmp_path):
    claims = Claims(
        lambda name: LockedJsonFile(tmp_path / name),
        VirtualClock(),
        label_prefix="p/s/endpoint-r1-instance/",
        owner="",
        fleet=Fleet(2, "host"),
    )
    same, same_host = offer(machine_id=7, host_id=901), offer(machine_id=8, host_id=901)
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for machine in (same, same_host):
            with claims.on(machine) as claim:
                assert claim is None
        holder.kill()
    for machine in (same, same_host):
        with claims.on(machine) as claim:
            assert claim is not None
