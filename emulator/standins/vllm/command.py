"""`vllm serve …` and `vllm --version`: from the command line to the server's end."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from emulator.standins.host import Host, host_or_exit
from emulator.standins.vllm import VERSION, checks, options
from emulator.standins.vllm.boot import Boot, Booted, claim_for
from emulator.standins.vllm.engine import Engine, Speed
from emulator.standins.vllm.errors import StartError
from emulator.standins.vllm.log import API_SERVER, Log
from emulator.standins.vllm.metrics import Metrics
from emulator.standins.vllm.pace import speeds_of
from emulator.standins.vllm.served import Served
from emulator.standins.vllm.server import open_socket, serve
from emulator.standins.vllm.settings import Settings, settings_from, shown
from emulator.standins.vllm.start_times import StartTimes

IMPORT_SECONDS = 14.0
"""Emulated seconds until vLLM has imported itself and reads its command line."""

_EVERY_VERSION_KNOWS = frozenset({"config", "host", "model", "port", "served_model_name"})
_OTHER_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `vllm` with `arguments` (the process's own if None) and return its exit status."""
    host = host_or_exit("vllm", os.environ)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["--version"], ["-v"]):
        print(VERSION)  # noqa: T201  (the command's own output)
        return 0
    host.wait(IMPORT_SECONDS)
    log = Log()
    try:
        parsed = options.parse(words)
        _check_command(parsed.subparser)
        _refuse_flag_if_faulty(host, list(parsed.given))
        settings = settings_from(parsed, os.environ)
        checks.check_line(settings)
    except options.UsageError as error:
        log.failure(StartError(str(error)))
        return 1
    except StartError as error:
        log.failure(error)
        return 1
    return _serve(host, settings, shown(parsed), os.environ)


def _serve(
    host: Host, settings: Settings, spoken: Mapping[str, object], environ: Mapping[str, str]
) -> int:
    log = Log(
        tensor_parallel_size=settings.tensor_parallel_size,
        data_parallel_size=settings.data_parallel_size,
        api_servers=settings.api_servers,
    )
    claim = claim_for(host, settings)
    bound: socket.socket | None = None
    try:
        host.wait(StartTimes.imports)
        logo = environ.get("VLLM_DISABLE_LOG_LOGO") not in ("1", "true")
        log.banner(VERSION, settings.model, logo=logo)
        log.info(API_SERVER, "api_utils.py:286", f"non-default args: {spoken}")
        checks.check_tool_parser(settings)
        bound = open_socket(host, settings)
        boot = Boot(host, settings, log=log, claim=claim, environ=environ, monotonic=time.monotonic)
        booted = boot.run()
        served = _served(host, settings, booted, claim.set_busy)
        return serve(host, served, bound, log)
    except StartError as error:
        log.failure(error)
        return 1
    finally:
        claim.release()
        if bound is not None:
            bound.close()


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


def _check_command(name: str | None) -> None:
    if name != "serve":
        raise StartError(
            f"NotImplementedError: the emulator's stand-in knows `vllm serve`, not `vllm {name}`"
        )


def _refuse_flag_if_faulty(host: Host, given: Sequence[str]) -> None:
    """The fault bad_flag: this image's vLLM does not know one of the options."""
    fault = host.fault("bad_flag")
    if fault is None:
        return
    telling = [name for name in given if name not in _EVERY_VERSION_KNOWS]
    name = telling[-1] if telling else "reasoning_parser"
    options.refuse_flag(str(fault.get("flag", "--" + name.replace("_", "-"))))
