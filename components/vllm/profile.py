"""The needs of a model: its weights, its shapes, its flags. Reads `models/<name>.yaml`.

A profile is one model on one kind of hardware, as tried or computed. A stack's changes go through
`Profile.with_overrides`, which checks the changed profile like a file.
"""

from __future__ import annotations

import copy
import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from components.core import yaml_text
from components.vllm import image_name
from components.vllm.errors import ProfileError
from components.vllm.hub_names import REPOSITORY, implicit_downloads
from components.vllm.measured import Load, Measured
from components.vllm.options import media
from components.vllm.options.environment_names import why_not_set
from components.vllm.options.option_table import merged, option_name
from components.vllm.options.thinking import Thinking

OptionValue = bool | int | float | str | list[Any] | dict[str, Any]
"""What a vLLM option can be set to; a mapping reaches vLLM as JSON."""

Text = Annotated[str, Field(min_length=1)]

Capability = Literal["vision", "reasoning", "tools"]
"""Capabilities that only some models have."""


class Companion(BaseModel):
    """A further repository that the flags name, such as a draft head's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    repository: Text = Field(pattern=REPOSITORY)
    revision: Text = Field(default="main", pattern=r"^\S+$")
    files: tuple[Text, ...] = Field(default=("*",), min_length=1)
    """Patterns of the files to fetch; all files without patterns."""

    @field_validator("files", mode="before")
    @classmethod
    def _list_as_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


_KEYS_WITHIN = {
    ("companions", 2): list(Companion.model_fields),
    ("measured", 1): list(Measured.model_fields),
    ("measured", 3): list(Load.model_fields),
}
"""The keys inside a profile's fields, by the field and the depth in it."""


class Profile(BaseModel):
    """One model on one kind of hardware. Sizes are GB (1e9 bytes) or GiB (2**30), as named."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    name: Text = Field(description="the file's name without .yaml")
    description: Text = Field(description="one line for people")
    repository: Text = Field(
        pattern=REPOSITORY, description="the Hub's name of the model, as owner/model"
    )
    revision: Text = Field(default="main", description="a branch, a tag or a commit")
    files: tuple[Text, ...] = Field(
        min_length=1, description="patterns of the files to fetch, such as ['consolidated*']"
    )
    companions: tuple[Companion, ...] = Field(
        default=(),
        description="further repositories that the flags name, such as a draft head's: a list of "
        "names, or of {repository: ..., revision: ..., files: [...]}",
    )
    served_model_name: Text = Field(description="what clients pass as `model`")
    weights_gb: float = Field(
        gt=0,
        description="GB of weights with those of the companions, on disk and summed over the GPUs "
        "(above 0)",
    )
    experts_gb: float = Field(
        default=0.0,
        ge=0,
        description="GB of the weights that are routed experts, which are spread over the GPUs of "
        "all engines (0 or more)",
    )
    unsharded_gib: float = Field(
        default=0.0, ge=0, description="GiB of weights that every rank keeps whole (0 or more)"
    )
    kv_bytes_per_token: int = Field(
        gt=0, description="bytes of KV cache a token takes, over all layers (a whole number)"
    )
    kv_replicated: bool = Field(
        description="true where every rank keeps the whole KV cache (MLA), false where it is split"
    )
    attention_heads: int = Field(gt=0, description="heads, which the ranks divide among them")
    max_position_embeddings: int = Field(gt=0, description="tokens that the model was built for")
    max_model_len: int = Field(gt=0, description="tokens of context to serve (a whole number)")
    gpu_memory_utilization: float = Field(
        gt=0, le=1, description="vLLM's share of a GPU's memory, above 0 and at most 1"
    )
    tensor_parallel_size: int = Field(gt=0, description="ranks that share the weights")
    data_parallel_size: int = Field(
        default=1, gt=0, description="engines, each with tensor_parallel_size ranks (1 or more)"
    )
    gpu_name: Text = Field(description="the GPU it is meant for, as Vast names it: `H100 SXM`")
    num_gpus: int = Field(gt=0, description="GPUs that it is meant for (a whole number)")
    overhead_gib: float = Field(
        ge=0, description="GiB a GPU needs for activations and graphs, without NCCL (0 or more)"
    )
    image: Annotated[Text, AfterValidator(image_name.checked)] = Field(
        description="the container image, with a tag or a digest"
    )
    vllm_version: str = Field(
        pattern=r"^\d+\.\d+\.\d+$", description="the vLLM in the image, in quotes: '0.33.0'"
    )
    min_cuda: float = Field(gt=0, description="CUDA that the host's driver must report: 13.0")
    min_driver: str = Field(
        pattern=r"^\d+(\.\d+)*$", description="the oldest NVIDIA driver, in quotes: '580'"
    )
    image_gb: float = Field(gt=0, description="GB of the image, unpacked (above 0)")
    disk_gb: float = Field(gt=0, description="GB of disk to rent (above 0)")
    flags: dict[str, OptionValue] = Field(
        default_factory=dict, description="vLLM options beyond the ones above, without dashes"
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="environment of the server, every value in quotes"
    )
    abilities: tuple[Capability, ...] = Field(
        default=(),
        description="what the model can besides text, of [vision, reasoning, tools]: "
        "the smoke test asks for it",
    )
    thinking: Thinking | None = Field(
        default=None,
        description="how the model thinks before it answers, one of none, effort "
        "(reasoning_effort), switch (a variable of its chat template) and always; left out, as "
        "the models of its reasoning-parser do",
    )
    gated: bool = Field(default=False, description="true where the Hub asks for a token")
    warnings: tuple[Text, ...] = Field(
        default=(), description="what somebody who picks this profile has to know"
    )
    measured: Measured | None = Field(
        default=None,
        description="what was measured of it, as `python -m toolchain.measured` writes it",
    )

    @field_validator("files", "abilities", "warnings", mode="before")
    @classmethod
    def _list_as_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("companions", mode="before")
    @classmethod
    def _names_as_companions(cls, value: object) -> object:
        if not isinstance(value, list | tuple):
            return value
        return tuple({"repository": one} if isinstance(one, str) else one for one in value)

    @field_validator("flags", mode="before")
    @classmethod
    def _plain_names(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {option_name(str(name)): set_to for name, set_to in value.items()}

    @field_validator("env")
    @classmethod
    def _no_forbidden_env(cls, value: dict[str, str]) -> dict[str, str]:
        complaints = [complaint for name in value if (complaint := why_not_set(name))]
        if complaints:
            raise ValueError(complaints[0])
        return value

    @model_validator(mode="after")
    def _possible(self) -> Profile:
        ranks = self.tensor_parallel_size
        if self.attention_heads % ranks:
            raise ValueError(
                f"tensor_parallel_size is {ranks}, which does not divide the model's "
                f"{self.attention_heads} attention heads; take {_divisors(self.attention_heads)}"
            )
        if ranks > self.num_gpus:
            raise ValueError(
                f"tensor_parallel_size is {ranks}, which is more than num_gpus, "
                f"{self.num_gpus}; lower the one or raise the other"
            )
        if self.gpus_used > self.num_gpus:
            raise ValueError(
                f"data_parallel_size is {self.data_parallel_size}, which with "
                f"tensor_parallel_size {ranks} takes {self.gpus_used} GPUs, and num_gpus is "
                f"{self.num_gpus}; lower the one or raise the other"
            )
        if self.experts_gb > self.weights_gb:
            raise ValueError(
                f"experts_gb is {self.experts_gb}, which is more than weights_gb, "
                f"{self.weights_gb}; they are a part of those"
            )
        if self.max_model_len > self.max_position_embeddings:
            raise ValueError(
                f"max_model_len is {self.max_model_len}, which is more than the "
                f"{self.max_position_embeddings} positions of the model; lower it. "
                "A model that YaRN makes longer needs a profile of its own: `hf-overrides` among "
                "its flags with the rope_parameters of the model's card, and "
                "max_position_embeddings as long as they make it"
            )
        if self.thinking == "none" and "reasoning" in self.abilities:
            raise ValueError(
                "thinking is none and abilities name reasoning; take one of the two out"
            )
        if unnamed := implicit_downloads(self.flags, self.fetched):
            raise ValueError(
                f"flags name {', '.join(unnamed)}, which is none of the companions, so vLLM would "
                "fetch it unseen; add it to companions"
            )
        return self

    @property
    def gpus_used(self) -> int:
        """GPUs that carry a rank of an engine."""
        return self.tensor_parallel_size * self.data_parallel_size

    @property
    def fetched(self) -> dict[str, str]:
        """The repositories that a host fetches before the server starts, with their revisions."""
        companions = {one.repository: one.revision for one in self.companions}
        return {**companions, self.repository: self.revision}

    def at_revisions(self, revisions: Mapping[str, str]) -> Profile:
        """Return this profile with model and companions at `revisions`, by repository.

        Raises:
            ProfileError: if one of them is no revision.
        """
        companions = tuple(
            {**one.model_dump(), "revision": revisions.get(one.repository, one.revision)}
            for one in self.companions
        )
        revision = revisions.get(self.repository)
        return self.with_overrides(revision=revision, companions=companions or None)

    def with_overrides(self, **changes: Any) -> Profile:
        """Return this profile with `changes`, checked as a whole.

        A change that is None is left out, so optional settings pass as they are. `flags` and
        `env` are merged into the profile's own; a None in them removes an entry.

        Raises:
            ProfileError: naming the key, the value and the remedy.
        """
        content = self.model_dump()
        for key, value in changes.items():
            if value is None:
                continue
            if key in ("flags", "env") and isinstance(value, Mapping):
                content[key] = merged(content[key], value, options=key == "flags")
            else:
                content[key] = value
        return _checked(content, f"profile {self.name} with the stack's settings")


def load_profile(name: str, folder: Path) -> Profile:
    """Read `<folder>/<name>.yaml`.

    Raises:
        ProfileError: one sentence that names the file, the key, the value and the remedy.
    """
    names = profile_names(folder)
    if name not in names:
        raise ProfileError(
            f"there is no profile {name!r} in {folder.name}/{_meant(name, names)}; "
            f"there are {', '.join(names) or 'none'}"
        )
    path = folder / f"{name}.yaml"
    content = _read(path)
    if "name" in content:
        raise ProfileError(f"{path.name}: name is the file's own name; remove the key")
    profile = _checked({"name": name, **content}, path.name)
    # Not in the profile's own checks, so that existing releases with such a variable still load.
    for variable in sorted(media.VARIABLES & profile.env.keys()):
        raise ProfileError(
            f"{path.name}: env must not set {variable}: it is the environment's, and the stack "
            "sets it for whatever runs there; remove it"
        )
    return profile


def profile_names(folder: Path) -> list[str]:
    """List the profiles in `folder`, sorted; a folder that is missing has none."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = _parsed(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ProfileError(
            f"{path.name} is no YAML: {error.problem} in line {line}; correct it there"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path.name} is no YAML text: {error}; save it as UTF-8") from None
    if not isinstance(content, dict):
        raise ProfileError(f"{path.name} holds no `key: value` lines; write a profile into it")
    return {str(key): value for key, value in copy.deepcopy(content).items()}


# One process reads the same few files again for each resource, 2 ms each.
@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    return yaml_text.read(text)


def _checked(content: dict[str, Any], source: str) -> Profile:
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        raise ProfileError(f"{source}: {_sentence(error, content)}") from None


def _sentence(error: ValidationError, content: Mapping[str, Any]) -> str:
    problems = error.errors(include_url=False, include_context=True)
    first = problems[0]
    keys = sorted({str(problem["loc"][0]) for problem in problems[1:] if problem["loc"]})
    more = f" (and look at {', '.join(keys)})" if keys else ""
    return _problem(first["type"], first["loc"], str(first["msg"]), content) + more


def _problem(
    kind: str, loc: tuple[int | str, ...], message: str, content: Mapping[str, Any]
) -> str:
    own_words = message.removeprefix("Value error, ")
    if not loc:
        return own_words
    key = str(loc[0])
    if len(loc) > 1 and kind in {"extra_forbidden", "missing"}:
        return _problem_within(kind, loc)
    if kind == "extra_forbidden":
        return f"{key} is no key of a profile{_meant(key, list(Profile.model_fields))}; remove it"
    wanted = Profile.model_fields[key].description
    if kind == "missing":
        return f"{key} is missing; add it: {wanted}"
    if kind == "value_error":
        return f"{key} {own_words}; remove it"
    return f"{key} is {content.get(key)!r} and should be: {wanted}"


def _problem_within(kind: str, loc: tuple[int | str, ...]) -> str:
    """Of an entry of a list, such as a companion."""
    *place, key = (str(part) for part in loc)
    where = " ".join(place)
    if kind == "missing":
        return f"{where} lacks {key}; add it"
    known = _KEYS_WITHIN.get((place[0], len(place)), [])
    return f"{where} has a key {key}{_meant(key, known)}; remove it"


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _divisors(heads: int) -> str:
    values = [str(ranks) for ranks in range(1, min(heads, 64) + 1) if heads % ranks == 0]
    return ", ".join(values[:-1]) + f" or {values[-1]}"
