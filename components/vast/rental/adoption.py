"""A machine that was rented by hand becomes a stack's own, without a restart.

Nothing of the machine changes before it is known to fit. Then its own server ends and the machine
is checked. The stack's start script replaces the machine's own. Last of all the machine gets the
stack's label. From there on `provisioner.py` adopts it and `destroy` ends it. Each step can be
taken twice, so the next `pulumi up` completes an interrupted adoption.

`update_template` stores the start script; only the official client documents it (vast-api
reference, 5). Nobody has tried whether Vast applies it before the next reboot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from components.core.errors import HostError
from components.core.progress import Progress
from components.machine import gpus
from components.vast.errors import CannotAdopt
from components.vast.labels import belongs_to_other
from components.vast.market.query import parse_query, still_fits
from components.vast.market.ranking import hourly_cap
from components.vast.market.requirements import Requirements
from components.vast.market.search import starts_on
from components.vast.quarantine import quarantine_reason

if TYPE_CHECKING:
    from components.vast.api.instances_api import InstancesApi
    from components.vast.api.models import Instance
    from components.vast.api.payloads import RentRequest
    from components.vast.rental.boot import Rented

SECONDS_TO_END = 60
"""That the previous server has to end, before it is killed."""

TAKE_OUT = (
    "take `adopt` out of the configuration (`pulumi config rm adopt`) to rent another machine"
)

_IN_ITS_ENVIRONMENT = """\
import os, sys
pairs = open(sys.argv[1], "rb").read().split(b"\\0")
variables = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
os.execve("/bin/sh", ["sh", sys.argv[2]], variables)
"""
"""Runs a script with the variables that a file holds as `/proc/<pid>/environ` does; no quote in it
is a single one."""


@dataclasses.dataclass(frozen=True)
class AdoptionCriteria:
    """What the stack would rent."""

    label_prefix: str
    """`<project>/<stack>/<resource>/`."""
    owner: str
    """See `labels.py`; empty where the stack's SSH key is not made yet."""
    query: str
    need: Requirements
    image: str
    disk_gb: float
    port: int


def find(api: InstancesApi, instance_id: int, wanted: AdoptionCriteria) -> Instance:
    """Look at the machine and hold it to what the stack would rent.

    Raises:
        CannotAdopt: with everything that does not fit; nothing was changed.
    """
    found = api.instance(instance_id)
    if found is None:
        raise CannotAdopt(
            f"there is no instance {instance_id} on this account, which `adopt` names: correct "
            "the number, or `pulumi config rm adopt` to rent a machine"
        )
    said = misfits(found, wanted)
    if said:
        raise CannotAdopt(
            f"instance {instance_id} (${found.dollars_per_hour:.2f}/h) cannot be adopted: "
            f"{'; '.join(said)}; it was left as it is, and is billed as before"
        )
    return found


def misfits(found: Instance, wanted: AdoptionCriteria) -> list[str]:
    """Everything about a contract that is not as the stack would have rented it. Pure."""
    need = wanted.need
    return [
        said
        for said in (
            _of_somebody_else(found.label, wanted),
            _quarantined(found.label),
            _differs("its image is", found.image, wanted.image, "image"),
            _too_small("disk", found.disk_gb, wanted.disk_gb, "diskGb"),
            _differs("it is", _kind(interruptible=found.interruptible), need.contract, "contract"),
            _too_dear(found.dollars_per_hour, hourly_cap(need)),
            _gpus(found, wanted),
            _no_datacenter(found, need),
            _not_mapped(found, wanted.port),
            _not_running(found),
        )
        if said
    ]


def adopt(
    api: InstancesApi,
    progress: Progress,
    found: Instance,
    *,
    order: RentRequest,
    public_key: str,
    check: Callable[[], Rented],
    run: Callable[[Instance, str], str],
) -> None:
    """Make a machine that fits the stack's own: from then on it carries the order's label.

    Args:
        api: of the market.
        progress: receives each step.
        found: the machine, as `find` gave it.
        order: whose label and start script it gets.
        public_key: lets the stack in.
        check: waits until the machine works, logged in with that key and with its GPUs free.
        run: runs a script on the machine and gives what it said; raises a `HostError`.

    Raises:
        CannotAdopt: if it does not work; its server may have ended, its label is as it was.
        StackError: of the client's kinds.
    """
    if found.label == order.label:
        return
    progress.say(f"letting the stack's key in on instance {found.id}")
    api.add_ssh_key(found.id, public_key)
    try:
        progress.say("ending the server that runs there; its weights stay on the disk")
        progress.say(run(found, takeover(found.id, order.onstart)))
        # Only now are the GPUs free, as the check of a machine wants them.
        check()
    except HostError as error:
        raise CannotAdopt(
            f"instance {found.id} was not adopted and is billed as before "
            f"(${found.dollars_per_hour:.2f}/h): {error}; its label is as it was, its "
            "server may have ended, and the stack's SSH key may be on it"
        ) from None
    api.set_onstart(found.id, order.onstart)
    api.set_label(found.id, order.label)
    progress.say(f"instance {found.id} is this stack's from now on")


def takeover(instance_id: int, onstart: str) -> str:
    """A script that ends the previous server and does what the stack's start script would have.

    A login over SSH has none of the container's variables, so they are taken from a process of the
    container. They contain keys, so they are passed in the environment alone: everybody on the host
    can read a command line. Processes of this container carry its id. A cache of the Hub at its
    usual place becomes the stack's, so that nothing is downloaded again.
    """
    return f"""\
set -u
command -v python3 >/dev/null || {{ echo "there is no python3 on the machine" >&2; exit 1; }}
mine() {{
    grep -lzxF 'CONTAINER_ID={instance_id}' /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3
}}
serving() {{
    for process in $(mine); do
        tr '\\0' ' ' <"/proc/$process/cmdline" 2>/dev/null |
            grep -Eq '(^|[ /.])vllm serve |vllm\\.entrypoints|^VLLM::' && echo "$process"
    done
}}
variables=$(mktemp)
trap 'rm -f "$variables" "$variables.sh"' EXIT
for process in $(mine | sort -n); do
    cat "/proc/$process/environ" >"$variables" 2>/dev/null && [ -s "$variables" ] && break
done
[ -s "$variables" ] || {{ echo "no process of the container shows its variables" >&2; exit 1; }}
for process in $(serving); do kill "$process" 2>/dev/null; done
left={SECONDS_TO_END}
while [ -n "$(serving)" ] && [ "$left" -gt 0 ]; do sleep 1; left=$((left - 1)); done
for process in $(serving); do kill -KILL "$process" 2>/dev/null; done
cache="$HOME/.cache/huggingface"
kept="no weights were there"
if [ -d "$cache/hub" ] && [ ! -e "$HOME/huggingface" ]; then
    ln -s "$cache" "$HOME/huggingface"
    kept="its $(du -shL "$cache" | cut -f 1) of weights are the stack's"
fi
cat >"$variables.sh" <<'ONSTART'
{onstart}
ONSTART
python3 -c '{_IN_ITS_ENVIRONMENT}' "$variables" "$variables.sh" >>"$HOME/adopted.log" 2>&1 || exit
echo "the previous server has ended; $kept"
"""


def _of_somebody_else(label: str, wanted: AdoptionCriteria) -> str:
    project = wanted.label_prefix.split("/", maxsplit=1)[0]
    if not label.startswith(f"{project}/"):
        return ""
    if not label.startswith(wanted.label_prefix):
        return f"it is the stack's whose label it carries ({label})"
    if belongs_to_other(label, wanted.owner):
        return (
            f"it carries this stack's label ({label}) and was rented with another SSH key, by a "
            "stack of the same name in another backend, or by one whose state was lost: one that "
            "nobody else has can be adopted without its label (`vastai label instance`)"
        )
    return ""


def _quarantined(label: str) -> str:
    """A contract in quarantine is to be ended, so it is not adopted."""
    why = quarantine_reason(label)
    return f"it was marked unfit ({why}): {TAKE_OUT}" if why else ""


def _differs(what: str, found: str, wanted: str, setting: str) -> str:
    if found == wanted:
        return ""
    return f"{what} {found} and the stack's {wanted} ({setting})"


def _too_small(what: str, found: float, wanted: float, setting: str) -> str:
    if found >= wanted:
        return ""
    return f"its {what} has {found:g} GB and the stack needs {wanted:g} ({setting})"


def _too_dear(price: float, cap: float) -> str:
    if price <= cap:
        return ""
    return f"it costs ${price:.2f}/h and the cap is ${cap:.2f} (maxDollarsPerHour)"


def _gpus(found: Instance, wanted: AdoptionCriteria) -> str:
    query = parse_query(wanted.query)
    query.setdefault("num_gpus", {"eq": wanted.need.num_gpus})
    of_gpus = {name: wish for name, wish in query.items() if name in {"gpu_name", "num_gpus"}}
    row = {"gpu_name": found.gpu_name, "num_gpus": found.num_gpus}
    starts = starts_on({**row, "gpu_ram": found.gpu_ram_mib}, wanted.need)
    if not starts and gpus.capability(found.gpu_name) is not None:
        return f"it has {found.num_gpus}x {found.gpu_name}, on which the server does not start"
    if still_fits(row, of_gpus):
        return ""
    return f"it has {found.num_gpus}x {found.gpu_name}, which offerQuery excludes"


def _no_datacenter(found: Instance, need: Requirements) -> str:
    if found.datacenter or not need.datacenter_only:
        return ""
    return "its host is no certified datacenter (datacenterOnly)"


def _not_mapped(found: Instance, port: int) -> str:
    missing = [one for one in ("22/tcp", f"{port}/tcp") if one not in found.ports]
    if found.actual_status != "running" or not missing:
        return ""
    return (
        f"it maps no port {' and '.join(missing)}, which only a rental can (`--ssh --direct --env "
        f"'-p {port}:{port}'`)"
    )


def _not_running(found: Instance) -> str:
    if found.actual_status != "running":
        return f"it is {found.actual_status or 'queued'}, not running"
    if found.intended_status == "stopped":
        return "it is being stopped"
    return ""


def _kind(*, interruptible: bool) -> str:
    return "interruptible" if interruptible else "on-demand"
