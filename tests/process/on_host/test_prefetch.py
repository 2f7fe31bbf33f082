from __future__ import annotations

import functools
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.supervised_container import COMMIT, DOWNLOADS, SETTINGS, Container

# --------------------------------------------------------------------------- prefetch


def test_each_pattern_is_fetched_at_one_commit(container: Container) -> None:
    done = container.prefetch()

    assert done.returncode == 0
    assert container.calls("hf") == [
        "download org/model --revision main --include *.json",
        f"download org/model --revision {COMMIT} --include consolidated*.safetensors",
    ]
    assert (container.serving / "state" / "resolved_revision").read_text().strip() == COMMIT


@pytest.mark.parametrize(
    "printed",
    [
        "echo $folder",
        'echo "Fetching 3 files"; echo "$folder"',
        "printf '✓ Downloaded\\n  path: %s\\n' \"$folder\"",
        'echo "{\\"path\\": \\"$folder\\"}"',
    ],
)
def test_the_commit_is_found_in_what_any_hf_prints(container: Container, printed: str) -> None:
    body = DOWNLOADS.partition('echo "✓')[0]
    container.command("hf", body + printed)

    assert container.prefetch().returncode == 0
    assert (container.serving / "state" / "resolved_revision").read_text().strip() == COMMIT


def test_what_was_fetched_before_is_not_asked_for_again(container: Container) -> None:
    container.prefetch()
    container.command("hf", "echo no network >&2; exit 1")

    again = container.prefetch()

    assert again.returncode == 0
    assert "complete since before" in again.stdout
    assert len(container.calls("hf")) == 2


def test_another_cache_is_filled_before_the_server_starts(container: Container) -> None:
    container.command("hf", DOWNLOADS.replace("$HF_HOME/hub", "${HF_HUB_CACHE:-$HF_HOME/hub}"))
    container.prefetch()
    cache = container.home / "data"

    there = container.prefetch(HF_HUB_CACHE=str(cache))

    assert "complete since before" not in there.stdout
    assert (cache / f"models--org--model/snapshots/{COMMIT}/params.json").is_file()
    assert "complete since before" in container.prefetch(HF_HUB_CACHE=str(cache)).stdout
    assert "complete since before" in container.prefetch().stdout


def test_a_mark_of_before_it_named_the_cache_holds_where_its_files_are(
    container: Container,
) -> None:
    cache = container.home / "data"
    container.command("hf", DOWNLOADS.replace("$HF_HOME/hub", "$HF_HUB_CACHE"))
    container.prefetch(HF_HUB_CACHE=str(cache))
    mark = container.serving / "state/prefetched"
    mark.write_text(mark.read_text().replace(f"HF_HUB_CACHE={cache}\n", ""))
    container.command("hf", "echo no network >&2; exit 1")

    assert "complete since before" in container.prefetch(HF_HUB_CACHE=str(cache)).stdout
    mark.write_text(mark.read_text().replace(f"HF_HUB_CACHE={cache}\n", ""))
    elsewhere = container.prefetch(HF_HUB_CACHE=str(container.home / "elsewhere"))
    assert "complete since before" not in elsewhere.stdout


@pytest.mark.parametrize(
    "changed",
    [{"MODEL": "org/other"}, {"REVISION": "v2"}, {"FILES": "*.json"}],
)
@pytest.mark.usefixtures("weights_are_there")
def test_something_else_is_fetched(container: Container, changed: dict[str, str]) -> None:
    before = len(container.calls("hf"))
    container.settings(**changed)

    assert container.prefetch().returncode == 0
    assert len(container.calls("hf")) > before


def image_with(container: Container, versions: dict[str, str]) -> None:
    """Let the image's Python find these packages, and say that the model wants Mistral's own."""
    site = container.home / "site"
    for name, version in versions.items():
        described = site / f"{name}-{version}.dist-info"
        described.mkdir(parents=True)
        (described / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    container.command("python3", f'exec {sys.executable} -S -c "import sys; {SEES}" "$2" "$HOME"')
    (container.serving / "serve.yaml").write_text("model: org/model\ntokenizer-mode: mistral\n")


SEES = "sys.path.append(sys.argv[2] + '/site'); exec(sys.argv[1])"


@pytest.mark.parametrize("vllm", ["0.20.0", "0.32.0", "0.32.1.dev3+gabc", "0.33.0"])
def test_an_image_that_would_refuse_every_chat_fetches_nothing(
    container: Container, vllm: str
) -> None:
    image_with(container, {"vllm": vllm, "mistral_common": "1.13.1"})
    done = container.prefetch()
    assert done.returncode == 3
    assert done.stdout == f"prefetch: the image has vLLM {vllm} and mistral_common 1.13.1\n"
    assert container.calls("hf") == []


@pytest.mark.parametrize(
    "versions",
    [
        {"vllm": "0.32.0", "mistral_common": "1.12.0"},
        {"vllm": "0.18.0", "mistral_common": "1.13.1"},
        {"vllm": "0.33.1", "mistral_common": "1.13.1"},
        {"vllm": "0.34.0", "mistral_common": "1.13.1"},
        {"vllm": "0.32.0"},
        {"mistral_common": "1.13.1"},
        {},
    ],
)
def test_any_other_image_is_no_verdict(container: Container, versions: dict[str, str]) -> None:
    image_with(container, versions)
    assert container.prefetch().returncode == 0


def test_an_image_without_python_is_no_verdict(container: Container) -> None:
    image_with(container, {})
    container.command("python3", "exit 127")
    assert container.prefetch().returncode == 0


def test_other_tokenizers_are_no_matter(container: Container) -> None:
    image_with(container, {"vllm": "0.33.0", "mistral_common": "1.13.1"})
    (container.serving / "serve.yaml").write_text("model: org/model\n")
    assert container.prefetch().returncode == 0
    assert container.calls("python3") == []


FILLS_THE_DISK = """
blobs="$HF_HOME/hub/models--org--model/blobs"
mkdir -p "$blobs"
printf '%300000s' '' >"$blobs/one.1a2b.incomplete"
echo 'whole' >"$blobs/two"
echo 'OSError: [Errno 28] No space left on device' >&2
exit 1
"""


@pytest.mark.usefixtures("weights_are_there")
def test_a_full_disk_leaves_room_and_what_was_served_before(container: Container) -> None:
    container.command("hf", FILLS_THE_DISK)
    container.settings(REVISION="v2")

    assert container.prefetch().returncode == 3
    blobs = container.home / "huggingface/hub/models--org--model/blobs"
    assert [path.name for path in blobs.iterdir()] == ["two"]
    calls = len(container.calls("hf"))

    container.settings()
    again = container.prefetch()
    assert again.returncode == 0
    assert f"complete since before: org/model at {COMMIT}" in again.stdout
    assert len(container.calls("hf")) == calls


def test_a_disk_so_full_that_nobody_could_say_so(container: Container) -> None:
    container.command("hf", FILLS_THE_DISK.replace("echo 'OSError", ": 'OSError"))
    container.command("df", 'printf "Filesystem\\noverlay 100 100 12 100%% /\\n"')
    done = container.prefetch()
    assert done.returncode == 3
    assert "No space left on device" in done.stdout
    blobs = container.home / "huggingface/hub/models--org--model/blobs"
    assert [path.name for path in blobs.iterdir()] == ["two"]


@pytest.mark.usefixtures("weights_are_there")
def test_a_download_that_failed_is_not_taken_for_what_was_served_before(
    container: Container,
) -> None:
    container.command("hf", "echo 'Connection reset by peer' >&2; exit 1")
    container.settings(REVISION="v2")
    container.prefetch()
    assert container.prefetch().returncode == 1


def test_what_is_fetched_anew_takes_the_place_of_what_was(container: Container) -> None:
    container.settings(COMPANIONS="org/head main *")
    container.command("hf", FETCHES_ANY)
    container.prefetch()
    container.settings(MODEL="org/other")
    assert container.prefetch().returncode == 0
    seen = container.status()
    assert seen["resolved_revision"] == "org-other-commit"
    assert seen["companion_revisions"] == ""
    state = container.serving / "state"
    assert (state / "snapshots").read_text().count("\n") == 1
    assert not (state / "fetching").exists()


OTHERS = [{"FILES": "*.json"}, {"COMPANIONS": "org/head main *"}, {"REVISION": "v2"}]
LATER = COMMIT[::-1]
NO_NETWORK = "echo no network >&2; exit 1"


def fetch_two(container: Container, other: dict[str, str]) -> None:
    """Fetch the usual set, and the other one when the branch has moved on."""
    assert container.prefetch().returncode == 0
    container.command("hf", DOWNLOADS.replace(COMMIT, LATER))
    container.settings(**other)
    assert container.prefetch().returncode == 0
    assert container.status()["resolved_revision"] == LATER
    container.command("hf", NO_NETWORK)


Sets = Callable[[dict[str, str]], Container]


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """Gives a container that has fetched the usual set and the other one."""

    @functools.cache
    def fetched(*other: tuple[str, str]) -> Container:
        container = Container(tmp_path_factory.mktemp("fetched"))
        fetch_two(container, dict(other))
        return container

    return lambda other: fetched(*other.items())


def begin_with_two(container: Container, two_sets: Sets, other: dict[str, str]) -> None:
    """Be where `fetch_two` ends."""
    container.take_weights_of(two_sets(other))
    container.command("hf", NO_NETWORK)
    container.settings(**other)


def goes_back(container: Container, commit: str, **settings: str) -> None:
    calls = len(container.calls("hf"))
    container.settings(**settings)
    done = container.prefetch()
    assert done.returncode == 0, done.stdout
    assert f"complete since before: org/model at {commit}" in done.stdout
    assert len(container.calls("hf")) == calls
    assert container.status()["resolved_revision"] == commit


@pytest.mark.parametrize("other", OTHERS)
def test_going_back_finds_the_commit_of_before(
    container: Container, two_sets: Sets, other: dict[str, str]
) -> None:
    begin_with_two(container, two_sets, other)
    companions = container.status()["companion_revisions"]

    goes_back(container, COMMIT)
    state = container.serving / "state"
    assert (state / "snapshot").read_text().strip().endswith(f"/snapshots/{COMMIT}")
    assert (state / "snapshots").read_text().count("\n") == 1
    assert container.status()["companion_revisions"] == ""
    assert not (state / "fetching").exists()

    goes_back(container, LATER, **other)
    assert container.status()["companion_revisions"] == companions


def test_what_was_fetched_before_sets_were_kept_apart_is_gone_back_to(
    container: Container,
) -> None:
    """As on a host that runs when it is pushed newer scripts: its mark has the set in words."""
    folder = container.home / f"huggingface/hub/models--org--model/snapshots/{COMMIT}"
    folder.mkdir(parents=True)
    state = container.serving / "state"
    state.mkdir()
    mark = [SETTINGS[name] for name in ("MODEL", "REVISION", "FILES")]
    (state / "prefetched").write_text("".join(f"{line}\n" for line in [*mark, ""]))
    (state / "resolved_revision").write_text(f"{COMMIT}\n")
    for name in ("snapshot", "snapshots"):
        (state / name).write_text(f"{folder}\n")

    goes_back(container, COMMIT)
    fetch_two(container, {"FILES": "*.json"})
    goes_back(container, COMMIT)


@pytest.mark.parametrize("moment", range(1, 7))
def test_a_death_on_the_way_back_claims_nothing_false(
    container: Container, two_sets: Sets, moment: int
) -> None:
    other = {"FILES": "*.json"}
    begin_with_two(container, two_sets, other)
    container.settings()
    is_moment = f'[ "$(wc -l <"$HOME/mv.calls")" -ne {moment} ]'
    container.command("mv", f'{is_moment} || kill -s KILL $PPID\nexec {shutil.which("mv")} "$@"')
    assert container.prefetch().returncode == -9
    (container.bin / "mv").unlink()

    goes_back(container, LATER, **other)
    goes_back(container, COMMIT)


def test_half_of_what_was_deleted_is_not_taken_for_what_was_complete(
    container: Container, two_sets: Sets
) -> None:
    begin_with_two(container, two_sets, {"FILES": "*.json"})
    shutil.rmtree(container.home / "huggingface")
    breaks = '[ "$(wc -l <"$HOME/hf.calls")" -lt 5 ] || { echo reset >&2; exit 1; }\n'
    container.command("hf", breaks + DOWNLOADS)
    container.settings()
    assert container.prefetch().returncode == 1
    assert container.prefetch().returncode == 1


@pytest.mark.usefixtures("weights_are_there")
def test_weights_that_were_deleted_are_fetched_again(container: Container) -> None:
    shutil.rmtree(container.home / "huggingface")

    assert container.prefetch().returncode == 0
    assert len(container.calls("hf")) == 4


def test_a_broken_download_is_tried_again(container: Container) -> None:
    container.command(
        "hf",
        f'[ "$(wc -l <"$HOME/hf.calls")" -lt 3 ] && {{ echo reset >&2; exit 1; }}\n{DOWNLOADS}',
    )

    done = container.prefetch()

    assert done.returncode == 0
    assert "try 3 of 3" in done.stdout
    assert "reset" in done.stdout


def test_a_download_is_given_up_after_its_tries(container: Container) -> None:
    container.command("hf", "echo 'Connection reset by peer' >&2; exit 1")

    done = container.prefetch()

    assert done.returncode == 1
    assert len(container.calls("hf")) == 3
    assert not (container.serving / "state" / "prefetched").exists()


@pytest.mark.parametrize(
    "complaint",
    [
        "401 Client Error. Repository Not Found for url: x",
        "403 Client Error. Cannot access gated repo for url x",
        "Revision Not Found for url",
        "Error: Access denied. Model 'org/model' requires approval.",
        "Error: Model 'org/model' not found. If the repository is private, authenticate.",
        "Error: Model 'org/model' not found.",
        "Error: File not found in model 'org/model'.",
        "Error: Revision not found in model 'org/model'.",
        "Access to model org/model is restricted and you are not in the authorized list",
        "Invalid user token.",
        "OSError: [Errno 122] Disk quota exceeded",
        "OSError: [Errno 28] No space left on device",
        "Not enough free disk space to download the file",
        "hf: error: unrecognized arguments: --include",
    ],
)
def test_what_another_try_cannot_cure_is_not_tried_again(
    container: Container, complaint: str
) -> None:
    container.command("hf", f"echo {shlex.quote(complaint)} >&2; exit 1")

    done = container.prefetch()

    assert done.returncode == 3
    assert complaint in done.stdout
    assert len(container.calls("hf")) == 1


COMPANIONS = "org/head v2 consolidated* params.json\norg/other main *"
FETCHES_ANY = """
owner=${2%%/*} name=${2#*/}
folder="$HF_HOME/hub/models--$owner--$name/snapshots/$owner-$name-commit"
mkdir -p "$folder"
printf '%300000s' '' >"$folder/consolidated-1.safetensors"
echo '{}' >"$folder/params.json"
echo "$folder"
"""


def test_companions_are_fetched_each_at_a_commit_of_its_own(container: Container) -> None:
    container.settings(COMPANIONS=COMPANIONS)
    container.command("hf", FETCHES_ANY)

    assert container.prefetch().returncode == 0
    assert container.calls("hf") == [
        "download org/model --revision main --include *.json",
        "download org/head --revision v2 --include params.json",
        "download org/model --revision org-model-commit --include consolidated*.safetensors",
        "download org/head --revision org-head-commit --include consolidated*",
        "download org/other --revision main --include *",
    ]
    seen = container.status()
    assert seen["resolved_revision"] == "org-model-commit"
    assert seen["companion_revisions"].split() == [
        "org/head@org-head-commit",
        "org/other@org-other-commit",
    ]
    assert int(seen["downloaded_kb"]) >= 3 * 293


def test_a_companion_that_was_deleted_is_fetched_again(container: Container) -> None:
    container.settings(COMPANIONS=COMPANIONS)
    container.command("hf", FETCHES_ANY)
    container.prefetch()
    shutil.rmtree(container.home / "huggingface/hub/models--org--head")

    again = container.prefetch()

    assert "complete since before" not in again.stdout
    assert (container.home / "huggingface/hub/models--org--head").is_dir()


def test_a_companion_that_the_hub_has_not_ends_it(container: Container) -> None:
    container.settings(COMPANIONS="org/head main *")
    refused = "Error: Model 'org/head' not found."
    container.command(
        "hf", f'[ "$2" = org/head ] && {{ echo "{refused}" >&2; exit 1; }}\n{FETCHES_ANY}'
    )

    done = container.prefetch()

    assert done.returncode == 3
    assert refused in done.stdout
    assert not (container.serving / "state" / "prefetched").exists()


def test_a_companion_of_a_model_in_a_folder_is_fetched(container: Container) -> None:
    folder = container.home / "weights"
    folder.mkdir()
    container.settings(MODEL=str(folder), COMPANIONS="org/head main *")
    container.command("hf", FETCHES_ANY)

    assert container.prefetch().returncode == 0
    assert container.calls("hf") == ["download org/head --revision main --include *"]


def test_patterns_that_match_nothing_at_all(container: Container) -> None:
    container.settings(FILES="consolidated*.bin\nnothing*")
    container.command(
        "hf", f'f="$HF_HOME/hub/models--org--model/snapshots/{COMMIT}"; mkdir -p "$f"; echo "$f"'
    )

    done = container.prefetch()

    assert done.returncode == 3
    assert "no file of org/model" in done.stdout
    assert "'nothing*'" in done.stdout


def test_a_model_in_a_folder_of_the_host_is_not_fetched(container: Container) -> None:
    folder = container.home / "weights"
    folder.mkdir()
    container.settings(MODEL=str(folder))

    assert container.prefetch().returncode == 0
    assert container.calls("hf") == []
    container.settings(MODEL=str(container.home / "missing"))
    assert container.prefetch().returncode == 3


@pytest.mark.parametrize("name", ["a b", "it's", 'say "a b"', "1/of 2", "a;b $HOME"])
def test_what_was_fetched_is_found_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir(parents=True)
    container = Container(home)
    container.command("hf", DOWNLOADS.replace("  path: $folder", '3/3 files: "$folder" (1/1)'))
    done = container.prefetch()
    assert done.returncode == 0, done.stdout
    there = (container.serving / "state/snapshot").read_text().strip()
    assert there == f"{home}/huggingface/hub/models--org--model/snapshots/{COMMIT}"
