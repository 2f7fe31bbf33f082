"""Pulumi's CLI: found, downloaded and held to its digest, or built out of its Go modules."""

from __future__ import annotations

import hashlib
import http.client
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from toolchain.checkout import BIN, ROOT, say, which

OLDEST_PULUMI = (3, 250, 0)
"""The oldest release that this was tried with."""

BUILT = "3.260.0"
"""The release of Pulumi's CLI that is built where none can be downloaded; see `pulumi/go.mod`."""

CLI = "3.259.0"
"""The release of Pulumi's CLI that is downloaded."""

CLI_SHA256 = {
    "linux-x64": "94ba357acac23d01474084c4b00098dc0f7bc70ce13f34c777459254a5f718e5",
    "linux-arm64": "edc8327463a72160bb36cf82cf5062da9c8a244290a706d9980988e7bf486853",
    "darwin-x64": "eaca4c3b8277bfa3ab061fa3b270d1c66358a0b2e613da8c5587a04b7226c534",
    "darwin-arm64": "57c27f179e527e2cf9f62b841a448af72a020e44b2fb4ee0d9bd85556c00c864",
}
"""Of its archives, as Pulumi's own Homebrew tap has them (github.com/pulumi/homebrew-tap at commit
51fb494, Formula/pulumi.rb)."""

CLI_URL = "https://github.com/pulumi/pulumi/releases/download/v{0}/pulumi-v{0}-{1}.tar.gz"

MOST_BYTES = 500_000_000
"""Of a download: three times what the archive has."""

HELPERS = {
    "pulumi-language-python-exec": "python/cmd/pulumi-language-python-exec",
    "pulumi-resource-pulumi-python": "python/dist/pulumi-resource-pulumi-python",
}
"""Scripts beside the CLI's binaries, by their place in the module `sdk/v3`."""
DOWNLOAD_SECONDS = 600.0


def pulumi_is_there() -> str:
    """Whether a recent CLI with its Python language host is in `.tools/bin` or on the `PATH`."""
    for place in (BIN / "pulumi", which("pulumi")):
        version = pulumi_version(place)
        if version < OLDEST_PULUMI or place is None:
            continue
        host = place.parent / "pulumi-language-python"
        if host.exists() or which("pulumi-language-python"):
            where = "in .tools" if place.parent == BIN else f"on the PATH ({place})"
            return f"{'.'.join(map(str, version))} {where}"
    return ""


def downloaded_pulumi_is_there() -> str:
    """Whether the very release that is downloaded is in `.tools/bin`."""
    there = ".".join(map(str, pulumi_version(BIN / "pulumi")))
    return f"{there} in .tools" if there == CLI else ""


def install_downloaded_pulumi() -> None:
    """Get Pulumi's own archive, and nothing in its place."""
    BIN.mkdir(parents=True, exist_ok=True)
    if not download_pulumi(platform_name("x64"), BIN):
        sys.exit("setup: Pulumi's CLI could not be downloaded; see above")


def install_pulumi() -> None:
    """Get the CLI: Pulumi's own archive, held to its digest, else out of its Go modules."""
    BIN.mkdir(parents=True, exist_ok=True)
    if download_pulumi(platform_name("x64"), BIN):
        return
    go = which("go")
    if go is None:
        sys.exit(
            "setup: there is no Pulumi CLI on the PATH, none could be downloaded, and there is no "
            "Go to build it; install Pulumi (3.250 or newer) or Go and retry"
        )
    build_pulumi(str(go))


def download_pulumi(
    wanted: str, folder: Path, fetch: Callable[[str], IO[bytes]] | None = None
) -> bool:
    """Whether the archive for a platform could be had; `fetch` opens a URL.

    Raises:
        SystemExit: if it is another one than was looked at; nothing of it is unpacked.
    """
    if wanted not in CLI_SHA256:
        return False
    url = CLI_URL.format(CLI, wanted)
    say(f"  downloading {url}")
    with tempfile.TemporaryFile() as archive:
        try:
            with (fetch or open_url)(url) as source:
                digest = copy_and_digest(source, archive, DOWNLOAD_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            say(f"  it could not be downloaded ({error})")
            return False
        if digest != CLI_SHA256[wanted]:
            sys.exit(
                f"setup: {url} is not the archive that it was: its SHA-256 is {digest} and has to "
                f"be {CLI_SHA256[wanted]}; nothing of it was unpacked. Install Pulumi yourself, or "
                "find out why"
            )
        archive.seek(0)
        unpack_pulumi(archive, folder)
    return True


def open_url(url: str) -> IO[bytes]:
    """Open a URL of this file's own."""
    opened: IO[bytes] = urllib.request.urlopen(url, timeout=30)  # noqa: S310  (https, from above)
    return opened


def copy_and_digest(source: IO[bytes], target: IO[bytes], seconds: float) -> str:
    """Copy what a server sends, within a time and a size, and give its SHA-256.

    Raises:
        OSError: if it sends more, or takes longer.
    """
    digest = hashlib.sha256()
    until = time.monotonic() + seconds
    size = 0
    while piece := source.read(1 << 20):
        size += len(piece)
        if size > MOST_BYTES or time.monotonic() > until:
            raise OSError(f"no end after {size / 1e6:.0f} MB and {seconds:.0f} s at most")
        digest.update(piece)
        target.write(piece)
    return digest.hexdigest()


def unpack_pulumi(archive: IO[bytes], folder: Path) -> None:
    """Put the archive's programs, which lie in its folder `pulumi/`, into `folder`."""
    with tarfile.open(fileobj=archive, mode="r:gz") as packed:
        for member in packed:
            name = Path(member.name).name
            content = packed.extractfile(member) if member.isfile() else None
            if content is None or not name.startswith("pulumi"):
                continue
            with (folder / name).open("wb") as program:
                shutil.copyfileobj(content, program)
            (folder / name).chmod(0o755)


def platform_name(intel: str) -> str:
    """This computer as Pulumi's archives name it, such as `linux-x64`; `intel` is its word."""
    machine = {"x86_64": intel, "amd64": intel, "aarch64": "arm64"}
    given = platform.machine().lower()
    return f"{platform.system().lower()}-{machine.get(given, given)}"


def build_pulumi(go: str) -> None:
    """Build CLI and language host from the module proxy: minutes once, seconds with Go's caches."""
    say("  building it from its Go modules: about 5 minutes on 2 cores, the first time")
    stamp = f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version={BUILT}"
    go_install(go, "language_host", "-s -w")
    go_install(go, "pulumi", f"-s -w {stamp}")
    module = subprocess.run(  # noqa: S603  (our own arguments)
        [go, "list", "-m", "-f", "{{.Dir}}", "github.com/pulumi/pulumi/sdk/v3"],
        cwd=ROOT / "toolchain" / "pulumi",
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    for name, place in HELPERS.items():
        shutil.copyfile(Path(module) / place, BIN / name)
        (BIN / name).chmod(0o755)


def go_install(go: str, module: str, linker_flags: str) -> None:
    """Build the tools that one module file names into `.tools/bin`, with a sign of life."""
    say(f"  go install ({module})")
    building = subprocess.Popen(  # noqa: S603  (our own arguments)
        [go, "install", "-trimpath", "-ldflags", linker_flags, "tool"],
        cwd=ROOT / "toolchain" / module,
        env={**os.environ, "GOBIN": str(BIN), "GOFLAGS": "-mod=readonly"},
    )
    started = time.monotonic()
    while True:
        try:
            status = building.wait(timeout=15)
        except subprocess.TimeoutExpired:
            say(f"  still building ({module}, {time.monotonic() - started:.0f} s)")
            continue
        if status != 0:
            sys.exit(f"setup: go install failed for {module} (status {status}); see above")
        return


def pulumi_version(place: Path | None) -> tuple[int, ...]:
    """Ask a CLI for its version; an empty tuple if it has none to tell."""
    if place is None or not place.exists():
        return ()
    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "1"}
    try:
        told = subprocess.run(  # noqa: S603  (our own arguments)
            [str(place), "version"], check=True, capture_output=True, text=True, env=environment
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", told.strip())
    return tuple(map(int, found.groups())) if found else ()
