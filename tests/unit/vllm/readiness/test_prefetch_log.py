from __future__ import annotations

import pytest

from components.vllm.readiness.diagnosis import diagnose
from components.vllm.readiness.log_parser import diagnose_prefetch
from components.vllm.readiness.log_patterns import PREFETCH, SERVER

CONFIGURATION = "configuration"
PLATFORM = "platform"

GATED_NEW = """\
prefetch: meta-llama/Llama-3 at main, files '*.json', try 1 of 5
Error: Access denied. Model 'meta-llama/Llama-3' requires approval.
prefetch: failed (exit 1), next try in 5 s
"""
GATED_OLD = """\
requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/api
The above exception was the direct cause of the following exception:
huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-69)

Cannot access gated repo for url https://huggingface.co/api/models/meta-llama/Llama-3/revision/main.
Access to model meta-llama/Llama-3 is restricted. You must have access to it.
"""
FULL_AFTER_A_TIMEOUT = """\
prefetch: mistralai/Model at main, files 'consolidated*', try 1 of 5
httpx.ReadTimeout: The read operation timed out
prefetch: failed (exit 1), next try in 5 s
prefetch: mistralai/Model at main, files 'consolidated*', try 2 of 5
Fetching 3 files:  33%|###       | 1/3\rOSError: [Errno 28] No space left on device
prefetch: another try cannot help (exit 1)
"""
LIMITED_THEN_CUT_OFF = """\
prefetch: mistralai/Model at main, files 'consolidated*', try 1 of 2
429 Client Error: Too Many Requests
prefetch: mistralai/Model at main, files 'consolidated*', try 2 of 2
httpx.ConnectError: [Errno 101] Network is unreachable
prefetch: gave up after 2 tries (exit 1)
"""
WARNED_AND_COMPLETE = """\
prefetch: mistralai/Model at main, files 'consolidated*', try 1 of 5
UserWarning: Not enough free disk space to download the file.
prefetch: complete: mistralai/Model at 0123
"""
RECOVERED = """\
prefetch: mistralai/Model at main, files 'consolidated*', try 1 of 5
429 Client Error: Too Many Requests
prefetch: mistralai/Model at main, files 'consolidated*', try 2 of 5
prefetch: complete: mistralai/Model at 0123
"""


@pytest.mark.parametrize(
    ("text", "name", "fault", "word"),
    [
        (GATED_NEW, "gated_model", CONFIGURATION, "meta-llama/Llama-3"),
        (GATED_OLD, "gated_model", CONFIGURATION, "meta-llama/Llama-3"),
        (FULL_AFTER_A_TIMEOUT, "disk_full", CONFIGURATION, "disk_gb"),
        (LIMITED_THEN_CUT_OFF, "hub_unreachable", PLATFORM, "Network is unreachable"),
        ("Error: Model 'a/b' not found.", "model_not_found", CONFIGURATION, "a/b"),
        ("Repository Not Found.", "model_not_found", CONFIGURATION, "no such model"),
        ("Error: File not found in model 'a/b'.", "files_not_found", CONFIGURATION, "a/b"),
        (
            "Entry Not Found for url: https://huggingface.co/a/b/resolve/main/x.json.",
            "files_not_found",
            CONFIGURATION,
            "a/b",
        ),
        ("Error: Access denied. Model 'a/b' requires approval.", "gated_model", CONFIGURATION, "a"),
        ("Error: Revision not found in model 'a/b'.", "revision_not_found", CONFIGURATION, "a/b"),
        ("Invalid user token.", "hub_token_refused", CONFIGURATION, "token"),
        ("403 Forbidden: None.\nCannot access content", "hub_token_refused", CONFIGURATION, ""),
        ("429 Too Many Requests: you have reached", "hub_rate_limited", PLATFORM, "429"),
        ("503 Server Error: Service Unavailable", "hub_failed", PLATFORM, "503"),
        ("Server error '502 Bad Gateway' for url", "hub_failed", PLATFORM, "502"),
        ("Data processing error: CAS service error", "hub_failed", PLATFORM, "Data processing"),
        ("Local entry not found. [Errno 111]", "hub_unreachable", PLATFORM, "Hub"),
        ("Temporary failure in name resolution", "hub_unreachable", PLATFORM, "resolution"),
        ("Connection refused", "hub_unreachable", PLATFORM, "refused"),
        ("requests.ReadTimeout: read timed out", "hub_unreachable", PLATFORM, "ReadTimeout"),
        (
            (
                "prefetch: no file of a/b at 01 matches 'x'\n"
                "prefetch: nothing of a/b at 01 matches what model.env names"
            ),
            "files_not_found",
            CONFIGURATION,
            "a/b",
        ),
        ("prefetch: No such directory: '/m'", "model_not_found", CONFIGURATION, "/m"),
        ("prefetch: the image has no 'hf' command", "no_hf", CONFIGURATION, "hf"),
        (
            "prefetch: the image has vLLM 0.33.0 and mistral_common 1.13.1",
            "mistral_common_too_new",
            CONFIGURATION,
            "1.13.1 is newer than its vLLM 0.33.0 can use",
        ),
        ("hf: error: unrecognized arguments: --include", "hf_refused", CONFIGURATION, "--include"),
        ("Error: No such option: --include", "hf_refused", CONFIGURATION, "option"),
    ],
)
def test_what_a_failed_download_printed(text: str, name: str, fault: str, word: str) -> None:
    found = diagnose_prefetch(text)
    assert found is not None
    assert (found.pattern, found.fault) == (name, fault)
    assert word in found.text
    assert "?" not in found.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        RECOVERED,
        WARNED_AND_COMPLETE,
        "prefetch: complete since before: a/b at 01\n",
        "prefetch: a/b at main, files 'consolidated*', try 1 of 5\n",
        "prefetch: gave up after 5 tries (exit 1)\n",
    ],
)
def test_a_download_that_succeeded_goes_on_or_says_nothing_known(text: str) -> None:
    assert diagnose_prefetch(text) is None


def test_what_only_a_download_may_say_is_no_cause_in_a_server_s_log() -> None:
    line = "ConnectionRefusedError: [Errno 111] Connection refused"
    assert diagnose(line, SERVER) is None
    assert diagnose(line, PREFETCH) is not None
