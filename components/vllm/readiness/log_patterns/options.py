"""What a log says that the options and the image cause: the same on every host."""

from __future__ import annotations

from components.vllm.readiness.diagnosis import Pattern

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
        name="chat_template_missing",
        expressions=(
            (
                r"supplied chat template (?:string )?\((?P<path>[^)]{0,500})\) "
                r"(?:appears path-like|looks like a file path)"
            ),
        ),
        fault="configuration",
        sentence="there is no chat template {path} on the host",
        remedy="put it into models/ and name it from there, or write its text into chat-template",
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
        name="model_class_missing",
        expressions=(
            r"Model architectures (?P<model>\[[^\]]{0,200}\]) are not supported for now",
            (
                r"model type `(?P<model>[^`]{0,100})` but Transformers does not recognize this "
                r"architecture"
            ),
        ),
        fault="configuration",
        sentence="the image's vLLM has no class for the model ({model})",
        remedy="take an image whose vLLM knows the model, or another model",
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
        remedy="set max_model_len to at most {possible}, or make the model longer by YaRN: "
        "hf-overrides with the rope_parameters of the model's card",
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
        expressions=(r"No module named '(key|metrics)_gate'",),
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
