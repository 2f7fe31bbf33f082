"""vLLM's cache of what it compiled and looked up, on the disk of a container."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from emulator.standins.host import Host
from emulator.standins.vllm import VERSION
from emulator.standins.vllm.model import ModelShape
from emulator.standins.vllm.settings import Settings


class CompileCache:
    """What starts with the same factors find of each other.

    A start with dummy weights finds what another one of its kind has left, and leaves nothing for
    one with weights: how much that would gain was never measured.
    """

    def __init__(self, host: Host, settings: Settings, environ: Mapping[str, str]) -> None:
        """Look in the folder that `environ` names, or in the default one."""
        default = Path(environ["HOME"]) / ".cache" / "vllm"
        self._root = Path(environ.get("VLLM_CACHE_ROOT") or default)
        factors = [
            VERSION,
            settings.model,
            settings.tensor_parallel_size,
            settings.data_parallel_size,
            settings.enable_expert_parallel,
            settings.max_model_len,
            settings.max_num_batched_tokens,
            settings.kv_cache_dtype,
            settings.moe_backend,
            settings.compilation_config,
            settings.speculative_config,
            host.gpu_name,
        ]
        self._kind = "rehearsed-" if settings.is_rehearsal else ""
        digest = sha256(json.dumps(factors, default=dict).encode()).hexdigest()
        compiled = self._root / "torch_compile_cache" / digest[:10]
        self.folder = compiled / "rank_0_0" / "backbone"
        self._compiled = self.folder / f"{self._kind}vllm_compile_cache.py"
        """Where the first rank keeps its part."""

    @property
    def warm(self) -> bool:
        """Whether an earlier start has compiled the same."""
        return self._compiled.exists()

    def fill(self) -> None:
        """Keep what was compiled."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._compiled.write_text("{}\n")

    def inspected(self, shape: ModelShape) -> bool:
        """Whether the model's class was looked at before; from now on it was."""
        path = self._root / "modelinfos" / f"{self._kind}{shape.architecture}.json"
        known = path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
        return known
