from __future__ import annotations

import pytest

from components.plan import MODELS
from components.vllm.errors import ProfileError
from components.vllm.options.environment_names import (
    FORBIDDEN_ENV,
    NAMES,
    OF_THE_STACK,
    is_known,
)
from components.vllm.profile import load_profile

DEFAULT = "mistral-small-4-fp8-2xh200"


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONWARNINGS"),
        *("VLLM_PLUGINS", "VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_NCCL_SO_PATH"),
        *("VLLM_LOGGING_CONFIG_PATH", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_USE_MODELSCOPE"),
        *("VLLM_MODEL_REDIRECT_PATH", "VLLM_MEDIA_CONNECTOR", "VLLM_USAGE_STATS_SERVER"),
        *("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "VLLM_RUST_FRONTEND_PATH", "VLLM_HOST_IP"),
        *("HF_ENDPOINT", "HF_HUB_TOKEN", "HTTPS_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
        *("FORWARDED_ALLOW_IPS", "UVICORN_WORKERS", "WEB_CONCURRENCY", "BASH_ENV", "CC", "SHELL"),
        *("NCCL_NET_PLUGIN", "NCCL_TUNER_PLUGIN", "NCCL_PROFILER_PLUGIN", "NCCL_CONF_FILE"),
        *("NCCL_TOPO_FILE", "NCCL_DEBUG_FILE", "NCCL_COMM_ID", "TORCH_LOGS_OUT", "CUDA_HOME"),
        *("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "VLLM_CACHE_ROOT", "AWS_ACCESS_KEY_ID"),
        *("VLLM_SOMETHING_NEW", "nccl_debug", "NCCL_", "XNCCL_DEBUG"),
    ],
)
def test_what_nobody_has_let_in_is_refused(name):
    assert not is_known(name)
    with pytest.raises(ProfileError, match=f"env must not set '?{name}"):
        load_profile(DEFAULT, MODELS).with_overrides(env={name: "x"})


@pytest.mark.parametrize("name", ["VLLM_LOGGING_LEVEL", "NCCL_P2P_DISABLE", "NCCL_SOCKET_IFNAME"])
def test_what_is_known_is_taken(name):
    assert load_profile(DEFAULT, MODELS).with_overrides(env={name: "x"}).env[name] == "x"


def test_a_slip_is_told_what_was_meant():
    with pytest.raises(ProfileError, match=r"did you mean 'VLLM_LOGGING_LEVEL'\?"):
        load_profile(DEFAULT, MODELS).with_overrides(env={"VLLM_LOGING_LEVEL": "INFO"})


def test_nothing_is_let_in_and_forbidden():
    assert not {name for name in {*FORBIDDEN_ENV, *OF_THE_STACK} if is_known(name)}


def test_no_name_leads_to_a_file_or_a_place():
    loud = ("PATH", "FILE", "_DIR", "URL", "ENDPOINT", "PROXY", "PLUGIN", "HOME", "_SO")
    assert not {name for name in NAMES for part in loud if part in name.split("_")}
