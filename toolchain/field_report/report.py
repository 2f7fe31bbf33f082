"""Makes a report of what was recorded: a few files without anything that is somebody's.

Nothing is written here. A report in which something private is found after all is refused.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components.core.errors import ConfigurationError
from components.machine.recorded_ssh import LOG
from components.vast.api.recording import CALL
from components.vast.boot_notes import MachineBoot, ServerStart
from toolchain.field_report import fields
from toolchain.field_report.anonymous import Anonymizer

FORMAT = "vast-vllm/field-report/1"

FOLDER = "field-report"
"""What all files of the archive lie in."""

MOST_LOG = 4 * 1024 * 1024
"""Characters of one log; of a longer one the end is left out."""

ABOUT, CALLS, BOOTS, REPLACED = "about.json", "calls.jsonl", "boots.json", "replaced.json"

_REQUEST = re.compile(r"prompt|Received request|messages=|\bcontent\b", re.IGNORECASE)
"""A line of vLLM's log that may have a client's words in it."""

_GPUS = re.compile(r"[0-9]{1,2}x [A-Za-z0-9][A-Za-z0-9 ]{0,31}")


class NothingRecorded(ConfigurationError):
    """There is no record to make a report of.

    Cost: nothing.
    Remedy: run a command with `RECORD=1` first.
    """


class ReportRefused(ConfigurationError):
    """Something private was found in a finished report.

    Cost: nothing; no report was written.
    Remedy: report the kind that the message names as a fault of this project.
    """


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What there is to report."""

    entries: Sequence[Mapping[str, Any]]
    """Calls and pieces of logs, as `components.core.record` has kept them."""
    machines: Sequence[MachineBoot] = ()
    starts: Sequence[ServerStart] = ()
    public_models: frozenset[str] = frozenset()
    """Names of models that this project's own profiles have: they say nothing of anybody."""


@dataclasses.dataclass(frozen=True)
class Report:
    """The files of a report by their names, and what was replaced in them."""

    files: Mapping[str, str]
    replaced: Sequence[Mapping[str, Any]]


def report_of(recorded: Recorded, own: Iterable[str], about: Mapping[str, Any]) -> Report:
    """Make the files.

    Args:
        recorded: as it was kept.
        own: texts that must be nowhere: the key, this computer's user and name.
        about: what made the report: versions, no names.

    Raises:
        NothingRecorded: there is neither a call nor a boot.
        ReportRefused: something private is left.
    """
    # Each process keeps a file of its own, so they come in no order of time.
    of_market = (entry for entry in recorded.entries if entry.get("kind") == CALL)
    calls = sorted(of_market, key=lambda entry: float(entry["at"]))
    if not calls and not recorded.machines:
        raise NothingRecorded(
            "nothing was recorded on this account: run `RECORD=1 pulumi up` first, and this again"
        )
    anonymous = Anonymizer(own, recorded.public_models)
    _collect(anonymous, calls, recorded)
    logs = _logs(anonymous, recorded.entries)
    files = {
        CALLS: "".join(f"{json.dumps(_call(anonymous, call))}\n" for call in calls),
        BOOTS: json.dumps(_boots(anonymous, recorded), indent=1),
        **logs,
    }
    _refuse_leaks(anonymous, files)
    replaced = anonymous.replaced
    facts = {"format": FORMAT, **about, "calls": len(calls), "logs": len(logs)}
    files = {
        ABOUT: json.dumps(facts, indent=1),
        **files,
        REPLACED: json.dumps(replaced, indent=1),
    }
    return Report(files, replaced)


def archive(report: Report) -> bytes:
    """Pack the files; the same report is the same archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, text in report.files.items():
            content = text.encode()
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


def unpacked(content: bytes) -> dict[str, str]:
    """Read the files of an archive that this project has made itself."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        members = [(entry.name, tar.extractfile(entry)) for entry in tar]
        return {
            name.removeprefix(f"{FOLDER}/"): file.read().decode() for name, file in members if file
        }


def _collect(anonymous: Anonymizer, calls: Sequence[Mapping[str, Any]], recorded: Recorded) -> None:
    """Note every name and id before the first text is rewritten."""
    for call in calls:
        for part in ("query", "body", "answer"):
            anonymous.collect(call.get(part))
        anonymous.clean_path(str(call.get("path", "")))
    for boot in recorded.machines:
        anonymous.collect({"label": boot.label, "instance_id": boot.instance_id})
    for start in recorded.starts:
        if start.model not in recorded.public_models:
            anonymous.collect({"label": start.model})
    for entry in recorded.entries:
        if entry.get("kind") == LOG:
            anonymous.collect({"hostname": str(entry.get("host", "")).rpartition(":")[0]})


def _call(anonymous: Anonymizer, call: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite one call; what it is made of is known, so no other field comes through."""
    made = {
        "at": float(call["at"]),
        "method": str(call["method"]) if str(call["method"]) in _METHODS else "OTHER",
        "path": anonymous.clean_path(str(call["path"])),
        "query": anonymous.clean(call.get("query")),
        "body": anonymous.clean(call.get("body")),
    }
    if "error" in call:
        return {**made, "error": anonymous.clean(call["error"], "error")}
    return {
        **made,
        "status": int(call["status"]),
        "headers": anonymous.clean(call.get("headers") or {}),
        "answer": _answer(anonymous, call.get("answer")),
    }


_METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})


def _answer(anonymous: Anonymizer, answer: Any) -> Any:
    """Rewrite an answer; one that is no JSON is a sentence, such as that of a gateway."""
    return anonymous.clean(answer, "msg" if isinstance(answer, str) else "")


def _boots(anonymous: Anonymizer, recorded: Recorded) -> dict[str, Any]:
    machines = [
        {
            "instance_id": anonymous.clean(boot.instance_id, "id"),
            "label": anonymous.clean(boot.label, "label"),
            "gpu": boot.gpu if _GPUS.fullmatch(boot.gpu) else anonymous.clean(boot.gpu),
            "dollars_per_hour": boot.dollars_per_hour,
            "ended_at": boot.ended_at,
            "seconds": _seconds(boot.seconds),
            "facts": _facts(anonymous, boot.facts),
        }
        for boot in recorded.machines
    ]
    starts = [
        {
            "instance_id": anonymous.clean(start.instance_id, "id"),
            "model": (
                start.model
                if start.model in recorded.public_models
                else anonymous.clean(start.model, "label")
            ),
            "began_at": start.began_at,
            "seconds": _seconds(start.seconds),
            "rehearsal": _rehearsal(start.rehearsal),
            "failed_in": anonymous.clean(start.failed_in, "state"),
            "cause": anonymous.clean(start.cause, "state"),
        }
        for start in recorded.starts
    ]
    return {"machines": machines, "starts": starts}


def _facts(anonymous: Anonymizer, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what the check of a host found, by the names that it is known under."""
    kept: dict[str, Any] = {}
    for name in _HOST_NUMBERS & facts.keys():
        value = facts[name]
        kept[name] = value if isinstance(value, int | float) or value is None else 0
    for name, field in _HOST_TEXTS.items():
        if name in facts:
            kept[name] = anonymous.clean(facts[name], field)
    return dict(sorted(kept.items()))


_HOST_NUMBERS = frozenset({"gpu_ram_mib", "disk_free_gb", "shm_gib", "memory_gib", "download_mbps"})
_HOST_TEXTS = {
    "gpu_names": "gpu_name",
    "gpu_link": "gpu_name",
    "driver": "driver_version",
    "download_note": "note",
}


def _rehearsal(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    course = str(found.get("course", ""))
    return {
        "course": course if fields.COLUMN.fullmatch(course) else "",
        "began": _number(found.get("began")),
        "ended": _number(found.get("ended")),
        "stages": _seconds(found.get("stages") or {}),
    }


def _seconds(stages: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the times of stages, whose names are this project's."""
    return {
        name: _number(seconds) for name, seconds in stages.items() if fields.COLUMN.fullmatch(name)
    }


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None


def _logs(anonymous: Anonymizer, entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Put the pieces of each log together, in the order in which they were read."""
    logs: dict[tuple[str, str], list[_Log]] = {}
    for entry in entries:
        if entry.get("kind") != LOG or entry.get("name") not in _LOGS:
            continue
        runs = logs.setdefault((str(entry["host"]), str(entry["name"])), [_Log()])
        if runs[-1].is_another(entry):
            runs.append(_Log())
        runs[-1].take(entry)
    hosts = {host: number for number, host in enumerate(dict.fromkeys(host for host, _ in logs))}
    return {
        f"logs/machine-{hosts[host]}-{run}-{name}": _cleaned_log(anonymous, log.text)
        for (host, name), runs in logs.items()
        for run, log in enumerate(runs)
    }


@dataclasses.dataclass
class _Log:
    """One log of a host from its beginning, as one or more readers have read it."""

    text: str = ""
    end: int = 0
    """Bytes that were read."""

    def is_another(self, entry: Mapping[str, Any]) -> bool:
        """Whether a piece begins a log that was emptied since, and no second reading of this."""
        beginning = str(entry["text"])[:_TOLD_APART]
        return int(entry["offset"]) == 0 and self.end > 0 and not self.text.startswith(beginning)

    def take(self, entry: Mapping[str, Any]) -> None:
        """Add what is new of a piece; a later reader begins anew, and reads the same once more."""
        text, offset, after = str(entry["text"]), int(entry["offset"]), int(entry["after"])
        if after <= self.end:
            return
        known = max(0, self.end - offset)
        self.text = (self.text + text[min(known, len(text)) :])[:MOST_LOG]
        self.end = after


_TOLD_APART = 200
"""Characters by whose equality two beginnings of a log are the same."""

_LOGS = frozenset({"vllm.log", "prefetch.log", "rehearsal.log", "supervisor.log"})
"""Logs that are reported; other small files of a host are read in the same way."""


def _cleaned_log(anonymous: Anonymizer, text: str) -> str:
    kept = (
        "[a line that may have a client's words in it]" if _REQUEST.search(line) else line
        for line in text.splitlines()
    )
    return anonymous.scrub("\n".join(kept))


def _refuse_leaks(anonymous: Anonymizer, files: Mapping[str, str]) -> None:
    """Look at the finished text once more.

    Raises:
        ReportRefused: naming the kinds, and nothing of what was found.
    """
    for name, text in files.items():
        if kinds := anonymous.leaks(text):
            raise ReportRefused(
                f"{name} of the report would still hold something private ({', '.join(kinds)}): "
                "nothing was written; tell us the kind, and not the text"
            )
