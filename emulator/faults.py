"""What goes wrong, on demand: faults by name, each for the next n calls, instances or machines.

Four kinds. `api` faults act on requests, `hub` faults on questions that the user's side asks the
Hub. `contract` faults act on the life of a contract, either
one that is about to be rented (`at create`) or one that already runs. `host` faults are written
into the new container's host.json, and the commands on its PATH act on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One fault that can be switched on: where it acts, what it does, what can be set."""

    acts: str
    does: str
    params: dict[str, str] = field(default_factory=dict)


FAULTS: dict[str, Kind] = {
    "offer_taken": Kind(
        "api", "a rent answers no_such_ask and the offer is gone", {"http": "404, 410 or 400 (404)"}
    ),
    "start_refused": Kind(
        "api",
        "a rent is refused since the machine cannot start; without cancel_unavail, and with a "
        "stopped contract that is billed",
        {"cancel_ignored": "true: with that contract though cancel_unavail is true"},
    ),
    "hopper_hidden": Kind(
        "api", "a search by cuda_max_good without compute_cap leaves H100 and H200 out"
    ),
    "lost_reply": Kind(
        "api",
        "the call is carried out, its reply does not arrive",
        {
            "on": "create, destroy, state or any (create)",
            "how": "503 or timeout (503)",
            "seconds": "of silence with timeout (130)",
        },
    ),
    "rate_limited": Kind(
        "api",
        "429 in one of the shapes seen",
        {
            "shape": "text, detail, rate_limit, budget or quota (text)",
            "retry_after": "seconds, adds the header",
            "route": "part of the path",
            "method": "verb",
        },
    ),
    "api_5xx": Kind(
        "api",
        "the call fails before it acts",
        {"code": "500, 502, 503 or 504 (503)", "route": "part of the path", "method": "verb"},
    ),
    "api_timeout": Kind(
        "api",
        "no answer, and nothing is done",
        {"seconds": "of silence (130)", "route": "part of the path", "method": "verb"},
    ),
    "api_410": Kind(
        "api",
        "410 deprecated_endpoint",
        {"route": "part of the path (/api/v1/instances)", "method": "verb"},
    ),
    "key_unknown_404": Kind(
        "api", "404 auth_error for a good key", {"route": "part of the path", "method": "verb"}
    ),
    "killed": Kind(
        "api",
        "the emulator itself ends in the call, by SIGKILL: no reply",
        {
            "when": "before or after it acts (after)",
            "route": "part of the path",
            "method": "verb",
        },
    ),
    "rude": Kind(
        "api",
        "the texts that hosts write have escapes, line ends and workflow commands in them",
        {
            "fields": "which, with commas (geolocation,status_msg,cpu_name,hostname)",
            "route": "part of the path",
            "method": "verb",
        },
    ),
    "hub_down": Kind(
        "hub",
        "the Hub does not say",
        {
            "how": "503, garbled, flood or drip (503)",
            "route": "part of the path",
        },
    ),
    "hub_moved": Kind(
        "hub",
        "main has moved on",
        {"commits": "by how many, 7 at most (1)", "route": "part of the path"},
    ),
    "job_refused": Kind("api", "a scheduled job is refused", {"code": "status (400)"}),
    "job_early": Kind("api", "a scheduled job runs at the next full hour, whatever its start"),
    "job_lost": Kind("api", "a scheduled job is answered with success and not kept"),
    "instance_null_once": Kind("api", 'a single GET is {"instances": null} for a live contract'),
    "ports_of_one": Kind(
        "api",
        "a single GET does not give Docker's form of ports",
        {"form": "numbers or none (numbers)", "id": "contract"},
    ),
    "destroy_lies": Kind("api", "DELETE says success and does nothing"),
    "no_credit": Kind("api", "a rent answers 400 insufficient_credit"),
    "stuck_loading": Kind("contract at create", "the image never finishes", {"msg": "status_msg"}),
    "pull_takes": Kind(
        "contract at create", "the image takes so long to come", {"seconds": "emulated (600)"}
    ),
    "fatal_status": Kind(
        "contract at create",
        "the container cannot start on this host",
        {"msg": "status_msg (a CDI error)", "status": "actual_status (created)"},
    ),
    "image_denied": Kind(
        "contract at create", "the registry refuses the image", {"msg": "status_msg"}
    ),
    "ports_missing": Kind("contract at create", "running, but nothing is mapped"),
    "port_unreachable": Kind(
        "contract at create",
        "mapped, but not reachable from outside",
        {"how": "timeout or refused (timeout)", "port": "internal port, 22 too (all but 22)"},
    ),
    "log_late": Kind(
        "contract at create",
        "the container's log is empty at first, or for ever",
        {"seconds": "emulated, from its start on (for ever)"},
    ),
    "machine_in_the_middle": Kind(
        "contract at create",
        "whoever logs in reaches another SSH server, which lets everybody in, passes commands on "
        "and keeps what it hears in overheard/ID",
    ),
    "outbid": Kind(
        "contract",
        "a running interruptible contract loses its GPUs",
        {
            "id": "contract",
            "floor": "$/h to win again (1.25 x the bid)",
            "seconds": "emulated, until the floor is the old one again (never)",
            "older": "true: in the states that older clients remember",
        },
    ),
    "container_exits": Kind(
        "contract",
        "the container of a running contract ends, as in a crash or a reboot of its host",
        {"id": "contract", "seconds": "emulated, until it runs again (never)"},
    ),
    "host_offline": Kind(
        "contract",
        "the host of a running contract disappears",
        {"id": "contract", "seconds": "emulated, until it is back (3 days)"},
    ),
    "contract_ends": Kind(
        "contract",
        "the contract's end date is near",
        {"id": "contract", "seconds": "emulated, from now (0)"},
    ),
    "price_raised": Kind(
        "contract",
        "the host asks for a higher price",
        {"id": "contract", "factor": "of the GPU price (1.25)"},
    ),
    "hostile": Kind(
        "contract",
        "the host of a running contract answers as it likes",
        {
            "id": "contract",
            "mode": "shape, drip, flood or lies (shape)",
            "over": "http, ssh or both (both)",
        },
    ),
    "driver_old": Kind(
        "host", "an old NVIDIA driver", {"version": "550.54.15", "cuda": "that it allows"}
    ),
    "gpu_missing": Kind("host", "fewer GPUs than rented", {"count": "GPUs seen (one less)"}),
    "cuda_dead": Kind(
        "host",
        "CUDA does not start on the GPUs that are there",
        {
            "code": "the driver's error: 802, 803, 804 or 999 (802)",
            "nvml": "true: nvidia-smi does not start either",
            "late": "true: not before the server starts",
        },
    ),
    "gpu_wrong": Kind(
        "host",
        "others use the GPUs, or they are another model",
        {"name": "model", "used_mib": "in use by others (40960)"},
    ),
    "disk_short": Kind("host", "less disk than rented", {"gb": "there (half)"}),
    "disk_full": Kind("host", "no space left during the download", {"at": "share of the bytes"}),
    "download_slow": Kind(
        "host",
        "the weights crawl",
        {
            "mbps": "Mbit/s (20)",
            "until": "rehearsing (a rehearsal has taken GPU memory) or rehearsed (it is over): "
            "from then on the link's own rate (never)",
        },
    ),
    "download_hang": Kind("host", "the download stops", {"at": "share of the bytes"}),
    "crash_loop": Kind(
        "host", "the server exits at each start, or later", {"after": "emulated seconds of serving"}
    ),
    "engine_oom": Kind("host", "CUDA out of memory"),
    "kv_too_small": Kind("host", "the context does not fit the KV cache", {"gib": "for the cache"}),
    "bad_flag": Kind("host", "the image's vLLM does not know an option", {"flag": "which"}),
    "class_missing": Kind("host", "the image's vLLM has no class for the model"),
    "gated_model": Kind("host", "the Hub refuses the weights"),
    "nccl_hang": Kind("host", "tensor parallel workers wait for each other for ever"),
    "rehearsal_hang": Kind(
        "host",
        "a server with dummy weights logs nothing any more, and does not hear SIGTERM",
        {"at": "nccl, load or profile (load)"},
    ),
    "rehearsal_flood": Kind(
        "host",
        "a server with dummy weights logs without an end",
        {"mb_s": "MB in a real second (20)", "at": "nccl, load or profile (load)"},
    ),
    "rehearsal_leaves": Kind(
        "host",
        "a server with dummy weights leaves a process of another session",
        {"memory": "true: it holds the weights' memory", "at": "nccl, load or profile (load)"},
    ),
    "rehearsal_keeps_memory": Kind(
        "host",
        "the GPU memory of a server with dummy weights is not free when it has ended",
        {"seconds": "real, from when that is first seen (for ever)"},
    ),
    "green_but_dead": Kind("host", "/health is 200, completions hang"),
    "wrong_model": Kind(
        "host", "another model answers", {"model": "which", "keeps_name": "true: under the name"}
    ),
}

_USUAL_ROUTE = {"api_410": "/api/v1/instances"}
_USUAL_CALL = {"lost_reply": "create"}


@dataclass(frozen=True)
class FaultRequest:
    """A fault that somebody wants switched on for its next `count` occasions."""

    name: str
    count: int = 1
    machine: int | None = None
    params: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Armed:
    """A fault that waits for its next `left` occasions, on `machine` alone if that is set."""

    id: int
    name: str
    left: int
    machine: int | None = None
    params: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Occasion:
    """Something that a fault may strike: what is known of it decides whether it does."""

    machine: int | None = None
    contract: int | None = None
    method: str = ""
    path: str = ""
    call: str = ""


class FaultBook:
    """The armed faults. `changed` is called with all of them whenever they change."""

    def __init__(self, armed: list[Armed], changed: Callable[[list[Armed]], None]) -> None:
        """Begin with `armed` (what an earlier process left)."""
        self._armed = armed
        self._changed = changed

    def armed(self) -> list[Armed]:
        """Return what waits, oldest first."""
        return list(self._armed)

    def arm(
        self, name: str, *, count: int = 1, machine: int | None = None, params: dict[str, str]
    ) -> Armed:
        """Switch `name` on for the next `count` occasions.

        Raises:
            ValueError: no such fault, or no such parameter; the text names those that exist.
        """
        return self.arm_all([FaultRequest(name, count, machine, params)])[0]

    def arm_all(self, wanted: Sequence[FaultRequest]) -> list[Armed]:
        """Switch a whole scenario on, or nothing of it.

        Raises:
            ValueError: the first one that cannot be; the text says why.
        """
        for one in wanted:
            _refuse_unknown(one)
        first = max((one.id for one in self._armed), default=0) + 1
        added = [
            Armed(number, one.name, one.count, one.machine, one.params)
            for number, one in enumerate(wanted, first)
        ]
        self._set([*self._armed, *added])
        return added

    def clear(self) -> int:
        """Switch everything off; return how many faults were armed."""
        count = len(self._armed)
        self._set([])
        return count

    def strike(self, name: str, occasion: Occasion) -> dict[str, str] | None:
        """Use up one `name` that fits the occasion and return its parameters, or None."""
        for fault in self._armed:
            if fault.name == name and _fits(fault, occasion):
                self._use(fault)
                return dict(fault.params)
        return None

    def strike_new(self, machine: int) -> dict[str, dict[str, Any]]:
        """Return, and use up, what strikes a contract that is being rented on `machine`."""
        struck: dict[str, dict[str, Any]] = {}
        for name, kind in FAULTS.items():
            if kind.acts not in ("host", "contract at create"):
                continue
            params = self.strike(name, Occasion(machine=machine))
            if params is not None:
                struck[name] = {key: _number(value) for key, value in params.items()}
        return struck

    def _use(self, fault: Armed) -> None:
        left = Armed(fault.id, fault.name, fault.left - 1, fault.machine, fault.params)
        replaced = [left if one.id == fault.id else one for one in self._armed]
        self._set([one for one in replaced if one.left > 0])

    def _set(self, armed: list[Armed]) -> None:
        self._armed = armed
        self._changed(armed)


def _refuse_unknown(wanted: FaultRequest) -> None:
    name, params = wanted.name, wanted.params
    kind = FAULTS.get(name)
    if kind is None:
        raise ValueError(f"there is no fault {name!r}; `fault --list` shows those that exist")
    unknown = set(params) - set(kind.params)
    if unknown and kind.acts != "host":
        raise ValueError(f"{name} has no parameter {min(unknown)!r}; it has {sorted(kind.params)}")
    if wanted.count < 1:
        raise ValueError(f"--next {wanted.count} strikes nothing; give 1 or more")


def _fits(fault: Armed, occasion: Occasion) -> bool:
    params = fault.params
    route = params.get("route", _USUAL_ROUTE.get(fault.name, ""))
    method = params.get("method", occasion.method)
    call = params.get("on", _USUAL_CALL.get(fault.name, "any"))
    return (
        fault.machine in (None, occasion.machine)
        and params.get("id", str(occasion.contract)) == str(occasion.contract)
        and route in occasion.path
        and method.upper() == occasion.method
        and call in (occasion.call, "any")
    )


def _number(text: str) -> Any:
    """Parameters arrive as text; what reads as a number or a truth value is one in host.json."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
