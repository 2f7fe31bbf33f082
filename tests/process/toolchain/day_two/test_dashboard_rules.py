"""Each alert fires and clears in a story that the real `promtool` plays, and says what is wrong."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolchain.day_two.dashboard.command import promtool_here, refusal
from toolchain.day_two.dashboard.rules import Aims, rules, written
from toolchain.prometheus import PROMETHEUS

STACK = "dev"
AIMS = Aims(first_token_seconds=2, dollars_per_day=300)
MACHINE = 'stack="dev",role="machine",job="m",endpoint="endpoint",replica="1",contract="7"'
OF_EXPORTER = 'stack="dev",role="stack",job="stack"'
OF_ONE = f'{OF_EXPORTER},name="machine 1",endpoint="endpoint",replica="1",contract="7"'
OF_STRAY = f'{OF_EXPORTER},name="contract 8",endpoint="",replica="",contract="8"'
DAY = 86_400
STEADY = {
    f"up{{{OF_EXPORTER}}}": "1x60",
    f"vast_vllm_looked_timestamp_seconds{{{OF_EXPORTER}}}": "0+60x60",
}
"""Our exporter looks every minute."""


@dataclasses.dataclass(frozen=True)
class Story:
    """Series of an hour, a value a minute, and the minutes at which an alert fires and does not."""

    series: dict[str, str]
    fires: int
    says: str
    cleared: int = 59
    steady: dict[str, str] = dataclasses.field(default_factory=lambda: dict(STEADY))


def buckets(slow: str) -> dict[str, str]:
    """First tokens: two a minute of 1 s, and more of 10 s."""
    name = "vllm:time_to_first_token_seconds_bucket"
    return {
        f'{name}{{{MACHINE},le="1"}}': "0+2x60",
        f'{name}{{{MACHINE},le="2.5"}}': "0+2x60",
        f'{name}{{{MACHINE},le="10"}}': slow,
        f'{name}{{{MACHINE},le="+Inf"}}': slow,
    }


STORIES = {
    "EndpointDown": Story(
        {f"up{{{MACHINE}}}": "1x9 0x9 1x40"},
        fires=15,
        says="m does not answer, or no machine behind the router does",
    ),
    "EndpointDown of a router": Story(
        {
            'haproxy_backend_active_servers{stack="dev",role="router",proxy="replicas"}': (
                "2x9 0x9 1x40"
            )
        },
        fires=15,
        says=" does not answer, or no machine behind the router does",
    ),
    "QueueGrowing": Story(
        {f"vllm:num_requests_waiting{{{MACHINE}}}": "0x9 1+4x14 0x40"},
        fires=20,
        says="the queue of machine 1 grows",
    ),
    "KvCacheFull": Story(
        {f"vllm:kv_cache_usage_perc{{{MACHINE}}}": "0.5x9 0.98x20 0.6x40"},
        fires=20,
        says="the KV cache of machine 1 is 98% full",
    ),
    "FirstTokenSlow": Story(
        buckets("0+2x9 20+20x14 302+2x40"),
        fires=20,
        says="one of ten first tokens takes more than 9.167s, and the aim is 2 s",
    ),
    "SpendOverAim": Story(
        {f"vast_vllm_machine_dollars_per_hour{{{OF_ONE}}}": "6x9 15x20 6x40"},
        fires=20,
        says="360.00 dollars a day, and the aim is 300",
    ),
    "SpendOverAim with a machine that no state knows": Story(
        {
            f"vast_vllm_machine_dollars_per_hour{{{OF_ONE}}}": "6x60",
            f"vast_vllm_machine_dollars_per_hour{{{OF_STRAY}}}": "_x9 9x20 _x40",
        },
        fires=20,
        says="360.00 dollars a day, and the aim is 300",
    ),
    "SpendOverAim of the ledger": Story(
        {f"vast_vllm_charged_last_day_dollars{{{OF_EXPORTER}}}": "6x9 301x20 6x40"},
        fires=20,
        says="301.00 dollars a day, and the aim is 300",
    ),
    "CertificateEnds": Story(
        {
            f"vast_vllm_certificate_ends_timestamp_seconds{{{OF_ONE}}}": (
                f"{9 * DAY}x9 {3 * DAY + 600}x20 {30 * DAY}x40"
            )
        },
        fires=20,
        says="the certificate of machine 1 ends in 2d 23h 50m 0s",
    ),
    "ContractEnds": Story(
        {
            f"vast_vllm_contract_ends_timestamp_seconds{{{OF_ONE}}}": (
                f"{9 * DAY}x9 {3 * DAY + 600}x20 {30 * DAY}x40"
            )
        },
        fires=20,
        says="the host's contract of machine 1 ends in 2d 23h 50m 0s",
    ),
    "MachineOverdue": Story(
        {f"vast_vllm_machine_overdue{{{OF_ONE}}}": "0x9 1x20 0x40"},
        fires=20,
        says="machine 1 should have ended itself, and is billed",
    ),
    "NobodyLooks": Story(
        {},
        fires=25,
        says="money and ends are not known: `make exporter` does not run, or the market does not "
        "answer",
        steady={
            f"up{{{OF_EXPORTER}}}": "1x9 0x20 1x40",
            f"vast_vllm_looked_timestamp_seconds{{{OF_EXPORTER}}}": "0+60x9 _x20 1800+60x40",
        },
    ),
    "NobodyLooks before the first look": Story(
        {},
        fires=25,
        says="money and ends are not known: `make exporter` does not run, or the market does not "
        "answer",
        steady={
            f"up{{{OF_EXPORTER}}}": "1x60",
            f"vast_vllm_looked_timestamp_seconds{{{OF_EXPORTER}}}": "_x30 1860+60x40",
        },
    ),
    "NobodyLooks where nobody answers": Story(
        {f"vast_vllm_not_asked{{{OF_EXPORTER}}}": "0x9 2x20 0x40"},
        fires=25,
        says="money and ends are not known: `make exporter` does not run, or the market does not "
        "answer",
    ),
}


def labels_of(alert: str) -> dict[str, str]:
    """Labels that an alert carries beside its stack."""
    one = {"endpoint": "endpoint", "replica": "1", "contract": "7"}
    return {
        "EndpointDown": {"role": "machine", "job": "m", **one},
        "QueueGrowing": {"role": "machine", "job": "m", **one},
        "KvCacheFull": one,
        "FirstTokenSlow": {},
        "SpendOverAim": {},
        "EndpointDown of a router": {},
        "SpendOverAim of the ledger": {},
        "SpendOverAim with a machine that no state knows": {},
        "NobodyLooks": {"role": "stack", "job": "stack"},
        "NobodyLooks before the first look": {"role": "stack", "job": "stack"},
        "NobodyLooks where nobody answers": {"role": "stack", "job": "stack"},
    }.get(alert, {"role": "stack", "job": "stack", "name": "machine 1", **one})


def played(name: str, story: Story) -> dict[str, Any]:
    """A story as `promtool test rules` reads it: before, when it fires, and after."""
    alert = name.partition(" ")[0]
    firing = {
        "exp_labels": {"stack": STACK, **labels_of(name)},
        "exp_annotations": {"summary": story.says},
    }
    return {
        "interval": "1m",
        "input_series": [
            {"series": series, "values": values}
            for series, values in {**story.steady, **story.series}.items()
        ],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": expected}
            for minute, expected in ((8, []), (story.fires, [firing]), (story.cleared, []))
        ],
    }


def promtool(*arguments: str, folder: Path) -> str:
    """Run it, and give what it says against something; empty for nothing."""
    place = PROMETHEUS.program("promtool")
    if place is None:
        pytest.fail("`promtool` is not there: `make setup` says how to get it")
    done = subprocess.run(
        [str(place), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yml").write_text(written(STACK, rules(STACK, AIMS)))
    return tmp_path


def test_every_alert_has_a_story():
    assert {name.partition(" ")[0] for name in STORIES} == {one.name for one in rules(STACK, AIMS)}


def test_each_alert_fires_and_clears(folder):
    stories = [played(name, story) for name, story in STORIES.items()]
    (folder / "stories.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": stories})
    )
    said = promtool("test", "rules", "stories.yml", folder=folder)
    assert said == "", said


def test_what_a_machine_says_of_money_and_ends_is_not_heard(folder):
    """Its target keeps other metrics alone; this is the second lock."""
    lies = {
        f"vast_vllm_machine_overdue{{{MACHINE}}}": "1x60",
        f"vast_vllm_charged_last_day_dollars{{{MACHINE}}}": "9999x60",
        f"vast_vllm_contract_ends_timestamp_seconds{{{MACHINE}}}": "1x60",
    }
    story = played("MachineOverdue", Story(lies, fires=20, says=""))
    story["alert_rule_test"] = [
        {"eval_time": "30m", "alertname": one.name, "exp_alerts": []} for one in rules(STACK, AIMS)
    ]
    (folder / "lies.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [story]})
    )
    assert promtool("test", "rules", "lies.yml", folder=folder) == ""


def test_without_an_aim_no_alert_watches_the_spending(folder):
    names = [one.name for one in rules(STACK, Aims())]
    assert "SpendOverAim" not in names
    assert promtool("check", "rules", "rules.yml", folder=folder) == ""


def test_what_promtool_has_against_a_file_is_one_line(folder):
    check = promtool_here()
    assert check is not None
    good, bad = folder / "good.yml", folder / "bad.yml"
    good.write_text("rule_files: [rules.yml]\n")
    bad.write_text("scrape_configs: [{job_nam: x}]\n")
    assert check(good) == ""
    assert "field job_nam not found" in check(bad)
    assert "\n" not in check(bad)
    assert "promtool does not run" in refusal(folder / "nowhere", good)
