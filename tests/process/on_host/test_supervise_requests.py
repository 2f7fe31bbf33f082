from __future__ import annotations

import hashlib
import stat

import pytest

from tests.helpers.supervised_container import Container

# --------------------------------------------------------------------------- requests

CURL = """
while [ "$#" -gt 1 ]; do
    [ "$1" != --config ] || cp "$2" "$HOME/curl.config"
    shift
done
echo "$1" >"$HOME/curl.url"
cat <<'END'
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0"} 9.0
vllm:request_success_total{engine="0",finished_reason="stop"} 1.2e+01
vllm:request_success_total{engine="0",finished_reason="abort"} 1.0
END
"""


@pytest.mark.parametrize(
    ("yaml", "url"),
    [
        ("port: 8000\nssl-keyfile: tls/key.pem\n", "https://127.0.0.1:8000/metrics"),
        ("port: 8123\n", "http://127.0.0.1:8123/metrics"),
    ],
)
@pytest.mark.usefixtures("weights_are_there")
def test_requests_are_vllms_counters_read_with_the_hosts_own_key(
    container: Container, yaml: str, url: str
) -> None:
    (container.serving / "serve.yaml").write_text(yaml)
    container.command("curl", CURL)
    container.supervise("start")
    container.until(phase="serving")

    said = container.supervise("requests")

    assert said.stdout.splitlines() == ["running=4", "waiting=2", "finished=13"]
    assert (container.home / "curl.url").read_text().strip() == url
    config = (container.home / "curl.config").read_text()
    key = config.removeprefix('header = "Authorization: Bearer ').removesuffix('"\n')
    assert len(key) == 64
    assert key not in " ".join(container.calls("curl"))
    known = (container.serving / "local_keys").read_text().strip()
    assert known == hashlib.sha256(key.encode()).hexdigest()
    for name in ("local_keys", "state/local_key"):
        assert stat.S_IMODE((container.serving / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.usefixtures("weights_are_there")
def test_the_host_shows_a_certificate_to_its_own_server_if_that_asks(
    container: Container, asks: bool
) -> None:
    options = "ssl-keyfile: tls/key.pem\n" + ("ssl-ca-certs: tls/clients.pem\n" if asks else "")
    (container.serving / "serve.yaml").write_text(options)
    container.command("curl", CURL)
    container.supervise("start")
    container.until(phase="serving")
    container.supervise("requests")
    (call,) = container.calls("curl")
    tls = container.serving / "tls"
    assert (f"--cert {tls}/local.pem --key {tls}/local.key" in call) is asks


def test_requests_fail_when_vllm_does_not_answer(container: Container) -> None:
    container.command("curl", "exit 7")
    said = container.supervise("requests")
    assert (said.returncode, said.stdout) == (1, "")


def test_requests_fail_when_vllm_counts_none(container: Container) -> None:
    """As with vLLM's disable-log-stats: zeros would tell the watch that nobody asks."""
    container.command("curl", "echo 'python_info 1.0'")
    said = container.supervise("requests")
    assert (said.returncode, said.stdout) == (1, "")


@pytest.mark.usefixtures("weights_are_there")
def test_the_hosts_own_key_stays_over_a_restart(container: Container) -> None:
    container.supervise("start")
    container.until(phase="serving")
    before = (container.serving / "state" / "local_key").read_bytes()
    container.supervise("restart")
    container.until(phase="serving")
    assert (container.serving / "state" / "local_key").read_bytes() == before
