"""What /metrics shows: vLLM's own names, counted from real requests to this server."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_BOUNDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
           10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip
_REASONS = ("stop", "length", "abort", "error")


@dataclass
class Histogram:
    """Durations in emulated seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    total: int = 0
    summed: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.total += 1
        self.summed += seconds
        for index, bound in enumerate(_BOUNDS):
            if seconds <= bound:
                self.counts[index] += 1


@dataclass
class Metrics:
    """Gauges and counters of one server."""

    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    first_token: Histogram = field(default_factory=Histogram)
    whole_request: Histogram = field(default_factory=Histogram)


def exposition(metrics: Metrics, model_name: str, cache_config: dict[str, str]) -> str:
    """Return the metrics as Prometheus text; `model_name` is the first served name."""
    labels = f'engine="0",model_name="{model_name}"'
    lines: list[str] = []
    gauges = {
        "vllm:num_requests_running": float(metrics.running),
        "vllm:num_requests_waiting": float(metrics.waiting),
        "vllm:kv_cache_usage_perc": max(0.0, metrics.kv_cache_usage),
    }
    for name, value in gauges.items():
        lines += [f"# TYPE {name} gauge", f"{name}{{{labels}}} {value}"]
    counters = {
        "vllm:prompt_tokens": metrics.prompt_tokens,
        "vllm:generation_tokens": metrics.generation_tokens,
        "vllm:num_preemptions": 0,
    }
    for name, count in counters.items():
        lines += [f"# TYPE {name}_total counter", f"{name}_total{{{labels}}} {float(count)}"]
    lines.append("# TYPE vllm:request_success_total counter")
    for reason in _REASONS:
        count = metrics.finished[reason]
        lines.append(
            f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {float(count)}'
        )
    lines += _histogram("vllm:time_to_first_token_seconds", metrics.first_token, labels)
    lines += _histogram("vllm:e2e_request_latency_seconds", metrics.whole_request, labels)
    config = ",".join(f'{key}="{value}"' for key, value in cache_config.items())
    lines += [
        "# TYPE vllm:cache_config_info gauge",
        f'vllm:cache_config_info{{engine="0",{config}}} 1.0',
    ]
    return "\n".join(lines) + "\n"


def _histogram(name: str, histogram: Histogram, labels: str) -> list[str]:
    lines = [f"# TYPE {name} histogram"]
    for bound, count in zip(_BOUNDS, histogram.counts, strict=True):
        lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {float(count)}')
    lines.append(f'{name}_bucket{{{labels},le="+Inf"}} {float(histogram.total)}')
    lines.append(f"{name}_count{{{labels}}} {float(histogram.total)}")
    lines.append(f"{name}_sum{{{labels}}} {histogram.summed}")
    return lines
