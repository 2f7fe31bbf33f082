"""How a start went, as the wait hands it over: its stages, its rehearsal, its failure."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.progress import Progress
from components.vllm.errors import ServerFailed
from components.vllm.readiness.course import COURSES, Course, RehearsalWatch
from components.vllm.readiness.wait import wait_until_ready
from tests.helpers.readiness_scene import RUNNING, Scene

REHEARSAL: list[tuple[float, str]] = [
    (20, "== supervise.sh: server start 2026-11-23T09:00:00Z\n"),
    (25, "INFO 11-23 09:00:05 [x.py:1] vLLM server version 0.33.0, serving model m\n"),
    (60, "INFO 11-23 09:00:40 [x.py:1] Starting to load model m...\n"),
]


def wait(scene):
    seen: list[Course] = []
    progress = Progress("server", scene.clock, lambda _: None)
    began = scene.clock.epoch()
    with contextlib.suppress(ServerFailed):
        wait_until_ready(
            scene.host, scene.endpoint, scene.plan, scene.clock, progress, note=seen.append
        )
    return seen, began


def test_a_start_that_came_up_is_noted_with_its_stages_in_the_order_of_time():
    (course,), began = wait(scene := Scene())
    assert course.began_at == pytest.approx(began)
    names = list(course.seconds)
    assert names == [
        "download",
        "load",
        "compile",
        "graphs",
        "server",
        "model",
        "completion",
        "refusals",
    ]
    assert sum(course.seconds.values()) == pytest.approx(scene.clock.passed, abs=5)
    assert course.seconds["download"] == pytest.approx(200, abs=5)
    assert (course.rehearsal, course.failed_in, course.cause) == (None, "", "")


def test_a_rehearsal_has_its_own_beginning_and_end_beside_the_download():
    scene = Scene()
    scene.host.statuses += [(20, {"rehearsal": "running"}), (150, {"rehearsal": "served"})]
    scene.host.statuses.sort(key=lambda entry: entry[0])
    scene.host.logs["rehearsal.log"] = REHEARSAL
    (course,), _ = wait(scene)
    assert course.rehearsal.course == "served"
    assert course.rehearsal.began == pytest.approx(20, abs=5)
    assert course.rehearsal.ended == pytest.approx(150, abs=5)
    assert course.rehearsal.stages == {"starting": 0.0, "config": 5.0, "load": 40.0}


def test_a_start_that_failed_is_noted_with_its_stage_and_cause():
    scene = Scene()
    scene.host.statuses = [(0, {**RUNNING, "supervisor": "gave_up", "phase": "serving"})]
    (course,), _ = wait(scene)
    assert course.failed_in
    assert course.cause


def test_a_server_that_ran_already_was_not_started():
    scene = Scene()
    scene.change(served_before=True)
    assert wait(scene)[0] == []


@given(st.lists(st.text(max_size=8) | st.sampled_from(sorted(COURSES)), max_size=12))
def test_no_word_of_a_host_is_noted_that_is_not_known(words):
    watch = RehearsalWatch(0.0)
    for moment, word in enumerate(words):
        watch.look(float(moment), word)
    seen = watch.seen({})
    known = [word for word in words if word in COURSES]
    assert (seen is None) is (not known)
    if seen:
        assert seen.course == known[-1]
        assert (seen.began is None) is ("running" not in known)
        assert seen.ended is None or seen.ended >= (seen.began or 0.0)
