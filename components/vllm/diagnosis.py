"""What a line of a log says about why serving failed: pattern, cause, fault and remedy.

The patterns are those of vLLM 0.18.0 to 0.33.0, of NCCL and CUDA, and of the Hub's client up to
2.4 (reference: vLLM 2.9). A line can be the root cause, a consequence of one that stands above
it, or only the end; whoever reads a log keeps the most telling one.

A host writes these lines, so no expression takes more time than a line is long: what may repeat
has a most number of times.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Literal

from components.display import shown_lines
from components.vllm.errors import (
    ServerFailed,
    ServerHostFailed,
    ServerMisconfigured,
    ServerPlatformFailed,
)

Fault = Literal["configuration", "host", "platform"]

LONGEST_QUOTE = 200
"""Characters of a log that a sentence repeats at most."""

_ERRORS: dict[Fault, type[ServerFailed]] = {
    "configuration": ServerMisconfigured,
    "host": ServerHostFailed,
    "platform": ServerPlatformFailed,
}


_ACCESS = re.compile(
    r'(?:\([^)]{0,100}pid=\d{1,12}\) )?INFO: {1,20}\S{1,200} - "[A-Z]{1,20} \S{1,4000} HTTP/'
)
"""A line of the HTTP server about one request."""


class Rank(enum.IntEnum):
    """How near to the cause a line stands; the lowest one found is reported."""

    ROOT = 0
    CONSEQUENCE = 1
    END = 2


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Why serving failed."""

    pattern: str
    """Name of the pattern, such as `kv_too_small`."""
    sentence: str
    """What happened, with the values that the log gives; no full stop at the end."""
    fault: Fault
    remedy: str
    """What to do, as the second half of a sentence."""
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What the log gave by name, such as `possible`: the longest context that would fit."""
    rank: Rank = Rank.ROOT

    @property
    def text(self) -> str:
        """Cause and remedy in one sentence."""
        return f"{self.sentence}; {self.remedy}"

    def error(self, before: str = "") -> ServerFailed:
        """Make the error that says so, by whose fault it is; `before` begins the sentence."""
        return _ERRORS[self.fault](f"{before}{self.text}")


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Lines with one meaning. Named groups of the expressions fill `sentence` and `remedy`."""

    name: str
    expressions: tuple[str, ...]
    fault: Fault
    sentence: str
    remedy: str
    rank: Rank = Rank.ROOT
    bare: str = ""
    """The sentence where the line gives no values."""
    after_start: bool = False
    """Counts while the server serves, too."""

    @functools.cached_property
    def compiled(self) -> tuple[re.Pattern[str], ...]:
        """The expressions, made ready once: each is asked of every line of a log."""
        flags = re.IGNORECASE | re.ASCII
        return tuple(re.compile(expression, flags) for expression in self.expressions)

    def match(self, line: str) -> Diagnosis | None:
        """Return what `line` says, or None if it is about something else."""
        for compiled in self.compiled:
            found = compiled.search(line)
            if found:
                given = {key: _short(value) for key, value in found.groupdict().items() if value}
                return self._filled(given)
        return None

    def _filled(self, values: dict[str, str]) -> Diagnosis:
        sentence = self.bare if self.bare and not values else self.sentence
        known = collections.defaultdict(lambda: "?", values)
        return Diagnosis(
            pattern=self.name,
            sentence=sentence.format_map(known),
            fault=self.fault,
            remedy=self.remedy.format_map(known),
            values=values,
            rank=self.rank,
        )


def diagnose(line: str, patterns: Iterable[Pattern], *, serving: bool = False) -> Diagnosis | None:
    """Return what the first matching pattern says of `line`; `serving`: the server is up.

    What a client was answered, such as `429 Too Many Requests`, says nothing of the server.
    """
    if _ACCESS.match(line):
        return None
    for pattern in patterns:
        if serving and not pattern.after_start:
            continue
        diagnosis = pattern.match(line)
        if diagnosis:
            return diagnosis
    return None


def diagnose_prefetch(text: str) -> Diagnosis | None:
    """Explain why `prefetch.sh` (or a bare `hf download`) failed, from what it printed.

    The last try counts, since earlier ones may have failed for reasons that passed. None if it
    completed, or if nothing in it is known.
    """
    lines = [line.strip() for line in shown_lines(text).split("\n") if line.strip()]
    if lines and lines[-1].startswith("prefetch: complete"):
        return None
    starts = [number for number, line in enumerate(lines) if _TRY.match(line)]
    best: Diagnosis | None = None
    for line in lines[starts[-1] if starts else 0 :]:
        found = diagnose(line, PREFETCH)
        if found and (best is None or found.rank < best.rank):
            best = found
    return best


def _short(text: str) -> str:
    plain = " ".join(text.split()).rstrip(".,;")
    return plain if len(plain) <= LONGEST_QUOTE else plain[: LONGEST_QUOTE - 1] + "…"


_TRY = re.compile(r"prefetch: .{0,500} try \d{1,12} of \d{1,12}$")

_REPOSITORY = r"https?://[^/\s]{1,200}/(?:api/models/)?(?P<repository>[^/\s]{1,200}/[^/\s?]{1,200})"

OPTIONS = (
    Pattern(
        name="unknown_option",
        expressions=(r"error: unrecognized arguments: (?P<options>.+)",),
        fault="configuration",
        sentence="the image's vLLM does not know {options}",
        remedy="remove it from the vLLM options, or take an image whose vLLM has it",
    ),
    Pattern(
        name="bad_option",
        expressions=(
            r"error: argument (?P<option>[-\w]{1,100})[^:]{0,200}: (?P<reason>.+)",
            r"error: (?P<reason>ambiguous option: (?P<option>[-\w]{1,100}).*)",
        ),
        fault="configuration",
        sentence="the image's vLLM refuses the option {option}: {reason}",
        remedy="correct it in the vLLM options",
    ),
    Pattern(
        name="tool_call_parser",
        expressions=(
            (
                r"invalid tool call parser: (?P<parser>\S{1,200}) "
                r"\(chose from \{?(?P<known>[^})]{0,500})"
            ),
        ),
        fault="configuration",
        sentence="the image's vLLM has no tool-call-parser {parser}, only {known}",
        remedy="set tool-call-parser to one of those",
    ),
    Pattern(
        name="reasoning_parser",
        expressions=(
            (
                r"Reasoning parser '(?P<parser>[^']{0,200})' not found\. "
                r"Available parsers: (?P<known>.*)"
            ),
            (
                r"invalid reasoning parser: (?P<parser>\S{1,200}) "
                r"\(chose from \{?(?P<known>[^})]{0,500})"
            ),
        ),
        fault="configuration",
        sentence="the image's vLLM has no reasoning-parser {parser}, only {known}",
        remedy="set reasoning-parser to one of those",
    ),
    Pattern(
        name="tool_choice_without_parser",
        expressions=(r"--enable-auto-tool-choice requires --tool-call-parser",),
        fault="configuration",
        sentence="enable-auto-tool-choice is set and tool-call-parser is not",
        remedy="set tool-call-parser, such as `mistral`, or remove enable-auto-tool-choice",
    ),
    Pattern(
        name="parser_and_tokenizer",
        expressions=(
            (
                r"(?P<flags>--\S{1,50} \S{1,50}(?: and --\S{1,50} \S{1,50})?) cannot be used with "
                r"the tokenizer of"
            ),
            r"Mistral parser could not (?P<flags>locate the tool call token) in the tokenizer",
            r"(?P<flags>Special tokens) not found in",
        ),
        fault="configuration",
        sentence="a parser does not go with the model's tokenizer ({flags})",
        remedy="set tool-call-parser, reasoning-parser and tokenizer-mode to the model's own",
    ),
    Pattern(
        name="unknown_attention_backend",
        expressions=(
            (
                r"Unknown attention backend: '(?P<backend>[^']{0,200})'\. "
                r"Valid options are: (?P<known>.*)"
            ),
        ),
        fault="configuration",
        sentence="the image's vLLM has no attention-backend {backend}, only {known}",
        remedy="set attention-backend to one of those, or remove it and vLLM picks one",
    ),
    Pattern(
        name="attention_backend_unfit",
        expressions=(
            (
                r"Selected backend (?P<backend>\S{1,200}) is not valid for this configuration\. "
                r"Reasons?: (?P<reason>.*)"
            ),
            r"No valid (?P<backend>attention backend) found for (?P<reason>.*)",
        ),
        fault="configuration",
        sentence="{backend} does not go with this GPU and model ({reason})",
        remedy="remove attention-backend and kv-cache-dtype, so that vLLM picks what goes together",
    ),
    Pattern(
        name="context_too_long",
        expressions=(
            (
                r"User-specified max_model_len \((?P<asked>\d{1,12})\) is greater than the derived "
                r"max_model_len \(\D{0,50}(?P<possible>\d{1,12})?"
            ),
        ),
        fault="configuration",
        sentence="max_model_len {asked} is more than the {possible} that the model is built for",
        remedy="set max_model_len to at most {possible}",
    ),
    Pattern(
        name="heads_and_ranks",
        expressions=(
            (
                r"heads \((?P<heads>\d{1,12})\) must be divisible by tensor parallel size "
                r"\((?P<ranks>\d{1,12})"
            ),
        ),
        fault="configuration",
        sentence="{heads} attention heads do not divide by tensor_parallel_size {ranks}",
        remedy="set tensor_parallel_size to 1, 2, 4 or 8",
    ),
    Pattern(
        name="utilization_out_of_range",
        expressions=(
            r"Input should be less than or equal to 1 .{0,500}input_value=(?P<value>[\d.]{1,20})",
            r"Input should be less than or equal to 1(?![.\d])",
        ),
        fault="configuration",
        sentence="gpu_memory_utilization {value} is a share above 1",
        bare="gpu_memory_utilization is a share above 1",
        remedy="set gpu_memory_utilization to 0.9, or another share of 1",
    ),
    Pattern(
        name="eagle_unsupported",
        expressions=(r"'EagleMistralLarge3Model' object has no attribute 'use_mha'",),
        fault="configuration",
        sentence="the image's vLLM cannot run the eagle draft head",
        remedy="take an image with vLLM 0.24.0 or newer, or remove speculative-config",
    ),
    Pattern(
        name="mistral_common_too_old",
        expressions=(r"Kwargs \['reasoning_effort'\] are not supported",),
        fault="configuration",
        sentence="the image's mistral_common is too old for reasoning_effort, so every chat fails",
        remedy="take an image with vLLM 0.24.0 or newer",
        after_start=True,
    ),
    Pattern(
        name="mistral_common_too_new",
        expressions=(r"get_lark_from_jinja\(\) missing 1 required positional argument",),
        fault="configuration",
        sentence="the image's mistral_common is newer than its vLLM can use, so every chat fails",
        remedy="take an image with mistral_common below 1.13",
        after_start=True,
    ),
    Pattern(
        name="key_gate_missing",
        expressions=(r"No module named 'key_gate'",),
        fault="platform",
        sentence="vLLM does not find the key gate that was pushed beside serve.yaml",
        remedy="run `pulumi up` again, which pushes it anew",
    ),
    Pattern(
        name="no_vllm",
        expressions=(
            r"vllm: (?:command )?not found",
            r"(?:exec(?:ute)?|start) \"?vllm\"?: No such file",
            r"No module named vllm\b",
        ),
        fault="configuration",
        sentence="the image has no `vllm` command",
        remedy="take an image that holds vLLM, such as vllm/vllm-openai",
    ),
)
"""What the options and the image cause: the same on every host."""

MEMORY = (
    Pattern(
        name="kv_too_small",
        expressions=(
            (
                r"max seq len \((?P<asked>\d{1,12})\), \((?P<needed>[\d.]{1,20}) GiB KV cache is "
                r"needed, which is larger than the available KV cache memory "
                r"\((?P<available>[\d.]{1,20}) GiB\)"
                r".{0,500}estimated maximum model length is (?P<possible>\d{1,12})"
            ),
        ),
        fault="configuration",
        sentence=(
            "one sequence of {asked} tokens needs {needed} GiB of KV cache and {available} GiB are "
            "free beside the weights"
        ),
        remedy="set max_model_len to at most {possible}, or take more or larger GPUs",
    ),
    Pattern(
        name="kv_too_small",
        expressions=(
            (
                r"(?P<needed>[\d.]{1,20}) GiB KV cache is needed, which is larger than the "
                r"available KV cache memory \((?P<available>[\d.]{1,20}) GiB\)"
            ),
            r"is larger than the available KV cache memory",
        ),
        fault="configuration",
        sentence=(
            "one sequence of the context length needs {needed} GiB of KV cache and {available} GiB "
            "are free beside the weights"
        ),
        bare="one sequence of the context length does not fit into the KV cache",
        remedy="lower max_model_len, or take more or larger GPUs",
    ),
    Pattern(
        name="no_kv_memory",
        expressions=(r"No available memory for the cache blocks",),
        fault="configuration",
        sentence="the weights leave no memory for the KV cache",
        remedy=(
            "raise gpu_memory_utilization (at most 0.95), lower max-num-batched-tokens, or take "
            "more or larger GPUs"
        ),
    ),
    Pattern(
        name="gpu_in_use",
        expressions=(
            (
                r"Free memory on device (?:\S{1,50})? ?"
                r"\((?P<free>[\d.]{1,20})/(?P<total>[\d.]{1,20}) GiB\) "
                r"on startup is less than"
            ),
            r"is less than desired GPU memory utilization",
        ),
        fault="host",
        sentence="only {free} of {total} GiB are free on a GPU before anything is loaded",
        bare="a GPU's memory is in use before anything is loaded",
        remedy="another program holds the rest, so another host is needed",
    ),
    Pattern(
        name="warm_up_out_of_memory",
        expressions=(
            r"CUDA out of memory occurred when warming up sampler with (?P<requests>\d{1,12})",
            r"CUDA out of memory occurred when warming up sampler",
        ),
        fault="configuration",
        sentence="the GPU's memory does not suffice for {requests} requests at once",
        bare="the GPU's memory does not suffice for max-num-seqs requests at once",
        remedy="lower max-num-seqs or gpu_memory_utilization",
    ),
    Pattern(
        name="gpu_out_of_memory",
        expressions=(
            (
                r"OutOfMemoryError: CUDA out of memory\. "
                r"Tried to allocate (?P<asked>[\d.]{1,20} \wiB)"
                r".{0,500}?capacity of (?P<total>[\d.]{1,20} \wiB) "
                r"of which (?P<free>[\d.]{1,20} \wiB) is free"
            ),
            r"OutOfMemoryError: CUDA out of memory",
            r"CUDA error: out of memory",
        ),
        fault="configuration",
        sentence="a GPU ran out of memory (asked for {asked}, free {free} of {total})",
        bare="a GPU ran out of memory",
        remedy=(
            "lower gpu_memory_utilization, max-num-batched-tokens or max-num-seqs, or take more or "
            "larger GPUs"
        ),
        after_start=True,
    ),
)
"""What does not fit into the GPUs."""

DISK = (
    Pattern(
        name="shared_memory_short",
        expressions=(
            r"Error while creating shared memory segment (?P<segment>/dev/shm/\S{1,200})",
            r"No space left on device.{0,500}(?P<segment>/dev/shm)",
            r"unable to (?:write to|resize|open shared memory).{0,300}(?P<segment>/torch_\S{0,99})",
        ),
        fault="host",
        sentence="the host's shared memory is too small for several GPUs ({segment})",
        remedy="take a host whose /dev/shm has 16 GB or more",
        after_start=True,
    ),
    Pattern(
        name="disk_full",
        expressions=(
            (
                r"Not enough free disk space to download the file\. The expected file size is: "
                r"(?P<asked>[\d.]{1,20} MB)\. The target location \S{1,200} "
                r"only has (?P<free>[\d.]{1,20} MB)"
            ),
            r"Not enough free disk space to download the file",
            r"No space left on device",
            r"Disk quota exceeded",
        ),
        fault="configuration",
        sentence="the rented disk is full (a file of {asked} is to come and {free} are free)",
        bare="the rented disk is full",
        remedy="raise disk_gb; a disk cannot grow, so this makes a new instance",
        after_start=True,
    ),
)
"""What does not fit onto the disk, or into shared memory. The latter is asked first."""

HUB = (
    Pattern(
        name="gated_model",
        expressions=(
            rf"Cannot access gated repo for url {_REPOSITORY}",
            r"Access to model (?P<repository>\S{1,200}) is restricted",
            r"Access denied\. \w{1,50} '(?P<repository>[^']{1,200})' requires approval",
            r"Cannot access gated repo|not in the authorized list",
        ),
        fault="configuration",
        sentence="the Hub gives {repository} only to accounts that accepted its conditions",
        bare="the Hub gives the model only to accounts that accepted its conditions",
        remedy="accept them on the model's page, and set that account's huggingFaceToken",
    ),
    Pattern(
        name="revision_not_found",
        expressions=(
            rf"Revision Not Found for url: {_REPOSITORY}",
            r"Revision not found in \w{1,50} '(?P<repository>[^']{1,200})'",
            r"Revision not found",
        ),
        fault="configuration",
        sentence="the Hub's {repository} has no such revision",
        bare="the model has no such revision on the Hub",
        remedy="set revision to a branch, a tag or a commit that it has",
    ),
    Pattern(
        name="model_not_found",
        expressions=(
            rf"Repository Not Found for url: {_REPOSITORY}",
            r"Error: (?:Model|Repository) '(?P<repository>[^']{1,200})' not found",
            r"Repository Not Found",
        ),
        fault="configuration",
        sentence="the Hub shows no model {repository}",
        bare="the Hub shows no such model",
        remedy="correct repository, or set huggingFaceToken if the model is private or gated",
    ),
    Pattern(
        name="hub_token_refused",
        expressions=(
            r"401 Client Error: Unauthorized",
            r"Invalid credentials in Authorization header",
            r"Invalid user token",
            r"403 Client Error: Forbidden",
            r"403 Forbidden: ",
        ),
        fault="configuration",
        sentence="the Hub does not accept the token, or the token may not read this model",
        remedy="set huggingFaceToken to a token that may read it",
        rank=Rank.CONSEQUENCE,
    ),
    Pattern(
        name="hub_rate_limited",
        expressions=(r"429 Client Error", r"429 Too Many Requests"),
        fault="platform",
        sentence="the Hub limits how much this address may fetch (429)",
        remedy="set huggingFaceToken, for a higher limit, or run `pulumi up` again later",
    ),
    Pattern(
        name="hub_failed",
        expressions=(
            r"(?P<status>50\d) Server Error",
            r"(?P<status>50\d) Internal Server Error for url",
            r"Server error '(?P<status>5\d\d)",
            r"(?P<status>CAS service error|Data processing error)",
        ),
        fault="platform",
        sentence="the Hub or its storage failed ({status})",
        remedy="run `pulumi up` again later",
    ),
    Pattern(
        name="model_unreadable",
        expressions=(
            (
                r"Invalid repository ID or local directory specified: {0,20}"
                r"(?:'(?P<repository>[^']{0,200})')?"
            ),
        ),
        fault="configuration",
        sentence="vLLM finds no configuration of a model in {repository}",
        bare="vLLM finds no configuration of a model",
        remedy="correct repository and config-format, or look for a Hub error in the log above it",
        rank=Rank.CONSEQUENCE,
    ),
    Pattern(
        name="hub_unreachable",
        expressions=(
            r"LocalEntryNotFoundError",
            r"Local entry not found",
            r"An error happened while trying to locate the files? on the Hub",
            r"OfflineModeIsEnabled",
        ),
        fault="platform",
        sentence="files of the model are neither on the host nor to be had from the Hub",
        remedy="run `pulumi up` again, which fetches them; if it stays, the host has no way out",
        rank=Rank.CONSEQUENCE,
    ),
)
"""What the Hub answers."""

HARDWARE = (
    Pattern(
        name="driver_too_old",
        expressions=(
            r"driver on your system is too old \(found version (?P<major>\d{1,4})0(?P<minor>\d)0\)",
            r"driver on your system is too old",
        ),
        fault="host",
        sentence="the host's driver is too old for the image (it reports CUDA {major}.{minor})",
        bare="the host's driver is too old for the image",
        remedy="take a host with a newer driver: raise min_cuda or min_driver",
    ),
    Pattern(
        name="driver_too_old",
        expressions=(
            (
                r"nvidia-container-cli: requirement error: unsatisfied condition: "
                r"cuda {0,9}>= {0,9}(?P<wanted>[\d.]{1,20})"
            ),
        ),
        fault="host",
        sentence="the host's driver is too old for the image, which wants CUDA {wanted}",
        remedy="take a host with a newer driver: raise min_cuda or min_driver",
    ),
    Pattern(
        name="driver_too_old",
        expressions=(r"forward compatibility was attempted on non supported HW",),
        fault="host",
        sentence="the host's driver is too old for the image, and its GPU takes no newer library",
        remedy="take a host with a newer driver: raise min_cuda or min_driver",
    ),
    Pattern(
        name="gpu_missing",
        expressions=(
            (
                r"World size \((?P<ranks>\d{1,12})\) is larger than the number of available GPUs "
                r"\((?P<gpus>\d{1,12})\)"
            ),
        ),
        fault="host",
        sentence="the server wants {ranks} GPUs and sees {gpus}",
        remedy="another host is needed, or a smaller tensor_parallel_size",
    ),
    Pattern(
        name="gpu_missing",
        expressions=(r"Failed to infer device type", r"No CUDA GPUs are available"),
        fault="host",
        sentence="the server sees no GPU",
        remedy="another host is needed",
    ),
    Pattern(
        name="image_not_for_gpu",
        expressions=(
            r"CUDA error: (?P<what>no kernel image is available|invalid device function)",
        ),
        fault="configuration",
        sentence="the image was not built for this kind of GPU ({what})",
        remedy="take another image, or another gpu_name",
        after_start=True,
    ),
    Pattern(
        name="kernel_failed",
        expressions=(r"CUDA error: (?P<what>(?:an )?illegal memory access|device-side assert)",),
        fault="platform",
        sentence="a program on the GPU failed, as software does ({what})",
        remedy=(
            "run `pulumi up` again, which restarts it; if it stays, take another image or "
            "attention-backend"
        ),
        rank=Rank.CONSEQUENCE,
        after_start=True,
    ),
    Pattern(
        name="gpu_failed",
        expressions=(
            r"CUDA error: (?P<what>.+)",
            r"(?P<what>CUDA driver initialization failed.*)",
            r"(?P<what>CUDA unknown error)",
        ),
        fault="host",
        sentence="a GPU failed ({what})",
        remedy="another host is needed",
        rank=Rank.CONSEQUENCE,
        after_start=True,
    ),
    Pattern(
        name="nccl_failed",
        expressions=(
            (
                r"NCCL error[^,]{0,120}?(?P<what>unhandled system error|unhandled cuda error"
                r"|remote process exited|internal error|invalid usage)"
            ),
            r"(?P<what>NCCL error)",
        ),
        fault="host",
        sentence="the GPUs cannot talk to each other through NCCL ({what})",
        remedy="set NCCL_P2P_DISABLE=1 in the profile's env, or take another host",
        rank=Rank.CONSEQUENCE,
        after_start=True,
    ),
    Pattern(
        name="port_in_use",
        expressions=(r"Address already in use", r"error while attempting to bind on address"),
        fault="host",
        sentence="another program on the host holds the server's port",
        remedy="run `pulumi up` again, which restarts the server; if it stays, take another host",
    ),
    Pattern(
        name="host_out_of_memory",
        expressions=(
            r"Worker proc (?P<worker>\S{1,200}) died unexpectedly \(exit code: -9\)",
            r"EngineCore.{0,60} died .{0,60}exit code:? -9",
        ),
        fault="host",
        sentence="the host killed a process of the server, as it does when main memory runs out",
        remedy="take a host with more main memory: 64 GB or more",
        rank=Rank.CONSEQUENCE,
        after_start=True,
    ),
    Pattern(
        name="shared_memory_short",
        expressions=(r"Worker proc (?P<segment>\S{1,200}) died unexpectedly \(exit code: -7\)",),
        fault="host",
        sentence="{segment} died of a bus error, as it does when /dev/shm is too small",
        remedy="take a host whose /dev/shm has 16 GB or more",
        rank=Rank.CONSEQUENCE,
        after_start=True,
    ),
)
"""What the machine causes."""

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

SERVER: tuple[Pattern, ...] = (*OPTIONS, *MEMORY, *DISK, *HUB, *HARDWARE, *ENDS)
"""Asked in this order of every line of vLLM's log."""

PREFETCH: tuple[Pattern, ...] = (
    *DISK,
    *HUB,
    Pattern(
        name="files_not_found",
        expressions=(
            r"prefetch: nothing of (?P<repository>\S{1,200}) at (?P<revision>\S{1,200}) matches",
            r"No files? (?:found )?match(?:ing|es)?.{0,500} in (?P<repository>\S{1,200})",
            r"File not found in \w{1,50} '(?P<repository>[^']{1,200})'",
            rf"Entry Not Found for url: {_REPOSITORY}",
        ),
        fault="configuration",
        sentence="nothing in {repository} matches the profile's files",
        remedy="correct files in the profile",
    ),
    Pattern(
        name="model_not_found",
        expressions=(r"prefetch: No such directory: '(?P<repository>[^']{0,200})'",),
        fault="configuration",
        sentence="the host has no folder {repository}",
        remedy="correct repository",
    ),
    Pattern(
        name="mistral_common_too_new",
        expressions=(
            (
                r"prefetch: the image has vLLM (?P<vllm>\S{1,200}) "
                r"and mistral_common (?P<found>\S{1,200})"
            ),
        ),
        fault="configuration",
        sentence=(
            "the image's mistral_common {found} is newer than its vLLM {vllm} can use, so every "
            "chat would fail; nothing was downloaded"
        ),
        remedy="take an image with mistral_common below 1.13",
    ),
    Pattern(
        name="no_hf",
        expressions=(r"the image has no 'hf' command", r"hf: (?:command )?not found"),
        fault="configuration",
        sentence="the image has no `hf` command to fetch the weights with",
        remedy="take an image with huggingface_hub 0.34 or newer",
    ),
    Pattern(
        name="hf_refused",
        expressions=(
            r"error: unrecognized arguments: (?P<options>.+)",
            r"No such (?P<options>option|command)",
        ),
        fault="configuration",
        sentence="the image's `hf` does not take the download's arguments ({options})",
        remedy="take an image with another huggingface_hub",
    ),
    Pattern(
        name="hub_unreachable",
        expressions=(
            r"(?P<what>Temporary failure in name resolution|Name or service not known)",
            r"(?P<what>Network is unreachable|No route to host)",
            r"(?P<what>Connection refused|Connection reset)",
            r"(?P<what>Max retries exceeded|ConnectTimeout|ReadTimeout|ConnectError|timed out)",
        ),
        fault="platform",
        sentence="the host does not reach the Hub ({what})",
        remedy="run `pulumi up` again; if it stays, the host has no way out and another is needed",
        rank=Rank.CONSEQUENCE,
    ),
)
"""Asked in this order of every line that the download printed."""
