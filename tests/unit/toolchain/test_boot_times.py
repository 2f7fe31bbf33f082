"""The table of a boot's stages shows a rehearsal beside the download."""

from __future__ import annotations

from pathlib import Path

from toolchain.boot_times import read, table, with_rehearsals

LOG = """== supervise.sh: server start 2026-11-28T{at}Z
INFO 11-28 {at} [x.py:1] vLLM server version 0.32.0
INFO 11-28 {at} [x.py:1] Using max model len 131072
"""


def written(folder: Path, name: str, at: str) -> Path:
    path = folder / name
    path.write_text(LOG.format(at=at))
    return path


def shown(*paths: Path) -> list[str]:
    logs = {str(path): read(path) for path in with_rehearsals(paths)}
    return table(logs).splitlines()


def test_a_rehearsal_is_shown_with_its_time_beside_the_download(tmp_path: Path) -> None:
    written(tmp_path, "rehearsal.log", "04:00:00")
    server = written(tmp_path, "vllm.log", "04:16:30")

    lines = shown(server)

    assert lines[0] == "| stage, s | rehearsal | vllm |"
    assert lines[2] == "| beside the download | 990 | - |"


def test_without_one_the_table_has_the_stages_alone(tmp_path: Path) -> None:
    lines = shown(written(tmp_path, "vllm.log", "04:16:30"))

    assert lines[0] == "| stage, s | vllm |"
    assert not any("beside" in line for line in lines)
