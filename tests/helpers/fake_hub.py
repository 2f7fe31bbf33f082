"""The Hub as its client shows it: the fake of `HubClient`.

`tests/unit/vllm/test_hub_contract.py` holds it to what the client does.
"""

from __future__ import annotations

from components.vllm.hub_references import (
    HubFile,
    HubRefuses,
    HubUnavailable,
    Reference,
    Snapshot,
)

REPOSITORY = "org/model"


class FakeHub:
    """A Hub with one repository, whose branch `main` is where a test says."""

    def __init__(self, *commits: str, files: tuple[HubFile, ...] = ()) -> None:
        """Know these commits; `main` is the first of them."""
        self.commits = commits
        self.main = commits[0]
        self.files = files
        self.is_gated = False
        self.is_down = False
        self.asked: list[tuple[str, str]] = []
        """Revision and token."""

    def snapshot(self, reference: Reference, token: str = "") -> Snapshot:
        self.asked.append((reference.revision, token))
        if self.is_down:
            raise HubUnavailable("the Hub is down")
        if reference.repository != REPOSITORY:
            raise HubRefuses(f"the Hub has no {reference.repository}")
        commit = self.main if reference.revision == "main" else reference.revision
        if commit not in self.commits:
            raise HubRefuses(f"the Hub has no {reference.revision!r} of {REPOSITORY}")
        if self.is_gated and not token:
            raise HubRefuses(f"the Hub does not give {REPOSITORY} to anybody without a token")
        return Snapshot(commit, self.files, is_closed=self.is_gated)
