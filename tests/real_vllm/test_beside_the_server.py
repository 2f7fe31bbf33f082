"""What else of a real vLLM the project counts on: its parser, and the Hub's command beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from components.plan import Plan
from components.tls import certificates
from components.tls.authorities import Authority
from components.vllm.agent_files import ON_HOST, model_env
from components.vllm.host_certificates import TAKEN_SECONDS, requested_key
from components.vllm.options import media
from components.vllm.options.option_table import OPTIONS_FOLDER
from components.vllm.profile import load_profile
from components.vllm.readiness.log_parser import diagnose_prefetch
from tests.helpers.places import ROOT
from tests.helpers.plan_scene import PRODUCTION, in_production, plan
from tests.helpers.polling import eventually
from tests.helpers.tls_host import TlsHost
from tests.real_vllm.pictures import ELSEWHERE, Pictures
from tests.real_vllm.world import MODELS, PROFILE
from toolchain.real_vllm.set_up import VENV

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def fetch(tmp_path, hub_cache, commit):
    """Run prefetch.sh on a host of its own, with the real `hf` and without a network."""
    assert commit
    serving = tmp_path / "serving"
    serving.mkdir()
    (serving / "prefetch.sh").write_bytes((ON_HOST / "prefetch.sh").read_bytes())

    def run(settings: str) -> subprocess.CompletedProcess[str]:
        (serving / "model.env").write_text(settings)
        return subprocess.run(
            ["sh", str(serving / "prefetch.sh")],
            env={
                "HOME": str(tmp_path),
                "PATH": f"{VENV / 'bin'}:/usr/bin:/bin",
                "HF_HUB_CACHE": str(hub_cache),
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_real_hub_command_tells_the_commit(fetch, tmp_path, commit):
    done = fetch(model_env(load_profile(PROFILE, MODELS)))
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "serving/state/resolved_revision").read_text().strip() == commit


def test_what_the_real_hub_command_lacks_is_explained(fetch):
    done = fetch("MODEL=vast-vllm/nothing\nFILES=params.json\nPREFETCH_TRIES=1\n")
    assert done.returncode == 1
    found = diagnose_prefetch(done.stdout)
    assert found is not None
    assert found.pattern == "hub_unreachable"


def test_the_committed_table_is_the_real_parser_s():
    code = "import json; from toolchain import vllm_options as v; print(json.dumps(v.own_table()))"
    done = subprocess.run(
        [str(VENV / "bin" / "python"), "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    table = json.loads(done.stdout.splitlines()[-1])
    assert table == json.loads((OPTIONS_FOLDER / f"{table['vllm']}.json").read_text())


FETCH = """
import asyncio, json, sys
from vllm.multimodal.media.connector import MediaConnector
domains, urls = json.loads(sys.argv[1])
connector = MediaConnector(allowed_media_domains=domains)
told = []

async def fetch_all():
    for url in urls:
        for meanwhile in (False, True):
            try:
                if meanwhile:
                    await connector.fetch_image_async(url)
                else:
                    connector.fetch_image(url)
                told.append("fetched")
            except Exception as error:
                told.append(f"{type(error).__name__}: {error}")

asyncio.run(fetch_all())
print(json.dumps(told))
"""
"""vLLM's own code for media, in both its ways, held to nothing but what `argv` and the variables
say."""


def fetched(made: Plan | None, *urls: str) -> list[str]:
    """What comes of each address, as a server of this plan would have it; None: as vLLM comes."""
    options = yaml.safe_load(made.serve_yaml) if made else {}
    words = shlex.split(made.environment) if made else []
    variables = dict(word.split("=", 1) for word in words)
    done = subprocess.run(
        [str(VENV / "bin" / "python"), "-c", FETCH, json.dumps([options.get(media.OPTION), urls])],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: list[str] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_without_the_settings_vllm_fetches_from_loopback_and_follows():
    """What the next tests are worth: the same code, asked for the same."""
    with Pictures() as other, Pictures(other.at("/secret.png")) as first:
        assert fetched(None, first.at("/a.png"), first.at(ELSEWHERE)) == ["fetched"] * 4
        assert other.asked == ["/secret.png"] * 2


def test_no_redirect_is_followed_even_where_pictures_come_from_anywhere():
    with Pictures() as other, Pictures(other.at("/secret.png")) as first:
        told = fetched(plan(mediaFrom="anywhere"), first.at("/a.png"), first.at(ELSEWHERE))
        assert told[:2] == ["fetched"] * 2
        assert all("cannot identify image file" in one for one in told[2:]), told
        assert first.asked == ["/a.png"] * 2 + [ELSEWHERE] * 2
        assert other.asked == []


def test_none_and_production_fetch_from_nowhere(tmp_path: Path):
    with Pictures() as other, Pictures(other.at("/secret.png")) as first:
        for made in (plan(mediaFrom="none"), in_production(tmp_path, settings=PRODUCTION)):
            told = fetched(made, first.at("/a.png"), first.at("/a.png", "localhost"))
            told += fetched(made, first.at(ELSEWHERE))
            assert len(told) == 6
            assert all("must be from one of the allowed domains" in one for one in told)
        assert first.asked == other.asked == []


def test_a_list_is_held_to_and_leads_nowhere_else(tmp_path: Path):
    with Pictures() as other, Pictures(other.at("/secret.png")) as first:
        for made in (
            plan(mediaFrom="a.example, b.example"),
            in_production(tmp_path, settings=PRODUCTION | {"mediaFrom": "a.example"}),
        ):
            told = fetched(made, first.at("/a.png"), first.at(ELSEWHERE), "http://2130706433/a.png")
            assert all("must be from one of the allowed domains" in one for one in told)
        assert first.asked == []
        # This computer is of the list under one of its names, and the other server under none.
        made = plan(mediaFrom="localhost")
        told = fetched(made, first.at("/a.png", "localhost"), first.at(ELSEWHERE, "localhost"))
        assert told[:2] == ["fetched"] * 2
        assert all("cannot identify image file" in one for one in told[2:]), told
        assert first.asked == ["/a.png"] * 2 + [ELSEWHERE] * 2
        assert other.asked == []


WATCH = """
import asyncio, sys
import uvicorn
from vllm.entrypoints.launchers.utils.ssl import SSLCertRefresher

async def app(scope, receive, send):
    pass

async def main():
    config = uvicorn.Config(
        app, port=int(sys.argv[1]), lifespan="off",
        ssl_keyfile="tls/key.pem", ssl_certfile="tls/cert.pem",
    )
    config.load()
    refresher = SSLCertRefresher(config.ssl, config.ssl_keyfile, config.ssl_certfile)
    await uvicorn.Server(config).serve()

asyncio.run(main())
"""
"""vLLM's own watcher over certificates, on a server as its launcher starts one."""


@pytest.mark.parametrize(("by_name", "taken_up"), [(False, 3), (True, 1)])
def test_vllm_takes_up_certificates_that_are_written_into_the_file_and_not_over_its_name(
    tmp_path, by_name, taken_up
):
    """What `supervise.sh certify` does, and what a host would do with `mv`."""
    host, authority = TlsHost(tmp_path), Authority.made(time.time())
    host.put({"supervise.sh": ((ON_HOST / "supervise.sh").read_bytes(), 0o755)})
    key = requested_key(host)

    def push() -> str:
        leaf = certificates.machine_certificate(
            *(authority.key, authority.certificate, key),
            ip="127.0.0.1",
            instance_id=7,
            now=time.time(),
        )
        host.put({"tls/pushed.pem": (leaf.encode(), 0o644)})
        how = "mv tls/pushed.pem tls/cert.pem" if by_name else "sh supervise.sh certify"
        assert host.run(f"cd serving && {how}").exit_status == 0
        return leaf

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def is_shown(leaf: str, within: float) -> bool:
        def look() -> bool:
            with contextlib.suppress(OSError):
                return ssl.get_server_certificate(("127.0.0.1", port), timeout=5) == leaf
            return False

        try:
            return eventually(look, within=within, every=0.2)
        except AssertionError:
            return False

    leaf = push()
    with subprocess.Popen(
        [str(VENV / "bin" / "python"), "-c", WATCH, str(port)],
        cwd=tmp_path / "serving",
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    ) as server:
        try:
            assert is_shown(leaf, within=120)
            taken = sum(is_shown(push(), within=TAKEN_SECONDS) for _ in range(3))
        finally:
            server.terminate()
    assert taken == taken_up
