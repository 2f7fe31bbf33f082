"""What the endpoint must answer: `python -m components.smoke_test`, run by pulumi-command.

Its input stands in the environment (`Target.from_environment`). Progress goes to standard error,
one JSON report to standard output; a check that fails ends it with status 1 and one sentence.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping

from components.core.clock import Clock, SystemClock
from components.core.display import shown
from components.core.errors import StackError
from components.core.progress import Progress
from components.smoke_test.client import connect
from components.smoke_test.report import run_checks, verdict
from components.smoke_test.target import Target


def main(environment: Mapping[str, str], clock: Clock) -> int:
    """Test the endpoint of the environment; return the exit status."""
    try:
        client = connect(Target.from_environment(environment), clock)
    except (StackError, ValueError) as error:
        _to_stderr(f"the smoke test cannot begin: {error}")
        return 1
    with client.http:
        report = run_checks(client, Progress("smoke test", clock, _to_stderr))
    print(json.dumps(report, ensure_ascii=False), flush=True)  # noqa: T201  (this is the command's result)
    sentence = verdict(report)
    if sentence:
        _to_stderr(sentence)
    return 1 if sentence else 0


def _to_stderr(line: str) -> None:
    print(shown(line), file=sys.stderr, flush=True)  # noqa: T201  (a command's own output)


if __name__ == "__main__":
    sys.exit(main(os.environ, SystemClock()))
