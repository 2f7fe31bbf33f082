"""A start that went well becomes a server: its engine, its names, what the host does to it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace

from emulator.standins.host import Host
from emulator.standins.vllm.boot import Booted
from emulator.standins.vllm.engine import Engine, Speed
from emulator.standins.vllm.log import Log
from emulator.standins.vllm.metrics import Metrics
from emulator.standins.vllm.pace import speeds_of
from emulator.standins.vllm.served import Served
from emulator.standins.vllm.server import serve
from emulator.standins.vllm.settings import Settings

_OTHER_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


def serve_booted(
    host: Host,
    settings: Settings,
    booted: Booted,
    *,
    bound: socket.socket,
    set_busy: Callable[[bool], None],
    log: Log,
) -> int:
    """Serve what has booted on `bound`, and return the process's exit status.

    Raises:
        StartError: a middleware or a TLS file cannot be loaded.
    """
    host = replace(host, speed=host.serving_speed or host.speed)
    return serve(host, _served(host, settings, booted, set_busy), bound, log)


def _served(
    host: Host, settings: Settings, booted: Booted, set_busy: Callable[[bool], None]
) -> Served:
    metrics = Metrics()
    engine = Engine(
        Speed(host.speed, time.monotonic),
        metrics,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        speeds=speeds_of(
            settings.moe_backend,
            settings.compilation_config,
            settings.tensor_parallel_size,
            settings.data_parallel_size,
        ),
        engines=settings.data_parallel_size,
        kv_tokens=booted.fit.kv_tokens * settings.data_parallel_size,
        hangs=host.fault("green_but_dead") is not None,
        set_busy=set_busy,
    )
    names, root = settings.served_names, booted.root
    wrong = host.fault("wrong_model")
    if wrong is not None:
        root = str(wrong.get("model", _OTHER_MODEL))
        names = names if wrong.get("keeps_name") else (root,)
    return Served(
        settings=settings,
        shape=booted.shape,
        names=names,
        root=root,
        max_model_len=booted.fit.max_model_len,
        kv_tokens=booted.fit.kv_tokens,
        engine=engine,
        metrics=metrics,
    )
