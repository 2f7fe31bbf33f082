"""`vllm serve …` and `vllm --version`: from the command line to the server's end."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence

from emulator.standins import rehearsal
from emulator.standins.host import Host, host_or_exit
from emulator.standins.vllm import VERSION, checks, options
from emulator.standins.vllm.boot import Boot, claim_for
from emulator.standins.vllm.errors import StartError
from emulator.standins.vllm.log import API_SERVER, Log
from emulator.standins.vllm.settings import Settings, settings_from, shown
from emulator.standins.vllm.start_times import StartTimes

_EVERY_VERSION_KNOWS = frozenset(
    {
        *("config", "host", "load_format", "model", "port", "served_model_name"),
        *("ssl_certfile", "ssl_keyfile"),
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `vllm` with `arguments` (the process's own if None) and return its exit status."""
    host = host_or_exit("vllm", os.environ)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["--version"], ["-v"]):
        print(VERSION)  # noqa: T201  (the command's own output)
        return 0
    host.wait(StartTimes.imports)
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
    if settings.is_rehearsal:
        rehearsal.note(host, os.getpid())
    bound: socket.socket | None = None
    try:
        host.wait(StartTimes.banner)
        logo = environ.get("VLLM_DISABLE_LOG_LOGO") not in ("1", "true")
        log.banner(VERSION, settings.model, logo=logo)
        log.info(API_SERVER, "api_utils.py:286", f"non-default args: {spoken}")
        checks.check_tool_parser(settings)
        bound = _open_socket(host, settings)
        boot = Boot(host, settings, log=log, claim=claim, environ=environ, monotonic=time.monotonic)
        booted = boot.run()
        # What serves takes longer to load than all the rest, and many a start fails before.
        from emulator.standins.vllm.serving import serve_booted  # noqa: PLC0415

        return serve_booted(host, settings, booted, bound=bound, set_busy=claim.set_busy, log=log)
    except StartError as error:
        log.failure(error)
        return 1
    finally:
        claim.release()
        if bound is not None:
            bound.close()


def _open_socket(host: Host, settings: Settings) -> socket.socket:
    """Bind the server's port; it does not listen yet, so clients are refused until it serves.

    Raises:
        StartError: the port is taken, or the address is none of this host.
    """
    address = host.bind_address(settings.host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; 40 ms a call otherwise.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address, settings.port))
    except OSError as error:
        bound.close()
        raise StartError(f"OSError: [Errno {error.errno}] {error.strerror}") from error
    return bound


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
