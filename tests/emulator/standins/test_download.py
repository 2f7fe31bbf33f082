"""Downloads from the emulated Hub: what lands where, how fast, at what price."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from emulator.standins.download import Seen, fetch
from emulator.standins.host import Host
from emulator.standins.hub import (
    GatedRepoError,
    HubError,
    Repository,
    commit_of,
    open_repository,
)
from emulator.standins.hub_cache import PlainFolder, RepositoryCache, cache_root, snapshot_of
from tests.emulator.standins.support import MISTRAL, QWEN, host_with
from tests.helpers.fakes import VirtualClock

GATED = "meta-llama/Llama-3.2-1B-Instruct"


def download(
    host: Host, repository: Repository, *include: str, clock: VirtualClock | None = None
) -> list[Seen]:
    seen: list[Seen] = []
    store = RepositoryCache(cache_root({"HOME": str(host.root)}), repository)
    store.prepare("main")
    files = repository.matching(include)
    fetch(host, store, files, clock=clock or VirtualClock(), report=seen.append)
    return seen


def traffic(host: Host) -> int:
    return int((host.directory / "traffic").read_text())


@pytest.mark.parametrize(
    ("name", "pattern", "files", "size"),
    [
        (MISTRAL, "consolidated*", 25, 120_923_000_000),
        (MISTRAL, "*.safetensors", 50, 241_846_000_000),
        (f"{MISTRAL}-NVFP4", "consolidated*", 13, 70_800_000_000),
        (f"{MISTRAL}-eagle", "*.safetensors", 1, 392_000_000),
        (QWEN, "*.safetensors", 1, 988_097_824),
    ],
)
def test_repositories_have_the_published_sizes(
    name: str, pattern: str, files: int, size: int, tmp_path: Path
) -> None:
    found = open_repository(host_with(tmp_path), name, token=None).matching([pattern])

    assert len(found) == files
    assert sum(file.size for file in found) == size


def test_a_commit_is_forty_hex_digits_and_visibly_not_real() -> None:
    assert len(commit_of(MISTRAL)) == 40
    assert int(commit_of(MISTRAL), 16) > 0
    assert commit_of(MISTRAL).startswith("000000000000")
    assert commit_of(MISTRAL) != commit_of(QWEN)


@pytest.mark.parametrize(
    ("name", "token", "revision", "said"),
    [
        ("no/such", None, "main", "401 Client Error"),
        ("no/such", "x", "main", "Repository Not Found for url"),
        (GATED, None, "main", "Please log in"),
        (QWEN, None, "v2", "Revision Not Found for url"),
    ],
)
def test_the_hub_refuses(
    name: str, token: str | None, revision: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(HubError, match=said):
        open_repository(host_with(tmp_path), name, token=token, revision=revision)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "Cannot access gated repo for url"),
        ("x", "is restricted and you are not in the authorized list"),
    ],
)
def test_a_fault_makes_any_repository_gated(token: str | None, said: str, tmp_path: Path) -> None:
    host = host_with(tmp_path, faults={"gated_model": {}})

    with pytest.raises(GatedRepoError, match=said):
        open_repository(host, QWEN, token=token)


def test_a_gated_repository_opens_with_a_token_and_at_its_commit(tmp_path: Path) -> None:
    host = host_with(tmp_path)

    repository = open_repository(host, GATED, token="x", revision=commit_of(GATED))

    assert repository.commit == commit_of(GATED)


def test_files_lie_as_in_the_real_cache_and_are_paid_for(tmp_path: Path) -> None:
    host = host_with(tmp_path)
    repository = open_repository(host, QWEN, token=None)

    download(host, repository)

    snapshot = snapshot_of(cache_root({"HOME": str(host.root)}), QWEN)
    assert snapshot is not None
    assert snapshot.name == repository.commit
    root = cache_root({"HOME": str(host.root)})
    assert snapshot_of(root, QWEN, repository.commit) == snapshot
    assert snapshot_of(root, QWEN, "f" * 40) is None
    assert snapshot_of(root, QWEN, "another-branch") is None
    assert snapshot.parts[-4:-1] == ("hub", "models--Qwen--Qwen2.5-0.5B-Instruct", "snapshots")
    weights = snapshot / "model.safetensors"
    assert weights.is_symlink()
    assert weights.stat().st_size == 988_097_824
    assert weights.resolve().parent == snapshot.parent.parent / "blobs"
    assert b'"Qwen2ForCausalLM"' in (snapshot / "config.json").read_bytes()
    assert traffic(host) == sum(file.size for file in repository.files)
    assert not list(host.root.rglob("*.incomplete"))


def test_the_link_decides_how_long_it_takes(tmp_path: Path) -> None:
    host = host_with(tmp_path, speed=1.0, inet_down_mbps=1000.0)
    clock = VirtualClock()

    seen = download(host, open_repository(host, QWEN, token=None), "*.safetensors", clock=clock)

    assert clock.passed == pytest.approx(988_097_824 * 8 / 1e9, abs=0.2)
    shares = [one.bytes / one.bytes_total for one in seen]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.02
    assert shares[-1] == 1


def test_a_slow_link_is_slow(tmp_path: Path) -> None:
    host = host_with(tmp_path, faults={"download_slow": {"mbps": 800}})
    clock = VirtualClock()

    download(host, open_repository(host, QWEN, token=None), "*.safetensors", clock=clock)

    assert clock.passed * host.speed == pytest.approx(988_097_824 * 8 / 800e6, rel=0.1, abs=100)


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    host = host_with(tmp_path)
    repository = open_repository(host, QWEN, token=None)
    download(host, repository, "*.json")
    before = traffic(host)

    download(host, repository, "*.json")
    download(host, repository, "*.json", "merges.txt")

    assert traffic(host) == before + len("#version: 0.2\n")


class Interrupted(Exception):
    pass


class ImpatientClock(VirtualClock):
    """Gives up as soon as something waits for long: a download that hangs."""

    def sleep(self, seconds: float) -> None:
        if seconds > 60:
            raise Interrupted
        super().sleep(seconds)


def test_a_download_hangs_at_its_share_and_complete_files_stay(tmp_path: Path) -> None:
    host = host_with(tmp_path, speed=20.0, faults={"download_hang": {"at": 0.5}})
    repository = open_repository(host, MISTRAL, token=None)

    with pytest.raises(Interrupted):
        download(host, repository, "consolidated*", clock=ImpatientClock())

    assert traffic(host) == pytest.approx(60_461_500_000, abs=2)
    complete = list(host.root.rglob("blobs/*"))
    assert 8 <= len(complete) <= 12
    healed = host_with(tmp_path / "same", speed=20.0)
    assert traffic(healed) == 0


@pytest.mark.parametrize(
    ("facts", "arrived"),
    [
        ({"faults": {"disk_full": {"at": 0.25}}}, 30_230_750_000),
        ({"disk_gb": 100.0}, 100_000_000_000),
        ({"disk_gb": 100.0, "image_gb": 30.0}, 70_000_000_000),
        ({"faults": {"disk_short": {"gb": 60}}}, 60_000_000_000),
    ],
)
def test_a_full_disk_ends_a_download(facts: dict[str, Any], arrived: int, tmp_path: Path) -> None:
    host = host_with(tmp_path, speed=20.0, **facts)
    repository = open_repository(host, MISTRAL, token=None)

    with pytest.raises(OSError, match="No space left on device") as ended:
        download(host, repository, "consolidated*")

    assert ended.value.errno == errno.ENOSPC
    assert traffic(host) == pytest.approx(arrived, abs=10_000)
    assert not list(host.root.rglob("*.incomplete"))


def test_a_plain_folder_has_the_files_themselves(tmp_path: Path) -> None:
    host = host_with(tmp_path)
    repository = open_repository(host, QWEN, token=None)
    store = PlainFolder(host.root / "model")
    store.prepare("main")

    for _ in range(2):
        fetch(
            host,
            store,
            repository.matching(["config.json"]),
            clock=VirtualClock(),
            report=lambda _: None,
        )

    assert b"qwen2" in (host.root / "model" / "config.json").read_bytes()
    assert traffic(host) == (host.root / "model" / "config.json").stat().st_size
