"""Write a release of what a stack runs: `python -m toolchain.release NAME --stack dev`.

Refuses a stack whose smoke test has not passed, or whose last `up` failed. It never overwrites a
release.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.core.display import shown, shown_value
from components.core.errors import StackError
from components.machine.first_contact import BY_TRUST
from components.release.release import Release, ReleaseRefused, ReleaseSpec, short, to_text
from toolchain.day_two.load.figure import KEY, figure_of, newest_for
from toolchain.day_two.load.kept import LoadTest, folder_of, kept
from toolchain.on_emulator import EMULATOR, VAST
from toolchain.stacks import (
    Stacks,
    as_typed,
    of_kind,
    outputs,
    project_of,
    resources,
    stacks_of,
    takes_account,
)

MEASURED = ("gpu", "machine_id", "hourly_cost", "boot_seconds", "smoke_report")
"""Outputs that a release keeps as they are: $/h, seconds by stage, and the smoke report."""

SERVED = "dynamic/vllm:Server"
"""End of the type of every resource that stands for a server."""


def main() -> int:
    """Write the release; return 1 with a sentence if there is nothing to write."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--stack", default="dev")
    takes_account(parser)
    given = parser.parse_args()
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    marketplace = VAST if given.account else EMULATOR
    project = project_of(given)
    try:
        known = what_runs(stacks_of(given), given.stack)
        test = load_test_of(known, kept(folder_of(given.stack, marketplace)))
        release = release_of(given.name, given.stack, known, now, marketplace, test=test)
        path = write(release, project.releases)
    except StackError as error:
        print(as_typed(given, str(error), given.stack), file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    print(  # noqa: T201  (a command's own output)
        shown(f"{project.shown(path)}: {short(release.digest)}, {release.proven['summary']}"),
        flush=True,
    )
    if test is None:
        sentence = as_typed(given, without_load(given.stack), given.stack)
        print(shown(sentence), file=sys.stderr)  # noqa: T201  (a command's own output)
    return 0


def what_runs(stacks: Stacks, stack: str) -> dict[str, Any]:
    """Return a stack's outputs, if they are of its present server; empty without a server.

    An `up` that fails after its server was started writes no outputs: the previous ones stay.

    Raises:
        ReleaseRefused: if they are of what ran before. PulumiFailed: if nobody can say.
    """
    known = outputs(stacks, stack)
    servers = of_kind(resources(stacks, stack), SERVED)
    starts = newest_starts(servers)
    if known and not any(_starts_in(known).items() <= newest.items() for newest in starts):
        later = "its server was started later"
        if known.get("replicas"):
            later = "one of its servers was started later, or is gone"
        since = later if servers else "it has no server any more"
        raise ReleaseRefused(
            f"the outputs of the stack {stack} are of what ran before, since {since}: its last "
            "`up` did not go through; bring it up until it does"
        )
    return known


def newest_starts(servers: Iterable[Mapping[str, Any]]) -> list[dict[int, str]]:
    """Give when the newest server of each endpoint's replicas was started, by their numbers.

    An endpoint is the parent of its servers in the state. The previous server of a replica may be
    there still, until its clients have left.
    """
    newest: dict[str, dict[int, str]] = {}
    for server in servers:
        outs = server.get("outputs") or {}
        of_endpoint = newest.setdefault(str(server.get("parent")), {})
        number, started = int(outs.get("replica") or 0), str(outs.get("started_at"))
        of_endpoint[number] = max(started, of_endpoint.get(number, ""))
    return list(newest.values())


def _starts_in(known: Mapping[str, Any]) -> dict[int, str]:
    """Give when the servers of a stack's outputs were started, by the numbers of replicas."""
    others = {int(one["index"]): str(one["started_at"]) for one in known.get("replicas") or ()}
    return {**others, 0: str(known.get("started_at"))}


def load_test_of(known: Mapping[str, Any], tests: Sequence[LoadTest]) -> LoadTest | None:
    """Find the newest whole load test of exactly what the stack runs, on as many machines."""
    digest = str((known.get("release") or {}).get("digest") or "")
    replicas = known.get("replicas") or [known]
    return newest_for(tests, digest, [str(one.get("gpu")) for one in replicas])


def without_load(stack: str) -> str:
    """Say that a release carries no measured load, and what would give it one."""
    return (
        "the release carries no measured load, since this computer keeps no whole test of what "
        f"runs: `make load STACK={stack} ON=account` before `make release` gives it one"
    )


def release_of(
    name: str,
    stack: str,
    known: Mapping[str, Any],
    now: dt.datetime,
    marketplace: str,
    *,
    test: LoadTest | None = None,
) -> Release:
    """Make a release of a stack's outputs; it carries the figures of `test`.

    Raises:
        ReleaseRefused: if the stack runs nothing, or nothing that was tested.
    """
    told = known.get("release")
    if not told:
        raise ReleaseRefused(
            f"the stack {stack} runs nothing that a release could be of: bring it up first"
        )
    if not told.get("sources"):
        raise ReleaseRefused(
            f"which commits the stack {stack} runs is its host's word, as an older release of this "
            "project took it: bring it up once more, which asks the Hub"
        )
    if not told["proven"]:
        reason = "; ".join(told.get("unproven") or ["the smoke test has not passed"])
        raise ReleaseRefused(
            f"{reason}, in the stack {stack}: a release is of what works; bring it up until it does"
        )
    try:
        return Release(
            name=name,
            digest=told["digest"],
            runs=ReleaseSpec.model_validate_json(told["runs"]),
            proven={
                **_proven(stack, known, now, marketplace),
                **({KEY: shown_value(figure_of(test))} if test else {}),
            },
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ReleaseRefused(
            f"{name!r} is no name of a release ({first['msg']}): letters, digits, dots, dashes"
        ) from None


def write(release: Release, folder: Path) -> Path:
    """Write a release's file and return its path.

    Raises:
        ReleaseRefused: if there is one of that name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{release.name}.yaml"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(to_text(release))
    except FileExistsError:
        raise ReleaseRefused(
            f"there is a release {release.name} already, and what was promoted must not change: "
            "take another name"
        ) from None
    return path


def _proven(
    stack: str, known: Mapping[str, Any], now: dt.datetime, marketplace: str
) -> dict[str, Any]:
    report = known["smoke_report"]
    rate = float(report.get("tokens_per_second") or 0)
    dollars = float(known["hourly_cost"])
    boot = sum(known["boot_seconds"].values())
    machines = max(1, len(known.get("replicas") or ()))
    # The router keeps one client on one machine.
    per_million = round(dollars / machines / 3600 / rate * 1e6, 2) if rate else None
    what = f"{machines} machines of {known['gpu']}" if machines > 1 else str(known["gpu"])
    return {
        "summary": (
            f"{shown(what)} for ${dollars:.2f}/h, ready in {boot:.0f} s, {rate:g} tokens/s "
            f"for one client, on {marketplace}"
        ),
        "stack": stack,
        "marketplace": marketplace,
        "written_at": now.isoformat(),
        **{key: shown_value(known[key]) for key in MEASURED},
        "files": shown_value(known["release"]["files"]),
        "whose_word": _whose_word(known["release"]),
        "tokens_per_second_for_one_client": rate,
        "dollars_per_million_tokens_for_one_client": per_million,
    }


def _whose_word(told: Mapping[str, Any]) -> dict[str, Any]:
    """Name the source of each fact: this project, the Hub, the market, or the host's claim."""
    sources: Mapping[str, Mapping[str, str]] = told["sources"]
    return {
        "commits": {name: one["commit"] for name, one in sources.items()},
        "files": {name: one["files"] for name, one in sources.items()},
        "machine_id, hourly_cost": "the market's",
        "smoke_report, boot_seconds": "measured from outside",
        "gpu": "the host's claim",
        # An older release of this project asked nobody who vouches for the host key.
        "host_key": told.get("host_key", BY_TRUST),
    }


if __name__ == "__main__":
    sys.exit(main())
