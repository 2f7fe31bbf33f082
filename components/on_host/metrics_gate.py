"""The key gate, with keys that open the counters and nothing else.

`vllm serve --middleware metrics_gate.MetricsGate` loads this file on the host instead of
`key_gate.py`, which lies beside it. A stack that does not ask for such a key gets no such file, so
its hosts are the same as without this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.on_host import key_gate
else:
    import key_gate

METRICS = {"/metrics": "GET"}
"""All that such a key opens. With it, anything else is answered as with an unknown key."""


class MetricsGate(key_gate.KeyGate):
    """`KeyGate`, where a key of `metrics_keys` beside this module may read the counters.

    The file is as `allowed_keys`. Where it is missing, unreadable or empty, this is `KeyGate`.
    """

    def __init__(self, app: key_gate.App) -> None:
        super().__init__(app)
        self._metrics_keys = key_gate.AllowedKeys(Path(__file__).with_name("metrics_keys"))

    def _refusal(self, scope: key_gate.Scope, *, draining: bool) -> tuple[int, bytes] | None:
        is_read = METRICS.get(key_gate._literal_path(scope)) == scope["method"]  # noqa: SLF001
        if is_read and self._metrics_keys.any_of(key_gate._presented(scope)):  # noqa: SLF001
            return None
        return super()._refusal(scope, draining=draining)
