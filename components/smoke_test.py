"""What the endpoint must answer: `python -m components.smoke_test`, run by pulumi-command.

It asks as a client does, with the `openai` package. What it needs to know stands in the environment
(`Target.from_environment`), never in the command line, which other users of the machine can read.
Progress goes to standard error, one JSON report to standard output; a check that fails ends it
with status 1 and one sentence. The checks themselves are in `smoke_checks.py`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import openai

from components.core.bounded import Budget
from components.core.bounded_http import BoundedTransport, trust
from components.core.clock import SystemClock
from components.core.display import shown
from components.core.errors import StackError
from components.core.progress import Progress
from components.core.redaction import redacted
from components.smoke_checks import (
    CHECKS,
    NEEDS,
    Check,
    CheckFailed,
    Client,
    Finding,
    NoConnection,
    Target,
    why_not,
)

CONNECT_TIMEOUT = 10.0
"""Seconds for the connection, TLS included."""

ANSWER_TIMEOUT = 180.0
"""Seconds without a byte of an answer; one with a trace comes whole, after thousands of tokens."""

LONGEST_ANSWER = 300.0
"""Seconds for a whole answer, from the connection to the last byte."""

LONGEST_RUN = 1800.0
"""Seconds for all checks together; a server that needs more fails those that are left."""

MOST_BYTES = 2_097_152
"""Of one answer; the longest is a stream of some hundred KB."""

LONGEST_DETAIL = 200
"""Characters of a detail in the report."""


def connect(target: Target, transport: httpx2.BaseTransport | None = None) -> Client:
    """Build the client: the pinned certificate, no proxy from the environment, no repetition.

    The host that answers is a stranger, so each answer has a budget, and all of them have one.
    """
    clock = SystemClock()
    until = clock.monotonic() + LONGEST_RUN

    def budget() -> Budget:
        return Budget(clock, min(LONGEST_ANSWER, until - clock.monotonic()), MOST_BYTES)

    http = httpx2.Client(
        trust_env=False,
        transport=transport
        or BoundedTransport(trust(target.certificate, target.client_certificate), budget),
        timeout=httpx2.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT),
    )
    ai = openai.OpenAI(
        base_url=target.url,
        api_key=target.key,
        max_retries=0,
        http_client=http,
        timeout=http.timeout,
    )
    return Client(ai, http, target, clock)


def run_checks(client: Client, progress: Progress) -> dict[str, Any]:
    """Run what the target's abilities ask for and return the report, JSON-like.

    `ok`, `model`, `digest` of what was tested, `checks` (by name: `ok`, `seconds`, `detail`),
    `skipped`, and what was measured: `seconds_to_first_token`, `tokens_per_second`.
    """
    target = client.target
    skipped = [name for name in NEEDS if why_not(name, target)]
    checks: dict[str, dict[str, Any]] = {}
    measures: dict[str, float] = {}
    for name, check in CHECKS.items():
        if name in skipped:
            progress.say(f"{name}: not asked, {why_not(name, target)}")
            continue
        started = client.clock.monotonic()
        try:
            found = _run(check, client)
        except CheckFailed as error:
            checks[name] = _entry(client, started, ok=False, detail=str(error))
            progress.say(f"{name}: FAILED, {checks[name]['detail']}")
            if isinstance(error, NoConnection):
                break
            continue
        checks[name] = _entry(client, started, ok=True, detail=found.detail)
        measures.update({key: round(value, 3) for key, value in found.measures.items()})
        progress.say(f"{name}: ok in {checks[name]['seconds']} s, {checks[name]['detail']}")
    ok = all(entry["ok"] for entry in checks.values())
    asked = {"model": target.model, "digest": target.digest}
    return {"ok": ok, **asked, "checks": checks, "skipped": skipped, **measures}


def verdict(report: Mapping[str, Any]) -> str:
    """Say in one sentence what failed; empty if nothing did."""
    failed = [name for name, entry in report["checks"].items() if not entry["ok"]]
    if not failed:
        return ""
    first = failed[0]
    others = f" (and {', '.join(failed[1:])})" if failed[1:] else ""
    return (
        f"the smoke test of {report['model']} failed at {first}{others}: "
        f"{report['checks'][first]['detail']}; the server runs and is billed: "
        "mend it and run `pulumi up` again, or `pulumi destroy`"
    )


def main(environment: Mapping[str, str]) -> int:
    """Test the endpoint of the environment; return the exit status."""
    try:
        client = connect(Target.from_environment(environment))
    except (StackError, ValueError) as error:
        _to_stderr(f"the smoke test cannot begin: {error}")
        return 1
    with client.http:
        report = run_checks(client, Progress("smoke test", client.clock, _to_stderr))
    print(json.dumps(report, ensure_ascii=False), flush=True)  # noqa: T201  (this is the command's result)
    sentence = verdict(report)
    if sentence:
        _to_stderr(sentence)
    return 1 if sentence else 0


def _run(check: Check, client: Client) -> Finding:
    """Run one check; whatever the client raises becomes a sentence."""
    try:
        return check(client)
    except openai.APIStatusError as error:
        raise CheckFailed(f"the endpoint answers {error.status_code}: {_refusal(error)}") from None
    except (openai.APIConnectionError, httpx2.TransportError) as error:
        raise NoConnection(f"there is no connection to the endpoint ({_cause(error)})") from None
    except openai.APIError as error:
        raise CheckFailed(f"the endpoint broke off: {error.message}") from None
    except CheckFailed:
        raise
    except Exception as error:  # noqa: BLE001  (the one place where an answer becomes a sentence)
        # The client takes over what it is sent without looking, so a wrong shape shows up late.
        words = str(error) or type(error).__name__
        raise CheckFailed(f"the answer has another shape than it must ({words})") from None


def _entry(client: Client, started: float, *, ok: bool, detail: str) -> dict[str, Any]:
    # Shown first: a key with a control character inside would be found by nobody.
    text = " ".join(redacted(shown(detail), [client.target.key]).split())
    took = client.clock.monotonic() - started
    return {"ok": ok, "seconds": round(took, 3), "detail": text[:LONGEST_DETAIL]}


def _refusal(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body)
    return str(body or error.message)


def _cause(error: BaseException) -> str:
    """Name the innermost cause: that is where a certificate or a refused port shows."""
    causes = list(_causes(error))
    return f"{type(causes[-1]).__name__}: {causes[-1]}" if str(causes[-1]) else str(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _to_stderr(line: str) -> None:
    print(shown(line), file=sys.stderr, flush=True)  # noqa: T201  (a command's own output)


if __name__ == "__main__":
    sys.exit(main(os.environ))
