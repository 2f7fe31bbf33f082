"""Run the checks that an endpoint is to pass, and report what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from components.core.display import redacted, shown
from components.core.errors import causes
from components.core.progress import Progress
from components.smoke_test.checks import CHECKS, NEEDS, why_not
from components.smoke_test.checks.answers import Check, CheckFailed, Finding, NoConnection
from components.smoke_test.client import Client

LONGEST_DETAIL = 200
"""Characters of a detail in the report."""


def run_checks(client: Client, progress: Progress) -> dict[str, Any]:
    """Run what the target's capabilities ask for and return the report, JSON-like.

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
    # Clean the text first: a key with a control character inside would not be found.
    text = " ".join(redacted(shown(detail), [client.target.key]).split())
    took = client.clock.monotonic() - started
    return {"ok": ok, "seconds": round(took, 3), "detail": text[:LONGEST_DETAIL]}


def _refusal(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body)
    return str(body or error.message)


def _cause(error: BaseException) -> str:
    """Name the innermost cause, which names a certificate or a refused port."""
    *_, innermost = causes(error)
    return f"{type(innermost).__name__}: {innermost}" if str(innermost) else str(error)
