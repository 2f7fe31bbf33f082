"""`hf`: the Hub's own command line, as far as downloading goes, against the emulated Hub.

Options, wording and exit codes are those of huggingface_hub 2.4.0: 0, 1 when the Hub or the disk
refuses, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from components.core.clock import SystemClock
from components.core.progress import duration, size
from emulator.standins import disk
from emulator.standins.download import WORKERS, Seen, fetch
from emulator.standins.host import Host, host_or_exit
from emulator.standins.hub import HubError, HubFile, Repository, open_repository
from emulator.standins.hub_cache import (
    PlainFolder,
    RepositoryCache,
    cache_root,
    snapshot_of,
)

VERSION = "2.4.0"

_BAR = 10
_FRAME = """Traceback (most recent call last):
  File "/usr/local/bin/hf", line 10, in <module>
    sys.exit(main())
             ^^^^^^
  File "/usr/local/lib/python3.12/dist-packages/huggingface_hub/cli/hf.py", line 168, in main
    app(windows_expand_args=False)
  File "/usr/local/lib/python3.12/dist-packages/huggingface_hub/cli/download.py", line 166, in \
run_download
    return snapshot_download("""


class EntryNotFoundError(HubError):
    """The repository has no file of the name that was asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `hf` with `arguments` (the process's own if None) and return its exit status."""
    host = host_or_exit("hf", os.environ)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] in (["version"], ["--version"], ["-v"]):
        _say(VERSION)
        return 0
    asked = _parse(words)
    try:
        return _download(host, asked, os.environ)
    except HubError as error:
        return _refused(error, os.environ)
    except OSError as error:
        _warn_of_space(host, asked)
        _complain(f"{_FRAME}\nOSError: [Errno {error.errno}] {error.strerror}: {error.filename!r}")
        return 1


def _download(host: Host, asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    root = Path(asked.cache_dir) if asked.cache_dir else cache_root(environ)
    if environ.get("HF_HUB_OFFLINE") == "1":
        return _offline(root, asked)
    token = asked.token or environ.get("HF_TOKEN")
    repository = open_repository(host, asked.repo_id, token=token, revision=asked.revision)
    files = _wanted(repository, asked)
    store = (
        PlainFolder(Path(asked.local_dir).absolute())
        if asked.local_dir
        else RepositoryCache(root.absolute(), repository)
    )
    if asked.dry_run:
        _dry_run([file for file in files if not store.has(file)], len(files))
        return 0
    store.prepare(asked.revision)
    report = _progress(asked, environ)
    fetch(host, store, files, clock=SystemClock(), workers=asked.max_workers, report=report)
    report(Seen(len(files), len(files), 0, 0, 0))
    one = len(asked.filenames) == 1 and not asked.filenames[0].endswith("/")
    path = store.destination / asked.filenames[0] if one else store.destination
    _say(str(path) if asked.quiet else f"✓ Downloaded\n  path: {path}")
    return 0


def _wanted(repository: Repository, asked: argparse.Namespace) -> list[HubFile]:
    if not asked.filenames:
        files = repository.matching(asked.include, asked.exclude)
        if not files:
            _complain(f"No files matched allow_patterns={asked.include!r}.")
        return files
    known = {file.name for file in repository.files}
    for name in asked.filenames:
        if not name.endswith("/") and name not in known:
            raise EntryNotFoundError(
                f"404 Client Error.\n\nEntry Not Found for url: "
                f"https://huggingface.co/{repository.name}/resolve/main/{name}.",
                f"File not found in model '{repository.name}'.\n"
                f"URL: https://huggingface.co/{repository.name}/resolve/main/{name}",
            )
    return repository.matching(asked.filenames)


def _offline(root: Path, asked: argparse.Namespace) -> int:
    snapshot = snapshot_of(root, asked.repo_id, asked.revision)
    if snapshot is not None:
        _say(str(snapshot) if asked.quiet else f"✓ Downloaded\n  path: {snapshot}")
        return 0
    _complain(
        f"Error: Cannot reach https://huggingface.co/api/models/{asked.repo_id}/revision/"
        f"{asked.revision}: offline mode is enabled. To disable it, please unset the "
        "`HF_HUB_OFFLINE` environment variable."
    )
    return 1


def _dry_run(missing: list[HubFile], count: int) -> None:
    total = size(sum(file.size for file in missing))
    _say(f"[dry-run] Will download {len(missing)} files (out of {count}) totalling {total}.")
    for file in missing:
        _say(f"{file.name}  {size(file.size)}")


def _refused(error: HubError, environ: Mapping[str, str]) -> int:
    if environ.get("HF_DEBUG"):
        _complain(f"{_FRAME}\nhuggingface_hub.errors.{error.kind}: {error}")
    _complain(f"Error: {error.for_command}")
    if not environ.get("HF_DEBUG"):
        _complain("Hint: set HF_DEBUG=1 as environment variable for full traceback.")
    return 1


def _warn_of_space(host: Host, asked: argparse.Namespace) -> None:
    _complain(
        "/usr/local/lib/python3.12/dist-packages/huggingface_hub/file_download.py:773: "
        "UserWarning: Not enough free disk space to download the file. The target location "
        f"{asked.local_dir or 'of the cache'} only has {disk.free_bytes(host) / 1e6:.2f} MB free "
        "disk space.\n  warnings.warn("
    )


def _progress(asked: argparse.Namespace, environ: Mapping[str, str]) -> Callable[[Seen], None]:
    if asked.quiet or environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "0").lower() in ("1", "true"):
        return lambda _: None
    return _draw


def _draw(seen: Seen) -> None:
    share = seen.files / seen.files_total if seen.files_total else 1.0
    bar = ("█" * round(share * _BAR)).ljust(_BAR)
    counts = f"{seen.files}/{seen.files_total}"
    left = (seen.bytes_total - seen.bytes) / seen.rate if seen.rate else 0.0
    line = f"\rFetching {seen.files_total} files: {share:>4.0%}|{bar}| {counts}"
    if seen.bytes_total:
        line += f" [{size(seen.bytes)}/{size(seen.bytes_total)}, {duration(left)} left]"
    sys.stderr.write(line + ("\n" if seen.files == seen.files_total else ""))
    sys.stderr.flush()


def _parse(words: list[str]) -> argparse.Namespace:
    if words[:1] != ["download"]:
        said = f"No such command '{words[0]}'." if words else "Missing command."
        _usage("hf [OPTIONS] COMMAND [ARGS]...", "hf", said)
    parser = _Parser(prog="hf download", add_help=False, allow_abbrev=False)
    parser.add_argument("repo_id")
    parser.add_argument("filenames", nargs="*")
    parser.add_argument("--revision", default="main")
    parser.add_argument("--include", action="append", default=[])
    parser.add_argument("--exclude", action="append", default=[])
    parser.add_argument("--cache-dir")
    parser.add_argument("--local-dir")
    parser.add_argument("--token")
    parser.add_argument("--max-workers", type=int, default=WORKERS)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("-q", "--quiet", action="store_true")
    asked, unknown = parser.parse_known_intermixed_args(words[1:])
    if unknown:
        parser.error(f"No such option: {unknown[0]}")
    return asked


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required: repo_id"):
            message = "Missing argument 'REPO_ID'."
        _usage("hf download [OPTIONS] REPO_ID [FILENAMES]...", self.prog, message)


def _usage(usage: str, command: str, message: str) -> NoReturn:
    _complain(f"Usage: {usage}\nTry '{command} --help' for help.\n\nError: {message}")
    raise SystemExit(2)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (the command's own output)


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  (the command's own output)


if __name__ == "__main__":
    sys.exit(main())
