"""Measure a stack's server under load: `python -m toolchain.measure STACK`.

It prints the cost beforehand, and keeps to a cap. Writes the benchmark's results and their page
into a folder of `docs/measured`, as `toolchain/measured.py` reads it, and prints a profile's
`measured:` block. On the emulator it measures the stand-in, and writes beside the committed files.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime as dt
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from components.core.errors import ConfigurationError, StackError
from components.release.release import short
from toolchain import measured, results
from toolchain.load_client import Clients, Endpoint, EndpointRefuses, Load, load_of, result
from toolchain.on_emulator import ROOT
from toolchain.options import amount
from toolchain.stacks import Stacks, as_typed, project_of, secret_outputs, stacks_of, takes_account

LOADS = "1:6 16:64 64:192 256:768 16:48:8192:256"
"""Those of docs/measured: as CLIENTS:REQUESTS[:TOKENS_IN:TOKENS_OUT]."""

LOAD_SECONDS = 120.0
"""The most time that one load gets, with its warm-up."""

LEAST_SECONDS = 15.0
"""Least seconds of a load with a useful result."""

MAX_DOLLARS = 2.0

RUN = "stack"
"""The name of the one run in the folder."""


class NothingToMeasure(ConfigurationError):
    """The stack has no endpoint, or no load fits its server.

    Cost: nothing.
    Remedy: run `pulumi up` first, or choose smaller `LOADS`.
    """


class TooDear(ConfigurationError):
    """The price cap leaves no load enough time.

    Cost: nothing; the measurement has not begun.
    Remedy: raise `DOLLARS`, or choose fewer `LOADS`.
    """


@dataclasses.dataclass(frozen=True)
class Order:
    """What will be measured, and the most that it takes."""

    loads: tuple[Load, ...]
    load_seconds: float
    dollars_per_hour: float

    @property
    def minutes(self) -> float:
        """The most minutes of all loads together."""
        return len(self.loads) * self.load_seconds / 60

    @property
    def dollars(self) -> float:
        """What the machine costs in that time."""
        return self.minutes / 60 * self.dollars_per_hour


def main() -> int:
    """Measure and write; return 1 with a sentence if there is nothing to measure."""
    parser = argparse.ArgumentParser(prog="measure", description=__doc__.partition("\n")[0])
    parser.add_argument("stack")
    parser.add_argument("--loads", default=LOADS, help=f"as {LOADS!r}")
    parser.add_argument("--max-dollars", type=amount(), default=MAX_DOLLARS)
    parser.add_argument("--folder", type=Path, help="where the results go")
    takes_account(parser)
    given = parser.parse_args()
    try:
        return _measure(given, stacks_of(given))
    except StackError as error:
        print(as_typed(given, str(error), given.stack), file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1


def order(
    loads: Sequence[Load], *, dollars_per_hour: float, max_dollars: float, max_model_len: int
) -> Order:
    """Decide the loads and their times, within `max_dollars`.

    Raises:
        NothingToMeasure: if no load fits into `max_model_len` tokens.
        TooDear: if the cap leaves a load less than `LEAST_SECONDS`.
    """
    fitting = tuple(load for load in loads if load.tokens_in + load.tokens_out <= max_model_len)
    if not fitting:
        raise NothingToMeasure(
            f"no load fits into the {max_model_len} tokens that the server takes: name shorter "
            "ones with LOADS"
        )
    affordable = max_dollars / max(dollars_per_hour, 1e-9) * 3600 / len(fitting)
    if affordable < LEAST_SECONDS:
        needed = math.ceil(LEAST_SECONDS * len(fitting) / 36 * dollars_per_hour) / 100
        raise TooDear(
            f"${max_dollars:.2f} buy {affordable:.0f} s for each of {len(fitting)} loads at "
            f"${dollars_per_hour:.2f}/h, and {LEAST_SECONDS:.0f} are the least: allow "
            f"${needed:.2f}, or name fewer loads; nothing was asked"
        )
    return Order(fitting, min(LOAD_SECONDS, affordable), dollars_per_hour)


def describe(what: Order, stack: str, gpus: str) -> str:
    """Describe the plan and its cost."""
    return (
        f"{stack} on {gpus}: {len(what.loads)} loads of at most {what.load_seconds:.0f} s, "
        f"{what.minutes:.0f} min in all; at ${what.dollars_per_hour:.2f}/h the machine costs "
        f"${what.dollars:.2f} in that time, measured or not; other clients would be slowed down"
    )


def measurement(
    known: Mapping[str, Any],
    stack: str,
    version: str,
    *,
    weights: str,
    round_trip: float,
    cut: Sequence[Load],
    at: dt.datetime,
) -> dict[str, Any]:
    """Write down what was measured, for `measurement.yaml`.

    `round_trip` is in seconds, and `cut` are the loads that did not end in time.
    """
    count, _, gpu_name = str(known["gpu"]).partition("x ")
    runs = json.loads(known["release"]["runs"])
    profile = runs["profile"]["name"]
    digest = short(known["release"]["digest"])
    network = f"{round_trip * 1000:.0f} ms"
    revision = known["model_revision"]
    setting = [f"A server that runs the profile {profile} ({digest}), model revision {revision}."]
    setting.append(
        f"The client is `toolchain/load_client.py`, {network} from the server there and back, with "
        "the key gate between them, and TLS if the stack has it."
    )
    setting.append(
        "Random tokens as prompts, ignore-eos, temperature 1.0, closed loop, all clients at once. "
        "One run of each load."
    )
    if cut:
        names = "; ".join(load.name for load in cut)
        setting.append(f"Cut at their time: {names}. Answers that had not ended do not count.")
    run = {
        "name": RUN,
        "machine": "A",
        "title": profile,
        "profile": profile,
        "options": f"as the stack {stack} renders them",
    }
    return {
        "title": f"{known['model']} on {known['gpu']}, vLLM {version}",
        "date": at.date().isoformat(),
        "vllm": version,
        "gpu_name": gpu_name,
        "num_gpus": int(count),
        "weights": weights,
        "conditions": [f"over a network of {network}"],
        "setting": setting,
        "runs": [run],
        "findings": [],
        "not_measured": [],
    }


def only_one_machine(known: Mapping[str, Any], stack: str) -> None:
    """Refuse a stack with several machines, since a measurement is of one.

    Raises:
        NothingToMeasure: if a router stands in front of machines.
    """
    if replicas := known.get("replicas"):
        noun = "machine" if len(replicas) == 1 else "machines"
        raise NothingToMeasure(
            f"the stack {stack} has {len(replicas)} {noun} behind a router, and a measurement is "
            "of one machine alone: measure a stack with `replicas: 1`; nothing was asked"
        )


def _measure(given: argparse.Namespace, stacks: Stacks) -> int:
    loads = [load_of(text) for text in given.loads.split()]
    known = secret_outputs(stacks, given.stack)
    if not known.get("endpoint_url"):
        raise NothingToMeasure(
            f"the stack {given.stack} has no endpoint to measure: bring it up first"
        )
    only_one_machine(known, given.stack)
    what = order(
        loads,
        dollars_per_hour=float(known["hourly_cost"]),
        max_dollars=given.max_dollars,
        max_model_len=int(known["max_model_len"]),
    )
    _say(describe(what, given.stack, str(known["gpu"])))
    endpoint = Endpoint(
        url=str(known["endpoint_url"]).removesuffix("/v1"),
        key=str(known["api_key"]),
        model=str(known["model"]),
        certificate=str(known.get("ca_certificate") or ""),
        client_certificate=str(known.get("client_certificate") or ""),
    )
    now = dt.datetime.now(dt.UTC)
    clients = Clients(endpoint, seed=int(now.timestamp()))
    version, round_trip = asyncio.run(_facts(clients))
    project = project_of(given)
    home = (project.own or ROOT / "docs") / "measured"
    name = _folder_name(str(known["gpu"]), version, given.stack)
    folder = (given.folder or home / name).resolve()
    cut = _play(clients, what, folder / RUN, now)
    content = measurement(
        known,
        given.stack,
        version,
        weights="no" if project.own else "real",
        round_trip=round_trip,
        cut=cut,
        at=now,
    )
    (folder / results.MEASUREMENT).write_text(yaml.safe_dump(content, sort_keys=False))
    made = results.load(folder)
    page = measured.page(folder, made)
    (folder / measured.PAGE).write_text(page, encoding="utf-8")
    _say(page)
    if project.own:
        _say("this was the emulator's stand-in: no profile gets it as its `measured:`")
    else:
        _say(results.block_text(results.block(folder, made, RUN)))
    _say(f"written to {project.shown(folder)}")
    return 0


async def _facts(clients: Clients) -> tuple[str, float]:
    return await clients.version(), await clients.round_trip()


def _play(clients: Clients, what: Order, folder: Path, now: dt.datetime) -> list[Load]:
    """Play the loads one after the other, write each result at once; return the cut loads.

    Raises:
        NothingToMeasure: if no load was answered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cut: list[Load] = []
    written = 0
    for load in what.loads:
        try:
            outcome = asyncio.run(clients.play(load, what.load_seconds))
        except EndpointRefuses as error:
            _say(f"{load.name}: left out, since {error}")
            continue
        content = result(outcome, now.strftime("%Y%m%d-%H%M%S"))
        text = json.dumps(content, indent=1) + "\n"
        (folder / load.file_name).write_text(text, encoding="utf-8")
        written += 1
        cut += [load] if outcome.is_cut else []
        ended = f", cut at {what.load_seconds:.0f} s" if outcome.is_cut else ""
        _say(f"{load.name}: {content['output_throughput']:.0f} tokens/s{ended}")
    if not written:
        raise NothingToMeasure("no load was answered, so nothing was written")
    return cut


def _folder_name(gpus: str, version: str, stack: str) -> str:
    """`2xh200-vllm-0.32.0-dev`."""
    count, _, name = gpus.lower().partition("x ")
    return f"{count}x{name.replace(' ', '-')}-vllm-{version}-{stack}"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (a command's own output)


if __name__ == "__main__":
    sys.exit(main())
