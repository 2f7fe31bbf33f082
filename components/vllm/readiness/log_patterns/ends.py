"""What a log ends with, when its cause stands further up."""

from __future__ import annotations

from components.vllm.readiness.diagnosis import Pattern, Rank

ENDS = (
    Pattern(
        name="configuration_refused",
        expressions=(r"^\s{0,20}Value error, (?P<reason>.+?)(?: \[type=.*)?$",),
        fault="configuration",
        sentence="vLLM refuses its configuration: {reason}",
        remedy="correct the vLLM options",
        rank=Rank.CONSEQUENCE,
    ),
    Pattern(
        name="worker_died",
        expressions=(
            (
                r"Worker proc (?P<worker>\S{1,200}) died unexpectedly "
                r"\(exit code: (?P<code>-?\d{1,12})\)"
            ),
        ),
        fault="platform",
        sentence="the server's process {worker} ended with exit code {code}",
        remedy="the log's lines above it say why",
        rank=Rank.END,
        after_start=True,
    ),
    Pattern(
        name="engine_failed",
        expressions=(
            r"Engine core initialization failed",
            r"EngineCore failed to start",
            r"WorkerProc initialization failed due to an exception in a background process",
        ),
        fault="platform",
        sentence="the engine did not start",
        remedy="the log's lines above it say why",
        rank=Rank.END,
    ),
    Pattern(
        name="engine_died",
        expressions=(r"EngineDeadError", r"EngineCore encountered an issue"),
        fault="platform",
        sentence="the engine died while the server was up",
        remedy="the server is started again; the log's lines above it say why",
        rank=Rank.END,
        after_start=True,
    ),
)
"""How a log ends when its cause stands further up."""
