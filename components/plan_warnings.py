"""Warnings about settings and options that may not work as intended. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from components.settings import Settings
from components.vllm import image_cuda
from components.vllm.hub_references import Reference
from components.vllm.image_name import vllm_in
from components.vllm.options import known_holes, media
from components.vllm.options.option_table import load_table
from components.vllm.profile import Profile
from components.vllm.readiness.plan import short_deadline_warning


def plan_warnings(
    settings: Settings,
    profile: Profile,
    options: Mapping[str, Any],
    *,
    media_from: str,
    implicit: Iterable[str],
    references: Iterable[Reference],
) -> list[str]:
    """Give all warnings, a sentence each.

    Args:
        settings: the stack's.
        profile: with the stack's overrides in it.
        options: the server's, as rendered.
        media_from: whom the server fetches pictures from, as `media.parsed` gives it.
        implicit: repositories that vLLM fetches by itself while it starts.
        references: what is taken from the Hub before.
    """
    return [
        *_implicit_download_warnings(implicit),
        *_load_format_warnings(profile, options),
        *_missing_counts_warnings(options),
        *_cut_answers_warnings(options),
        *image_cuda.warnings(profile),
        *_version_warnings(settings.image, profile.vllm_version),
        *filter(None, [known_holes.warning(profile.vllm_version)]),
        *filter(None, [short_deadline_warning(profile, settings.ready_minutes)]),
        *_media_warnings(profile, options, media_from),
        *_unused_revision_warnings(settings, references),
        *_clear_text_warnings(settings),
        *_shared_key_warnings(settings),
    ]


def _implicit_download_warnings(repositories: Iterable[str]) -> list[str]:
    return [
        f"the vLLM options name {name}, which is no companion of the profile: vLLM fetches it "
        "unseen while it starts, and no figure here counts it; add it to companions"
        for name in repositories
    ]


def _load_format_warnings(profile: Profile, options: Mapping[str, Any]) -> list[str]:
    """Warn of another format: the profile's files are those of its own format."""
    asked, own = options.get("load-format"), profile.flags.get("load-format")
    if asked == own:
        return []
    message = (
        f"load-format is {asked or 'unset'} and {own or 'unset'} in the profile {profile.name}: "
        "vLLM may want other files than those that are fetched before, and fetch them unseen; set "
        "it in a profile, with its files"
    )
    return [message]


def _missing_counts_warnings(options: Mapping[str, Any]) -> list[str]:
    """Warn of a release without counts of requests; settings may not switch them off."""
    if not options.get("disable-log-stats"):
        return []
    message = (
        "the release takes vLLM's counts of requests away (disable-log-stats): idleMinutes never "
        "ends its machine, its end waits for no client, and one that hangs is not found; write a "
        "release without it"
    )
    return [message]


def _cut_answers_warnings(options: Mapping[str, Any]) -> list[str]:
    """Warn of several API servers: measured with vLLM 0.26.0 and 0.32.0, a stop ends none."""
    api_servers = options.get("api-server-count", options.get("data-parallel-size", 1))
    if int(api_servers) <= 1:
        return []
    message = (
        "with several API servers (api-server-count) vLLM cuts off the requests under way whenever "
        "it stops; with one they end"
    )
    return [message]


def _version_warnings(image: str, version: str) -> list[str]:
    """Report which vLLM's options were checked, where another vLLM may run."""
    messages = []
    if image and vllm_in(image) is None:
        messages.append(
            f"the name of the image {image} does not say which vLLM it holds, so the options are "
            f"checked as those of vLLM {version}, the profile's: if it holds another one, what "
            "that does not know shows only when it starts"
        )
    table = load_table(version)
    return [*messages, table.stands_in] if table.stands_in else messages


def _media_warnings(profile: Profile, options: Mapping[str, Any], media_from: str) -> list[str]:
    """Warn of addresses that requests can have fetched, if the model takes media at all."""
    if "vision" not in profile.abilities or options.get("language-model-only"):
        return []
    known = load_table(profile.vllm_version).variables
    mode = str(options.get("tokenizer-mode", ""))
    return [*filter(None, [media.warning(media_from, known, mode)])]


def _unused_revision_warnings(settings: Settings, references: Iterable[Reference]) -> list[str]:
    """Report `revisions` of repositories that are not used, as after a change of the model."""
    taken = {reference.repository for reference in references}
    return [
        f"revisions names {name}, which this stack does not take"
        for name in sorted(set(settings.revisions) - taken)
    ]


def _clear_text_warnings(settings: Settings) -> list[str]:
    if settings.tls:
        return []
    return ["tls is off: keys, prompts and answers cross the network in clear"]


def _shared_key_warnings(settings: Settings) -> list[str]:
    if not (settings.shared_api_key and settings.is_fleet):
        return []
    return ["sharedApiKey does nothing with several machines: each takes a key of its own"]
