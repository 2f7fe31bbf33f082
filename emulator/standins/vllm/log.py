"""What the server prints: vLLM's log lines on stdout, progress bars and tracebacks on stderr."""

from __future__ import annotations

import os
import sys
from datetime import datetime

from emulator.standins.vllm.errors import StartError, Where

_SITE = "/usr/local/lib/python3.12/dist-packages"
_API_FRAMES = (
    ("/usr/local/bin/vllm", 10, "<module>", "sys.exit(main())"),
    (f"{_SITE}/vllm/entrypoints/cli/main.py", 120, "main", "args.dispatch_function(args)"),
    (f"{_SITE}/vllm/entrypoints/cli/serve.py", 156, "cmd", "uvloop.run(run_server(args))"),
)
_ENGINE_FRAMES = (
    (
        f"{_SITE}/vllm/v1/engine/core.py",
        1482,
        "run_engine_core",
        "engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)",
    ),
    (
        f"{_SITE}/vllm/v1/engine/core.py",
        157,
        "__init__",
        "kv_cache_config = self._initialize_kv_caches(vllm_config)",
    ),
)
_WORKER_FRAMES = (
    (
        f"{_SITE}/vllm/v1/executor/multiproc_executor.py",
        879,
        "worker_main",
        "worker = WorkerProc(*args, **kwargs)",
    ),
)
_EXECUTOR_FRAMES = (
    (
        f"{_SITE}/vllm/v1/executor/multiproc_executor.py",
        712,
        "wait_for_ready",
        "raise e from None",
    ),
)
_WAIT_FRAMES = (
    (
        f"{_SITE}/vllm/v1/engine/utils.py",
        1431,
        "wait_for_engine_startup",
        "raise RuntimeError(",
    ),
)
_LOGO = (
    "",
    "       █     █     █▄   ▄█",
    " ▄▄ ▄█ █     █     █ ▀▄▀ █  version {version}",
    "  █▄█▀ █     █     █     █  model   {model}",
    "   ▀▀  ▀▀▀▀▀ ▀▀▀▀▀ ▀     ▀",
    "",
)

API_SERVER = "APIServer"
ENGINE = "EngineCore"
NOT_NAMED = "Worker"
"""A rank before it knows which one it is."""

Frame = tuple[str, int, str, str]


class Log:
    """The server's log. Every process of the real one is this process here."""

    def __init__(
        self, *, tensor_parallel_size: int = 1, data_parallel_size: int = 1, api_servers: int = 1
    ) -> None:
        """Name workers after their rank, or, with one GPU, after the engine that they run in.

        Several engines have numbers, and so have several API servers.
        """
        ranks, engines = tensor_parallel_size, data_parallel_size
        self._engines = (
            [ENGINE] if engines == 1 else [f"{ENGINE}_DP{one}" for one in range(engines)]
        )
        self._workers = (
            [ENGINE]
            if ranks * engines == 1
            else [
                _worker(engine, rank, ranks, engines)
                for engine in range(engines)
                for rank in range(ranks)
            ]
        )
        # The process that starts the API servers has no name in the log.
        self._api_server = API_SERVER if api_servers == 1 else ""
        self._api_servers = api_servers

    @property
    def worker(self) -> str:
        """The process of the first rank."""
        return self._workers[0]

    @property
    def unnamed_worker(self) -> str:
        """The same before it knows its rank; with one GPU it is the engine itself."""
        return NOT_NAMED if len(self._workers) > 1 else self._workers[0]

    def start_api_servers(self) -> None:
        """Let the API servers speak from here on, in the place of the process that starts them."""
        if len(self._engines) > 1:
            self.info(
                API_SERVER, "utils.py:1127", f"Started DP Coordinator process (PID: {os.getpid()})"
            )
        if not self._api_server:
            text = f"Started {self._api_servers} API server processes"
            self.info(API_SERVER, "utils.py:241", text)
            self._api_server = "ApiServer_0"

    def info(self, process: str, source: str, text: str) -> None:
        """Write an INFO line of `process`; `source` is like `core.py:133`."""
        self.write("INFO", process, source, text)

    def warning(self, process: str, source: str, text: str) -> None:
        """Write a WARNING line."""
        self.write("WARNING", process, source, text)

    def error(self, process: str, source: str, text: str) -> None:
        """Write ERROR lines."""
        self.write("ERROR", process, source, text)

    def all_workers(self, source: str, text: str) -> None:
        """Write an INFO line for every rank; `{rank}` in `text` becomes its number."""
        for rank, worker in enumerate(self._workers):
            self.info(worker, source, text.replace("{rank}", str(rank)))

    def all_engines(self, source: str, text: str) -> None:
        """Write an INFO line for every engine."""
        for engine in self._engines:
            self.info(engine, source, text)

    def autotuner(self, source: str, text: str) -> None:
        """Write a line of FlashInfer's for every rank: it has a format of its own."""
        moment = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]
        for worker in self._workers:
            line = f"{moment} - INFO - {source} - flashinfer.jit: [Autotuner]: {text}"
            sys.stdout.write(f"({worker} pid={os.getpid()}) {line}\n")
        sys.stdout.flush()

    def write(self, level: str, process: str, source: str, text: str) -> None:
        """Write `text`, each of its lines with vLLM's prefix."""
        moment = datetime.now().astimezone().strftime("%m-%d %H:%M:%S")
        named = {API_SERVER: self._api_server, ENGINE: self._engines[0]}.get(process, process)
        who = f"({named} pid={os.getpid()}) " if named else ""
        prefix = f"{who}{level} {moment} [{source}] "
        sys.stdout.write("".join(f"{prefix}{line}\n" for line in text.split("\n")))
        sys.stdout.flush()

    def banner(self, version: str, model: str, *, logo: bool) -> None:
        """Write the version and the model, with the logo or on one line."""
        if not logo:
            text = f"vLLM server version {version}, serving model {model}"
            self.info(API_SERVER, "api_utils.py:341", text)
            return
        for line in _LOGO:
            self.info(API_SERVER, "api_utils.py:347", line.format(version=version, model=model))

    def bar(self, text: str, *, last: bool = False) -> None:
        """Draw a progress bar over the one before, as tqdm does on stderr."""
        sys.stderr.write(f"\r{text}" + ("\n" if last else ""))
        sys.stderr.flush()

    def failure(self, error: StartError) -> None:
        """Write what a start that failed leaves behind, down to the generic tail."""
        raised = str(error)
        if error.where is Where.API_SERVER:
            _to_stderr(_traceback(_API_FRAMES, raised))
            return
        if error.where is Where.WORKER:
            self.error(self.worker, "multiproc_executor.py:898", "WorkerProc failed to start.")
            worker_trace = _traceback(_WORKER_FRAMES, raised)
            self.error(self.worker, "multiproc_executor.py:898", worker_trace)
            raised = (
                "Exception: WorkerProc initialization failed due to an exception in a background "
                "process. See stack trace for root cause."
            )
        frames = _EXECUTOR_FRAMES if error.where is Where.WORKER else _ENGINE_FRAMES
        trace = _traceback(frames, raised)
        self.error(ENGINE, "core.py:1510", f"EngineCore failed to start.\n{trace}")
        _to_stderr(f"Process EngineCore:\n{trace}")
        self.engine_lost()

    def engine_lost(self) -> None:
        """Write the generic tail: the API server notices that its engine is gone."""
        self.info(
            API_SERVER,
            "utils.py:628",
            "[shutdown] Process manager: send sigterm to process EngineCore",
        )
        _to_stderr(
            _traceback(
                (*_API_FRAMES, *_WAIT_FRAMES),
                "RuntimeError: Engine core initialization failed. See root cause above. "
                "Failed core proc(s): {}",
            )
        )


def _worker(engine: int, rank: int, ranks: int, engines: int) -> str:
    of_engine = f"_DP{engine}" if engines > 1 else ""
    of_rank = f"_TP{rank}" if ranks > 1 else ""
    of_experts = f"_EP{engine * ranks + rank}" if engines > 1 else ""
    return f"Worker{of_engine}{of_rank}{of_experts}"


def _traceback(frames: tuple[Frame, ...], raised: str) -> str:
    lines = ["Traceback (most recent call last):"]
    for path, number, function, code in frames:
        lines += [f'  File "{path}", line {number}, in {function}', f"    {code}"]
    return "\n".join([*lines, raised])


def _to_stderr(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
