"""hf, nvidia-smi and df as a script in the container meets them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from emulator.standins import COMMANDS
from emulator.standins.gpus import Claim
from emulator.standins.host import read_host
from tests.emulator.standins.support import MISTRAL, QWEN, Container, until

SHARED_MEMORY = "/dev/shm"  # noqa: S108  (asked about, not written to)
QUERY = (
    "--query-gpu=name,memory.total,memory.used,driver_version",
    "--format=csv,noheader,nounits",
)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_outside_of_a_container_a_stand_in_refuses_in_one_sentence(
    command: str, tmp_path: Path
) -> None:
    result = Container(tmp_path, alone=True).run(command, EMULATED_HOST="")

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "runs only inside an emulated container" in result.stderr


# ---------------------------------------------------------------------------------------- hf


def test_hf_fetches_what_matches_and_prints_where_it_is(tmp_path: Path) -> None:
    container = Container(tmp_path)

    result = container.run("hf", "download", MISTRAL, "--include", "consolidated*")

    assert result.returncode == 0, result.stderr
    path = Path(result.stdout.splitlines()[-1].removeprefix("  path: "))
    assert path.is_relative_to(container.home / ".cache" / "huggingface" / "hub")
    assert len(list(path.iterdir())) == 25
    assert container.traffic == 120_923_000_000
    assert "Fetching 25 files: 100%" in result.stderr


def test_hf_in_steps_at_the_commit_of_the_first(tmp_path: Path) -> None:
    container = Container(tmp_path)
    environment = {"HF_HOME": str(container.home / "huggingface")}
    words = ("hf", "download", QWEN, "--quiet")

    first = container.run(*words, "--include", "*.json", "--exclude", "vocab*", **environment)
    path = Path(first.stdout.strip())
    second = container.run(
        *words, "--revision", path.name, "--include", "merges.txt", **environment
    )

    assert second.stdout == first.stdout
    assert first.stderr == ""
    names = sorted(file.name for file in path.iterdir())
    assert names == [
        "config.json",
        "generation_config.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_hf_one_file_by_name_into_a_folder(tmp_path: Path) -> None:
    container = Container(tmp_path)

    result = container.run("hf", "download", QWEN, "config.json", "--local-dir", "here", "-q")

    assert result.stdout == f"{container.home / 'here' / 'config.json'}\n"
    assert (container.home / "here" / "config.json").is_file()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["no/such"], 1, "Error: Model 'no/such' not found."),
        (["meta-llama/Llama-3.2-1B-Instruct"], 1, "Error: Access denied. Model 'meta-llama/"),
        ([QWEN, "--revision", "v9"], 1, f"Error: Revision not found in model '{QWEN}'."),
        ([QWEN, "no.json"], 1, f"Error: File not found in model '{QWEN}'."),
        ([QWEN, "--inclde", "x"], 2, "Error: No such option: --inclde"),
        ([], 2, "Error: Missing argument 'REPO_ID'."),
    ],
)
def test_hf_refuses_with_the_real_words(
    words: list[str], status: int, said: str, tmp_path: Path
) -> None:
    result = Container(tmp_path).run("hf", "download", *words)

    assert (result.returncode, result.stdout) == (status, "")
    assert said in result.stderr


def test_hf_shows_the_hubs_own_answer_when_debugging(tmp_path: Path) -> None:
    result = Container(tmp_path).run("hf", "download", "no/such", HF_DEBUG="1")

    assert "401 Client Error" in result.stderr
    assert "Repository Not Found for url: https://huggingface.co/api/models/no/such" in (
        result.stderr
    )


def test_hf_offline_has_what_was_fetched_before(tmp_path: Path) -> None:
    container = Container(tmp_path)
    offline = {"HF_HUB_OFFLINE": "1"}

    missing = container.run("hf", "download", QWEN, **offline)
    fetched = container.run("hf", "download", QWEN, "-q", "--include", "*.json")
    again = container.run("hf", "download", QWEN, "-q", **offline)

    assert missing.returncode == 1
    assert "offline mode is enabled" in missing.stderr
    assert again.stdout == fetched.stdout


def test_hf_names_a_full_disk(tmp_path: Path) -> None:
    container = Container(tmp_path, {"disk_gb": 50.0})

    result = container.run("hf", "download", MISTRAL, "--include", "consolidated*")

    assert result.returncode == 1
    assert "Not enough free disk space to download the file." in result.stderr
    assert "OSError: [Errno 28] No space left on device" in result.stderr


def test_hf_hangs_without_a_word(tmp_path: Path) -> None:
    container = Container(tmp_path, {"faults": {"download_hang": {"at": 0.3}}})

    with container.started("hf", "download", QWEN, "--include", "*.safetensors", "-q") as process:
        until(lambda: container.traffic == 296_429_347, what="three tenths of the file")
        assert process.poll() is None
        growing = list(container.home.rglob("*.incomplete"))

    assert [path.stat().st_size for path in growing] == [296_429_347]
    assert container.printed() == ""


# -------------------------------------------------------------------------------- nvidia-smi


def test_nvidia_smi_answers_a_host_check(tmp_path: Path) -> None:
    container = Container(tmp_path)

    gpus = container.run("nvidia-smi", *QUERY)
    apps = container.run("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv")

    assert gpus.stdout == "NVIDIA H200, 143771, 4, 580.95.05\n" * 2
    assert apps.stdout == "pid, used_memory [MiB]\n"


@pytest.mark.parametrize(
    ("facts", "lines"),
    [
        ({"faults": {"gpu_missing": {"count": 1}}}, ["NVIDIA H200, 143771, 4, 580.95.05"]),
        ({"faults": {"gpu_missing": {}}}, ["NVIDIA H200, 143771, 4, 580.95.05"]),
        (
            {"faults": {"driver_old": {"version": "550.54.15"}}},
            ["NVIDIA H200, 143771, 4, 550.54.15"] * 2,
        ),
        (
            {"faults": {"gpu_wrong": {"name": "L40S"}}},
            ["NVIDIA L40S, 46068, 4, 580.95.05"] * 2,
        ),
        (
            {"faults": {"gpu_wrong": {}}},
            ["NVIDIA H200, 143771, 40964, 580.95.05", "NVIDIA H200, 143771, 4, 580.95.05"],
        ),
        (
            {"gpu_name": "RTX 4090", "num_gpus": 1, "gpu_ram_mib": 24564},
            ["NVIDIA GeForce RTX 4090, 24564, 4, 580.95.05"],
        ),
    ],
)
def test_nvidia_smi_on_other_hosts(facts: dict[str, Any], lines: list[str], tmp_path: Path) -> None:
    result = Container(tmp_path, facts).run("nvidia-smi", *QUERY)

    assert result.stdout.splitlines() == lines


def test_nvidia_smi_shows_a_foreign_process(tmp_path: Path) -> None:
    container = Container(tmp_path, {"faults": {"gpu_wrong": {}}})

    result = container.run(
        "nvidia-smi", "--query-compute-apps=pid,used_memory,process_name", "--format=csv,noheader"
    )

    assert result.stdout == "3177, 40960 MiB, /usr/bin/python3\n"


def test_memory_belongs_to_a_process_until_it_ends_though_nobody_collects_it(
    tmp_path: Path,
) -> None:
    container = Container(tmp_path)
    used = ("nvidia-smi", "--query-compute-apps=used_memory", "--format=csv,noheader")
    with subprocess.Popen(["tail", "-f", "/dev/null"]) as process:
        Claim(read_host(container.environment()), process.pid, "VLLM::Worker").hold([0, 1], 1024)
        while_alive = container.run(*used).stdout
        process.kill()
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, what="its end")
        once_dead = container.run(*used).stdout

    assert while_alive == "1024 MiB\n" * 2
    assert once_dead == ""


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 0, "Driver Version: 580.95.05      CUDA Version: 13.0"),
        (["-L"], 0, "GPU 1: NVIDIA H200 (UUID: GPU-"),
        (["topo", "-m"], 0, "GPU0\tX\tNV18"),
        (["--query-gpu=index,compute_cap,pci.bus_id", "--format=csv"], 0, "1, 9.0, 00000000:28"),
        (["--query-gpu=utilization.gpu", "--format=csv"], 0, "utilization.gpu [%]\n0 %"),
        (["--query-gpu=nme", "--format=csv"], 2, 'Field "nme" is not a valid field to query.'),
        (["--frobnicate"], 1, "Invalid combination of input arguments"),
    ],
)
def test_nvidia_smi_speaks_its_other_forms(
    words: list[str], status: int, said: str, tmp_path: Path
) -> None:
    result = Container(tmp_path).run("nvidia-smi", *words)

    assert result.returncode == status
    assert said in result.stdout


def test_nvidia_smi_without_gpus(tmp_path: Path) -> None:
    result = Container(tmp_path, {"num_gpus": 0}).run("nvidia-smi")

    assert (result.returncode, result.stdout) == (6, "No devices were found\n")


def test_the_table_of_nvidia_smi_is_even(tmp_path: Path) -> None:
    lines = Container(tmp_path).run("nvidia-smi").stdout.splitlines()

    assert {len(line) for line in lines[1:] if line} == {91}


# ----------------------------------------------------------------------------------- df


def test_df_shows_the_emulated_disk(tmp_path: Path) -> None:
    container = Container(tmp_path)
    weights = container.home / "weights"
    weights.touch()
    with weights.open("r+b") as file:
        file.truncate(120_000_000_000)

    line = container.run("df", "-Pk", str(container.home)).stdout.splitlines()[-1]

    assert line.split() == ["overlay", "488281250", "117187500", "371093750", "24%", "/"]


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["-B1", "--output=avail", "/"], ["Avail", "500000000000"]),
        (["-B1", "--output=size", SHARED_MEMORY], ["1B-blocks", "68719476736"]),
        (["-h", "/"], ["Filesystem      Size  Used Avail Use% Mounted on",
                       "overlay         466G     0  466G   0% /"]),
        (["-Pk", SHARED_MEMORY], ["Filesystem     1024-blocks  Used Available Capacity Mounted on",
                                  "shm               67108864     0  67108864       0% /dev/shm"]),
        (["-BG", "--output=size,target", SHARED_MEMORY], ["1G-blocks Mounted on",
                                                      "      64G /dev/shm"]),
    ],
)  # fmt: skip
def test_df_in_the_units_that_are_asked_for(
    words: list[str], printed: list[str], tmp_path: Path
) -> None:
    result = Container(tmp_path).run("df", *words)

    assert [line.strip() for line in result.stdout.splitlines()] == [
        line.strip() for line in printed
    ]


def test_df_of_a_host_with_less_disk_than_rented(tmp_path: Path) -> None:
    container = Container(tmp_path, {"faults": {"disk_short": {"gb": 120}}})

    result = container.run("df", "-B1", "--output=size", ".")

    assert result.stdout.split() == ["1B-blocks", "120000000000"]


def test_df_without_paths_lists_both_and_elsewhere_it_is_the_machines_own(tmp_path: Path) -> None:
    container = Container(tmp_path)

    both = container.run("df").stdout.splitlines()
    elsewhere = container.run("df", "-P", "/proc")

    assert [line.split()[-1] for line in both[1:]] == ["/", SHARED_MEMORY]
    assert elsewhere.stdout.splitlines()[-1].endswith("/proc")
