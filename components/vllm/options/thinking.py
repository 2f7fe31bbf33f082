"""How a model thinks before it answers, and what a request says about it. Pure.

`none`: the model never thinks. `effort`: `reasoning_effort` decides, from none to high. `switch`: a
variable of its chat template decides. `always`: the model always thinks, so an answer may be a
trace that meets the token limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Thinking = Literal["none", "effort", "switch", "always"]

WAYS: tuple[Thinking, ...] = ("none", "effort", "switch", "always")

SWITCHES = ("enable_thinking", "thinking")
"""Names of the variable in chat templates (Qwen3 and GLM; DeepSeek V3.1 and Granite). A template
ignores the other name.
"""

_BY_PARSER: Mapping[str, Thinking] = {
    "mistral": "effort",
    "openai_gptoss": "always",
    "deepseek_r1": "always",
    "qwen3": "switch",
    "glm45": "switch",
    "glm47": "switch",
    "deepseek_v3": "switch",
    "granite": "switch",
}
"""How the models of vLLM's reasoning parsers think, where a profile does not say."""


def how(said: Thinking | None, options: Mapping[str, Any], *, reasons: bool) -> Thinking:
    """Find how a model thinks: by the profile, by its parser's models, or else by effort.

    `reasons` is whether the profile names reasoning among its abilities.
    """
    if said is not None:
        return said
    parser = str(options.get("reasoning-parser") or "")
    return _BY_PARSER.get(parser, "effort" if reasons else "none")


def asked(thinking: Thinking, wanted: bool | None) -> dict[str, Any]:
    """Say in a request's body that a trace is wanted, that none is, or (None) just an answer."""
    if thinking == "effort" and wanted is not None:
        return {"reasoning_effort": "high" if wanted else "none"}
    if thinking == "switch":
        return {"chat_template_kwargs": dict.fromkeys(SWITCHES, bool(wanted))}
    return {}
