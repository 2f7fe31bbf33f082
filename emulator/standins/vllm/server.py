"""The HTTP server around the routes: sockets, TLS, statistics in the log, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.routing import Route

from emulator.standins.host import Host
from emulator.standins.vllm.app import build_app
from emulator.standins.vllm.errors import StartError
from emulator.standins.vllm.guard import RootPath
from emulator.standins.vllm.log import API_SERVER, ENGINE, Log
from emulator.standins.vllm.served import Served

_STATISTICS_SECONDS = 10.0
_WATCH_SECONDS = 0.25
_ABORT_SECONDS = 0.2
_DEATH_SECONDS = 5.0
"""Emulated seconds between the engine's death and the API server's own end."""


def serve(host: Host, served: Served, bound: socket.socket, log: Log) -> int:
    """Serve until a signal or the engine's death, and return the process's exit status.

    Raises:
        StartError: a middleware or a TLS file cannot be loaded.
    """
    return asyncio.run(_Serving(host, served, bound, log).run())


class _Server(uvicorn.Server):
    """uvicorn without its own signals: what a signal means is decided here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Serving:
    def __init__(self, host: Host, served: Served, bound: socket.socket, log: Log) -> None:
        self._host = host
        self._served = served
        self._settings = served.settings
        self._bound = bound
        self._log = log
        self._app = build_app(served)
        self._config = self._configured()
        self._server = _Server(self._config)
        self._stopping = False
        self._status = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        self._announce()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: self._begin(self._stop()))
        self._begin(self._write_statistics())
        if self._settings.enable_ssl_refresh and self._config.ssl is not None:
            self._begin(self._refresh_certificate(self._config.ssl))
        fault = self._host.fault("crash_loop")
        if fault is not None and "after" in fault:
            self._begin(self._die(float(fault["after"])))
        await self._server.serve(sockets=[self._bound])
        for task in self._tasks:
            task.cancel()
        return self._status

    def _begin(self, work: object) -> None:
        if asyncio.iscoroutine(work):
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _configured(self) -> uvicorn.Config:
        settings = self._settings
        config = uvicorn.Config(
            RootPath(self._app, settings.root_path),
            log_level=settings.uvicorn_log_level,
            access_log=not settings.disable_uvicorn_access_log,
            ssl_keyfile=settings.ssl_keyfile,
            ssl_certfile=settings.ssl_certfile,
            ssl_ca_certs=settings.ssl_ca_certs,
            ssl_cert_reqs=settings.ssl_cert_reqs,
            timeout_keep_alive=5,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise StartError(f"{type(error).__name__}: {error}") from error
        quiet = {name for name in settings.quiet_endpoints if name}
        if quiet:
            logging.getLogger("uvicorn.access").addFilter(_Quiet(quiet))
        return config

    def _announce(self) -> None:
        settings = self._settings
        scheme = "https" if self._config.ssl else "http"
        where = f"{settings.host or '0.0.0.0'}:{settings.port}"  # noqa: S104  (said, not bound)
        self._log.info(API_SERVER, "entry.py:136", "Supported tasks: ['generate']")
        if settings.enable_auto_tool_choice:
            self._log.info(
                API_SERVER, "parser_manager.py:38", '"auto" tool choice has been enabled.'
            )
        self._log.info(API_SERVER, "entry.py:140", f"Starting vLLM server on {scheme}://{where}")
        self._log.info(API_SERVER, "launcher.py:186", "Available routes are:")
        for route in self._app.routes:
            if isinstance(route, Route) and route.methods:
                methods = ", ".join(sorted(route.methods - {"HEAD"}))
                self._log.info(
                    API_SERVER, "launcher.py:195", f"Route: {route.path}, Methods: {methods}"
                )

    # ------------------------------------------------------------------ while it serves

    async def _write_statistics(self) -> None:
        metrics = self._served.metrics
        prompt, generated, active = 0, 0, False
        while not self._settings.disable_log_stats:
            await asyncio.sleep(_STATISTICS_SECONDS / self._host.speed)
            new_prompt = metrics.prompt_tokens - prompt
            new_generated = metrics.generation_tokens - generated
            busy = bool(new_prompt or new_generated or metrics.running)
            if busy or active:
                self._log.info(
                    API_SERVER,
                    "loggers.py:335",
                    "Engine 000: Avg prompt throughput: "
                    f"{new_prompt / _STATISTICS_SECONDS:.1f} tokens/s, Avg generation throughput: "
                    f"{new_generated / _STATISTICS_SECONDS:.1f} tokens/s, "
                    f"Running: {metrics.running} reqs, Waiting: {metrics.waiting} reqs, "
                    f"GPU KV cache usage: {max(0.0, metrics.kv_cache_usage):.1%}",
                )
            active = busy
            prompt, generated = metrics.prompt_tokens, metrics.generation_tokens

    async def _refresh_certificate(self, context: ssl.SSLContext) -> None:
        keyfile, certfile = self._settings.ssl_keyfile, self._settings.ssl_certfile
        if certfile is None:
            return
        files = [name for name in (keyfile, certfile) if name]
        self._log.info(API_SERVER, "ssl.py:60", f"SSLCertRefresher monitors files: {files}")
        watch = FileWatch(files)
        clients = self._settings.ssl_ca_certs
        authorities = FileWatch([clients]) if clients else None
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if authorities and authorities.has_changed():
                # Only ever more of them: what a context has loaded, it keeps.
                context.load_verify_locations(self._settings.ssl_ca_certs)
                self._log.info(API_SERVER, "ssl.py:50", "Reloading SSL CA certificates")
            if not watch.has_changed():
                continue
            try:
                context.load_cert_chain(certfile, keyfile)
            except (OSError, ssl.SSLError) as error:
                text = f"Failed to reload SSL certificate: {error}"
                self._log.error(API_SERVER, "ssl.py:44", text)
                continue
            self._log.info(API_SERVER, "ssl.py:40", "Reloading SSL certificate chain")

    # ------------------------------------------------------------------ how it ends

    async def _stop(self) -> None:
        if self._stopping:
            self._server.force_exit = True
            return
        self._stopping = True
        seconds = self._settings.shutdown_timeout
        mode = f"mode={'drain' if seconds else 'abort'} timeout={seconds}s"
        log = self._log
        log.info(API_SERVER, "launcher.py:254", "[shutdown] API server: shutdown triggered")
        log.info(
            API_SERVER,
            "launcher.py:270",
            f"[shutdown] API server: stopping engine client {mode}",
        )
        log.info(ENGINE, "core.py:1454", "[shutdown] EngineCore: trigger received signal=SIGTERM")
        log.info(ENGINE, "core.py:1635", f"[shutdown] EngineCore: start {mode}")
        self._served.engine.draining = True
        # Several API servers drop their connections to the engines before anything could end.
        if self._settings.api_servers > 1 or not await self._drain(seconds):
            # What still runs is aborted: its clients are told so, not left without a word.
            self._served.engine.dead = True
            await asyncio.sleep(_ABORT_SECONDS)
        log.info(
            ENGINE,
            "core.py:1666",
            "[shutdown] EngineCore: request processing complete; starting resource teardown",
        )
        log.info(API_SERVER, "launcher.py:279", "[shutdown] API server: engine client stopped")
        log.info(
            API_SERVER,
            "launcher.py:304",
            "[shutdown] API server: shutting down FastAPI HTTP server",
        )
        self._server.force_exit = self._served.engine.in_flight > 0
        self._server.should_exit = True

    async def _drain(self, seconds: int) -> bool:
        running = self._served.engine.in_flight
        if running and seconds:
            self._log.info(
                ENGINE,
                "core.py:1655",
                f"[shutdown] EngineCore: draining in-flight requests count={running} "
                f"timeout={seconds}s",
            )
        return await self._served.engine.until_idle(seconds) if running else True

    async def _die(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._host.speed)
        self._served.engine.dead = True
        self._log.error(ENGINE, "core.py:1522", "EngineCore encountered a fatal error.")
        self._log.error(
            API_SERVER,
            "async_llm.py:906",
            "AsyncLLM output_handler failed.\nTraceback (most recent call last):\n"
            "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. "
            "See stack trace (above) for the root cause.",
        )
        await asyncio.sleep(_DEATH_SECONDS / self._host.speed)
        self._status = 1
        self._server.force_exit = True
        self._server.should_exit = True


class _Quiet(logging.Filter):
    """Keeps requests to some paths out of the access log."""

    def __init__(self, paths: set[str]) -> None:
        super().__init__()
        self._paths = paths

    def filter(self, record: logging.LogRecord) -> bool:
        if not isinstance(record.args, tuple) or len(record.args) < 3:  # noqa: PLR2004  (the path)
            return True
        return urlsplit(str(record.args[2])).path not in self._paths


class FileWatch:
    """Sees what vLLM's watcher sees: it follows files, not names.

    Of what takes a file's place it sees the moment at which it does, and nothing after that.
    """

    def __init__(self, names: list[str]) -> None:
        self._files = {name: _file(name) for name in names}
        self._seen = {name: _changed_at(name) for name in names}

    def has_changed(self) -> bool:
        """Whether any of them has, since the last time this was asked."""
        changed = False
        for name, before in list(self._seen.items()):
            self._seen[name] = _changed_at(name)
            is_gone = _file(name) != self._files[name]
            changed = changed or is_gone or self._seen[name] != before
            if is_gone:
                del self._seen[name]
        return changed


def _file(name: str) -> int:
    try:
        return Path(name).stat().st_ino
    except OSError:
        return 0


def _changed_at(name: str) -> int:
    try:
        return Path(name).stat().st_mtime_ns
    except OSError:
        return 0
