"""What a log says of the Hub, and of the download from it."""

from __future__ import annotations

from components.vllm.readiness.diagnosis import Pattern, Rank

_REPOSITORY = r"https?://[^/\s]{1,200}/(?:api/models/)?(?P<repository>[^/\s]{1,200}/[^/\s?]{1,200})"

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

DOWNLOAD = (
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
"""What `prefetch.sh` and the Hub's own command print beside that."""
