"""A real Prometheus asks a stack with the files of `make dashboard`: machines, router, exporter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from components.core.clock import SystemClock
from components.tls.certificates import machine_name
from tests.emulator.standins.support import QWEN
from tests.helpers.fleets import CONTRACT
from tests.helpers.metered import OF_THE_STACK, STACK_KEY, of_machine
from tests.helpers.polling import eventually
from tests.helpers.watched_stack import AIMS, CHAT, Watched, get, watched
from toolchain.day_two.dashboard import picture
from toolchain.day_two.dashboard.panels import Panel, panels
from toolchain.day_two.dashboard.rules import rules

EVERY = 0.25
"""Seconds between two looks: Prometheus scrapes once a second."""


def has_data(world: Watched, panel: Panel) -> bool:
    """Whether each query of a panel gives numbers; a quantile of nothing is none."""
    return all(
        any(series["value"][1] != "NaN" for series in world.query(query.expression))
        for query in panel.queries
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("watched")) as one:
        yield one


def test_every_target_is_up_and_every_panel_has_data(world):
    with world.router.client() as client:

        def all_have_data() -> bool:
            # Rates need requests between two scrapes.
            answer = client.post("/v1/chat/completions", json={"model": QWEN, **CHAT})
            assert answer.status_code == 200, answer.text
            return all(has_data(world, panel) for panel in panels("old", has_router=True))

        eventually(all_have_data, every=EVERY)
    up = {one["metric"]["role"]: one["value"][1] for one in world.query("up")}
    assert up == {"machine": "1", "router": "1", "stack": "1"}


def test_the_rules_are_loaded_and_none_fires(world):
    (group,) = world.ask("rules")["groups"]
    assert [one["name"] for one in group["rules"]] == [one.name for one in rules("old", AIMS)]
    eventually(
        lambda: {one["health"] for one in world.ask("rules")["groups"][0]["rules"]} == {"ok"},
        every=EVERY,
    )
    assert world.ask("alerts")["alerts"] == []


def test_of_a_machine_its_own_metrics_alone_are_kept(world):
    names = {one["metric"]["__name__"] for one in world.query('{role="machine"}')}
    own = {one for one in names if not one.startswith(("scrape_", "up"))}
    assert own
    assert all(one.startswith("vllm:") for one in own)


def test_no_key_is_in_what_prometheus_shows(world):
    shown = get(f"{world.url}/api/v1/status/config").text
    shown += get(f"{world.url}/api/v1/targets").text
    shown += world.log.read_text()
    for key in (OF_THE_STACK, of_machine(), STACK_KEY):
        assert key not in shown


def test_the_picture_has_every_panel_with_its_lines(world, tmp_path):
    file = tmp_path / "panels.svg"
    picture.draw(world.url, "old", 1.0, file, SystemClock())
    drawn = file.read_text()
    # Matplotlib draws letters as shapes, and keeps each text as a comment.
    for panel in panels("old", has_router=True):
        assert f"<!-- {panel.title}" in drawn
    assert "<!-- machine 0 -->" in drawn
    with pytest.raises(picture.NoAnswer, match="has no series of the stack another"):
        picture.draw(world.url, "another", 1.0, file, SystemClock())


def test_a_machine_under_another_name_is_not_believed(world):
    """As the authority has signed it, a sibling's certificate is valid; its name is not."""
    file = (world.folder / "prometheus.yml").read_text()
    name = machine_name(CONTRACT)
    assert f"server_name: {name}\n" in file
    world.change("prometheus.yml", file.replace(name, machine_name(CONTRACT + 1)))
    eventually(lambda: world.machine()[0] == "down", every=EVERY)
    assert "certificate is valid for" in world.machine()[1]
    world.change("prometheus.yml", file)
    eventually(lambda: world.machine()[0] == "up", every=EVERY)


def test_a_key_that_has_changed_is_read_at_the_next_scrape(world):
    (file,) = world.folder.glob("machine-*.key")
    key = file.read_text()
    for wrong in (STACK_KEY, OF_THE_STACK):
        file.write_text(wrong)
        eventually(lambda: world.machine()[0] == "down", every=EVERY)
        assert "401" in world.machine()[1]
        file.write_text(key)
        eventually(lambda: world.machine()[0] == "up", every=EVERY)
