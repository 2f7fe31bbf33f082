"""What a rehearsal beside the download does to a wait: it ends it by a named cause, or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import StackError
from components.vllm.readiness.log_patterns import SERVER
from components.vllm.readiness.rehearsal import NAMED, NCCL_SECONDS
from components.vllm.readiness.wait import NotReadyHost, NotReadyMisconfigured
from tests.helpers.readiness_scene import KV_TOO_SMALL, Scene

LOG = "rehearsal.log"
START = "== supervise.sh: server start 2026-11-28T04:15:19Z\n"
NCCL = "(Worker_TP0 pid=9) INFO 11-28 04:16:00 [pynccl.py:113] vLLM is using nccl==2.28.9\n"
OUT_OF_MEMORY = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
    "capacity of 139.80 GiB of which 1.00 GiB is free.\n"
)


def rehearsing(*lines: tuple[float, str], failed_at: float | None = None) -> Scene:
    """A download until second 200, and a rehearsal from second 20 on."""
    scene = Scene()
    scene.host.statuses.append((20, {"rehearsal": "running"}))
    if failed_at is not None:
        scene.host.statuses.append((failed_at, {"rehearsal": "failed"}))
    scene.host.statuses.sort(key=lambda status: status[0])
    scene.host.logs[LOG] = [(20, START), *lines]
    return scene


@pytest.mark.parametrize(
    ("line", "cause", "kind"),
    [
        ("vllm serve: error: unrecognized arguments: --x\n", "unknown_option", "configuration"),
        (f"{KV_TOO_SMALL}\n", "kv_too_small", "configuration"),
        (OUT_OF_MEMORY, "gpu_out_of_memory", "configuration"),
        (
            (
                "  Value error, Model architectures ['NewForCausalLM'] are not supported for now. "
                "Supported architectures: dict_keys(['LlamaForCausalLM'])\n"
            ),
            "model_class_missing",
            "configuration",
        ),
        (
            (
                "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda "
                "functions before calling NumCudaDevices() that might have already set an error? "
                "Error 802: system not yet initialized\n"
            ),
            "cuda_does_not_start",
            "host",
        ),
        ("RuntimeError: NCCL error: unhandled system error\n", "nccl_failed", "host"),
        ("  Value error, swap-space is negative\n", "configuration_refused", "configuration"),
    ],
)
def test_a_named_cause_ends_the_start_at_once(line: str, cause: str, kind: str) -> None:
    scene = rehearsing((60, line))

    error = scene.fails()

    assert error.cause == cause
    assert isinstance(error, NotReadyHost if kind == "host" else NotReadyMisconfigured)
    assert 60 <= scene.clock.passed < 75
    assert "found early, by a rehearsal beside the download" in str(error)
    assert error.log_tail[-1].strip() == line.strip()[:500]


@pytest.mark.parametrize("failed_at", [None, 61.0])
@pytest.mark.parametrize(
    "line",
    [
        "ValueError: nobody has seen this\n",
        "OSError: [Errno 28] No space left on device\n",
        "OSError: [Errno 98] Address already in use\n",
        "RuntimeError: CUDA error: an illegal memory access was encountered\n",
        "huggingface_hub.errors.LocalEntryNotFoundError: offline\n",
        "Worker proc VllmWorker-0 died unexpectedly (exit code: -9)\n",
        "RuntimeError: Engine core initialization failed. See root cause above.\n",
        "  Value error, load format dummy does not go with this quantization\n",
        "  Value error, Can't load the configuration of 'org/head'\n",
    ],
)
def test_anything_else_is_one_line_and_the_download_goes_on(
    line: str, failed_at: float | None
) -> None:
    scene = rehearsing((60, line), failed_at=failed_at)

    report = scene.wait()

    assert report.seconds["download"] == pytest.approx(201, abs=3)
    told = [one for one in scene.lines if "the download goes on" in one]
    assert len(told) == (0 if failed_at is None else 1)


def test_ranks_that_do_not_find_each_other_are_the_hosts_fault() -> None:
    scene = rehearsing((30, NCCL))
    scene.host.downloaded = lambda now: now * 0.1e9

    error = scene.fails()

    assert error.cause == "nccl_hang"
    assert isinstance(error, NotReadyHost)
    assert scene.clock.passed == pytest.approx(30 + NCCL_SECONDS, abs=10)


def test_ranks_that_go_on_are_left_alone() -> None:
    scene = rehearsing(
        (30, NCCL),
        (140, "(Worker_TP0 pid=9) INFO 11-28 04:17:00 [x.py:1] Starting to load model m...\n"),
    )

    assert scene.wait().seconds["download"] == pytest.approx(201, abs=3)


def test_what_its_log_says_of_its_end_is_no_failure() -> None:
    scene = rehearsing(
        (60, "INFO:     Application startup complete.\n"), (61, f"{OUT_OF_MEMORY}{KV_TOO_SMALL}\n")
    )
    scene.host.statuses.insert(2, (65, {"rehearsal": "served"}))

    scene.wait()

    assert "the rehearsal served: it found nothing wrong with options, memory and GPUs" in (
        scene.lines
    )


def test_it_says_nothing_once_the_server_was_started() -> None:
    scene = rehearsing((199.5, "vllm serve: error: unrecognized arguments: --x\n"))
    scene.host.statuses.insert(2, (199, {"phase": "serving"}))
    scene.host.downloaded = lambda now: min(now, 199) / 199 * 121e9

    scene.wait()


def test_memory_that_does_not_come_back_is_the_hosts_fault() -> None:
    scene = rehearsing()
    scene.gives_up(100, reason="rehearsal_memory", rehearsal="ended")

    error = scene.fails()

    assert error.cause == "rehearsal_memory"
    assert isinstance(error, NotReadyHost)


def test_every_named_cause_is_a_pattern() -> None:
    assert NAMED - {"nccl_hang"} <= {pattern.name for pattern in SERVER}


def outcome(scene: Scene) -> tuple[str, float]:
    try:
        scene.wait()
    except StackError as error:
        return getattr(error, "cause", type(error).__name__), scene.clock.passed
    return "ready", scene.clock.passed


LINES = st.lists(
    st.tuples(
        st.floats(20, 500),
        st.one_of(
            st.text(max_size=80),
            st.sampled_from(
                [
                    START,
                    NCCL,
                    OUT_OF_MEMORY,
                    f"{KV_TOO_SMALL}\n",
                    "INFO:     Application startup complete.\n",
                    "No space left on device\n",
                    "EngineCore failed to start\n",
                    "vllm: error: unrecognized arguments: --x\n",
                    "RuntimeError: CUDA error: unspecified launch failure\n",
                ]
            ),
        ),
    ),
    max_size=8,
)


@given(
    lines=LINES,
    courses=st.lists(
        st.tuples(
            st.floats(0, 500),
            st.sampled_from(["waiting", "running", "served", "ended", "skipped", "failed", ""]),
        ),
        max_size=5,
    ),
)
def test_a_rehearsals_log_changes_no_outcome_but_by_a_named_cause(
    lines: list[tuple[float, str]], courses: list[tuple[float, str]]
) -> None:
    scene = Scene()
    scene.host.logs[LOG] = sorted(lines, key=lambda line: line[0])
    statuses = [(at, {"rehearsal": course}) for at, course in courses]
    scene.host.statuses = sorted([*scene.host.statuses, *statuses], key=lambda status: status[0])
    alone = outcome(Scene())

    cause, passed = outcome(scene)

    assert (cause, passed) == alone or (cause in NAMED and passed < alone[1])
    assert cause not in NAMED or scene.host.status()["phase"] == "prefetch"
