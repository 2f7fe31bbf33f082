"""A server that is held to the Hub's commits and files: by its resource."""

from __future__ import annotations

from typing import Any

import pytest

from components.resources.server import ServerProvider
from components.vllm.server_state import READY
from tests.helpers.server_scene import (
    COMMIT,
    MODEL,
    OTHER_COMMIT,
    Scene,
    first_start_fails,
    inputs,
    own_scene,
)

scene = own_scene()


# --------------------------------------------------------------------------- the Hub's commits

AT_HUB = [{"name": "weights", "bytes": 5, "digest": "sha256:" + "0" * 64}]
LISTED = f"5 {'0' * 64} weights\n"
OF_THE_HUB: dict[str, Any] = {
    "model_env": "FILES='weights*'\nMODEL=org/model\nREVISION=main\n",
    "serve_yaml": "model: org/model\nrevision: main\n",
    "commits": {MODEL: COMMIT},
    "hub_files": {MODEL: AT_HUB},
}


def of_the_hub(scene: Scene) -> None:
    """Bring up a server that is held to the Hub."""
    scene.host.listed = LISTED
    scene.olds = ServerProvider().create(inputs(**OF_THE_HUB)).outs or {}
    scene.host.restarts.clear()


def test_a_host_is_told_the_hubs_commit_and_held_to_it(scene: Scene) -> None:
    of_the_hub(scene)
    assert scene.host.files["model.env"].endswith(f"REVISION={COMMIT}\n")
    assert scene.host.files["serve.yaml"] == f"model: org/model\nrevision: {COMMIT}\n"
    assert scene.olds["files_compared"] == [MODEL]
    assert scene.olds["files"] == AT_HUB
    assert scene.refresh() == READY
    assert not ServerProvider().diff("x", scene.olds, inputs(**OF_THE_HUB)).changes


def test_a_host_that_names_another_commit_at_its_first_start_is_marked(scene: Scene) -> None:
    scene.host.resolved = OTHER_COMMIT
    said = first_start_fails(scene, **OF_THE_HUB)
    assert f"the host names commit {OTHER_COMMIT} of {MODEL}, and had to fetch {COMMIT}" in said
    assert "instance 7 is marked unfit" in said
    assert scene.marks == ["other_weights"]
    assert scene.endpoint.asked == []


def test_a_host_that_names_another_commit_later_is_found_and_marked(scene: Scene) -> None:
    of_the_hub(scene)
    scene.host.resolved = OTHER_COMMIT
    assert f"the host names commit {OTHER_COMMIT}" in scene.refresh()
    assert ServerProvider().diff("x", scene.olds, inputs(**OF_THE_HUB)).changes
    error = scene.fails(**OF_THE_HUB)
    assert f"the host names commit {OTHER_COMMIT}" in str(error)
    assert scene.marks == ["other_weights"]
    assert scene.host.restarts == []


def test_a_change_on_a_host_that_names_another_commit_is_not_undone_but_ended(scene: Scene) -> None:
    of_the_hub(scene)
    scene.host.resolved = OTHER_COMMIT
    changed = f"{OF_THE_HUB['serve_yaml']}max-num-seqs: 8\n"
    error = scene.fails(**{**OF_THE_HUB, "serve_yaml": changed})
    assert f"the host names commit {OTHER_COMMIT}" in str(error)
    assert scene.marks == ["other_weights"]
    assert len(scene.host.restarts) == 1


@pytest.mark.parametrize(
    "listed", ["", f"6 {'0' * 64} weights\n", f"5 {'1' * 64} weights\n", f"{LISTED}1 {COMMIT} x\n"]
)
def test_a_host_with_other_files_than_the_hub_is_marked(scene: Scene, listed: str) -> None:
    scene.host.listed = listed
    assert "is marked unfit" in first_start_fails(scene, **OF_THE_HUB)
    assert scene.marks == ["other_weights"]


def test_files_that_the_hub_did_not_list_are_a_claim(scene: Scene) -> None:
    scene.host.listed = LISTED
    outs = ServerProvider().create(inputs(**{**OF_THE_HUB, "hub_files": {}})).outs or {}
    assert outs["files_compared"] == []
    assert outs["files"] == AT_HUB


def of_an_older_release(scene: Scene) -> None:
    """Bring up a server that was told a branch, as releases before this one did."""
    older = {key: OF_THE_HUB[key] for key in ("model_env", "serve_yaml")}
    scene.host.listed = LISTED
    scene.olds = ServerProvider().create(inputs(**older)).outs or {}
    scene.host.restarts.clear()


def test_what_an_older_release_serves_is_checked_without_a_restart(scene: Scene) -> None:
    of_an_older_release(scene)
    said: list[str] = []
    scene.hears = said.append
    assert ServerProvider().diff("x", scene.olds, inputs(**OF_THE_HUB)).changes
    assert any("restarts on the same host only if it runs others" in line for line in said)

    outs = scene.update(**OF_THE_HUB)
    assert scene.host.restarts == []
    assert outs["files_compared"] == [MODEL]
    assert not ServerProvider().diff("x", outs, inputs(**OF_THE_HUB)).changes


def test_an_older_host_that_lists_no_files_is_not_blamed(scene: Scene) -> None:
    of_an_older_release(scene)
    scene.host.listed = ""
    assert scene.update(**OF_THE_HUB)["files_compared"] == []
    assert scene.marks == []


def test_another_commit_than_the_hubs_in_a_state_is_served_no_more(scene: Scene) -> None:
    """A host's previous word may be a lie, or a branch may have moved: the Hub's is taken."""
    of_an_older_release(scene)
    scene.olds["model_revision"] = OTHER_COMMIT
    scene.host.resolved = OTHER_COMMIT
    said: list[str] = []
    scene.hears = said.append
    ServerProvider().diff("x", scene.olds, inputs(**OF_THE_HUB))
    assert any("other commits than it runs: those of the Hub" in line for line in said)

    def fetched(doing: str) -> bool:
        scene.host.resolved = COMMIT if doing.endswith("restart") else scene.host.resolved
        return False

    scene.host.breaks_at = fetched
    assert scene.update(**OF_THE_HUB)["model_revision"] == COMMIT
    assert scene.host.restarts == [f"model: org/model\nrevision: {COMMIT}\n"]
    assert scene.marks == []


def test_naming_the_commit_that_is_served_says_and_restarts_nothing(scene: Scene) -> None:
    of_the_hub(scene)
    named = {
        **OF_THE_HUB,
        "model_env": OF_THE_HUB["model_env"].replace("main", COMMIT),
        "serve_yaml": OF_THE_HUB["serve_yaml"].replace("main", COMMIT),
    }
    said: list[str] = []
    scene.hears = said.append
    ServerProvider().diff("x", scene.olds, inputs(**named))
    assert said == []
    scene.update(**named)
    assert scene.host.restarts == []


def test_the_files_of_a_companion_are_compared_too(scene: Scene) -> None:
    head = "org/head"
    told = {
        **OF_THE_HUB,
        "model_env": f"COMPANIONS='{head} main *'\n{OF_THE_HUB['model_env']}",
        "commits": {MODEL: COMMIT, head: COMMIT},
        "hub_files": {MODEL: AT_HUB, head: AT_HUB},
    }
    scene.host.listed = LISTED
    assert f"weights is at the Hub and not on the host ({head}" in first_start_fails(scene, **told)
    assert scene.marks == ["other_weights"]
