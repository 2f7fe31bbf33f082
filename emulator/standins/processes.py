"""Whether a process of a container runs: its number alone may be that of a later one."""

from __future__ import annotations


def born(pid: int) -> float:
    """Return when process `pid` was started: with its number it is this process alone."""
    import psutil  # noqa: PLC0415  (a third of what `nvidia-smi` loads, where nothing runs)

    return psutil.Process(pid).create_time()


def is_alive(pid: int, born_at: float) -> bool:
    """Say whether it still runs; one that ended and was not collected does not."""
    import psutil  # noqa: PLC0415  (the same)

    try:
        process = psutil.Process(pid)
        return process.create_time() == born_at and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
