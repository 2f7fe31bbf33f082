from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from components.plan import make_plan
from components.release.release import (
    Release,
    ReleaseOverridden,
    ReleaseRefused,
    ReleaseSpec,
    digest_of,
    load_release,
    to_text,
)
from components.settings import parse
from components.vllm.profile import Companion, Profile
from tests.helpers.places import ROOT
from tests.unit.test_settings import values

NOVEMBER = ROOT / "tests/releases"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def runs(**changes):
    return make_plan(parse(values(**changes))).runs(COMMIT, {})


def release(name: str = "r1", **changes) -> Release:
    what = runs(**changes)
    return Release(name=name, digest=digest_of(what), runs=what, proven={"stack": "dev"})


def written(folder: Path, one: Release) -> Path:
    path = folder / f"{one.name}.yaml"
    path.write_text(to_text(one))
    return path


def test_what_runs_has_the_commit_that_the_host_resolved():
    what = runs()
    assert what.profile.revision == COMMIT
    assert what.serve["revision"] == COMMIT


@pytest.mark.parametrize(
    "change",
    [
        {"vllmOverrides": '{"max-num-seqs": 64}'},
        {"maxModelLen": "65536"},
        {"image": "vllm/vllm-openai:v0.33.0@sha256:" + "0" * 64},
        {"model": "mistral-small-4-fp8-4xh100"},
        {"offerQuery": "gpu_name=H100_SXM num_gpus=4"},
        {"offerQuery": "gpu_name=H200 num_gpus=8"},
    ],
)
def test_what_matters_changes_the_digest(change):
    assert digest_of(runs(**change)) != digest_of(runs())


@pytest.mark.parametrize(
    "change",
    [
        {"diskGb": "500"},
        {"maxDollarsPerHour": "3"},
        {"minReliability": "0.9"},
        {"offerQuery": "gpu_name=H200 num_gpus=2 geolocation=NL"},
        {"tls": "false"},
        {"mediaFrom": "none"},
        {"mediaFrom": "images.example.com"},
        {"maxRequestMib": "1"},
    ],
)
def test_what_is_the_environments_does_not(change):
    assert digest_of(runs(**change)) == digest_of(runs())


def test_what_was_rented_is_what_counts_where_the_query_leaves_a_choice():
    made = make_plan(parse(values(offerQuery="num_gpus=8 gpu_ram>=90")))
    what = made.runs(COMMIT, {}, "8x H100 NVL").profile
    assert (what.num_gpus, what.gpu_name) == (8, "H100 NVL")


@pytest.mark.parametrize(
    ("asked", "searched"),
    [
        ("", "gpu_name=H200 num_gpus=2"),
        ("gpu_name=H200 num_gpus=2 geolocation=NL", "gpu_name=H200 num_gpus=2 geolocation=NL"),
        ("dph_total<=6", "gpu_name=H200 dph_total<=6"),
    ],
)
def test_a_stack_searches_for_the_gpus_of_its_release(tmp_path, asked, searched):
    written(tmp_path, release())
    made = make_plan(parse(values(release="r1", offerQuery=asked)), releases=tmp_path)
    assert made.query == searched
    assert (made.gpus, made.need.num_gpus) == ("2x H200", 2)


@pytest.mark.parametrize(
    "asked",
    [
        "gpu_name=H200 num_gpus=8",
        "gpu_name=H100_NVL num_gpus=2",
        "gpu_name in [H200,H100_NVL]",
        "num_gpus=4",
    ],
)
def test_other_gpus_than_a_release_was_proven_on_are_refused(tmp_path, asked):
    written(tmp_path, release())
    with pytest.raises(ReleaseOverridden, match=r"proven on 2x H200.*`gpu_name=H200 num_gpus=2`"):
        make_plan(parse(values(release="r1", offerQuery=asked)), releases=tmp_path)


def test_another_commit_is_another_release():
    made = make_plan(parse(values()))
    assert digest_of(made.runs(COMMIT, {})) != digest_of(made.runs(COMMIT[::-1], {}))


def test_a_companion_is_at_its_commit_too():
    made = make_plan(parse(values(model="mistral-small-4-fp8-2xh200-eagle")))
    (head,) = made.profile.companions
    what = made.runs(COMMIT, {head.repository: COMMIT[::-1]})
    assert what.profile.companions[0].revision == COMMIT[::-1]
    assert what.serve["speculative-config"]["revision"] == COMMIT[::-1]
    assert digest_of(what) != digest_of(made.runs(COMMIT, {head.repository: COMMIT}))


def test_a_release_comes_back_as_it_was_written(tmp_path):
    one = release(vllmOverrides='{"max-num-seqs": 64}')
    written(tmp_path, one)
    assert load_release("r1", tmp_path) == one


def test_the_options_keep_their_order_so_that_the_same_file_is_served(tmp_path):
    one = release()
    written(tmp_path, one)
    assert list(load_release("r1", tmp_path).runs.serve) == list(one.runs.serve)


def test_a_stack_with_the_release_runs_what_it_says(tmp_path):
    one = release(vllmOverrides='{"max-num-seqs": 64}')
    written(tmp_path, one)
    made = make_plan(parse(values(release="r1", diskGb="500")), releases=tmp_path)
    assert yaml.safe_load(made.serve_yaml)["max-num-seqs"] == 64
    assert made.profile.revision == COMMIT
    assert made.need.disk_gb == 500
    assert digest_of(made.runs(COMMIT, {})) == one.digest


def test_numbers_that_passed_through_json_are_the_same():
    what = runs()
    again = ReleaseSpec.model_validate_json(what.model_dump_json())
    assert digest_of(again) == digest_of(what)


def test_a_release_of_november_goes_on_loading():
    """A file as `make release` wrote it then: not to be written anew, but to be read for ever."""
    one = load_release("2026-11", NOVEMBER)
    assert one.runs.profile.companions[0].revision == COMMIT[::-1]
    made = make_plan(parse(values(release="2026-11")), releases=NOVEMBER)
    head = one.runs.profile.companions[0]
    assert digest_of(made.runs(COMMIT, {head.repository: head.revision})) == one.digest


MEDIA = "allowed-media-domains"


def served_with(folder: Path, name: str, **changes) -> dict[str, object]:
    """What a stack that runs a release gives to vLLM; it runs what the release says."""
    made = make_plan(parse(values(release=name, **changes)), releases=folder)
    one = load_release(name, folder)
    heads = {head.repository: head.revision for head in one.runs.profile.companions}
    assert digest_of(made.runs(one.runs.profile.revision, heads)) == one.digest
    options: dict[str, object] = yaml.safe_load(made.serve_yaml)
    return options


@pytest.mark.parametrize(
    ("changes", "has", "has_not"),
    [
        ({}, {"ssl-keyfile": "tls/key.pem", "enable-ssl-refresh": True}, {MEDIA}),
        ({"tls": "false"}, {}, {"ssl-keyfile", "ssl-certfile", "enable-ssl-refresh"}),
        ({"mediaFrom": "none"}, {MEDIA: ["none.invalid"]}, set()),
        (
            {"clientCertificates": "true"},
            {"ssl-ca-certs": "tls/clients.pem", "ssl-cert-reqs": 2},
            set(),
        ),
        ({"metrics": "true"}, {"middleware": "metrics_gate.MetricsGate"}, set()),
        ({"mediaFrom": "a.example, b.example"}, {MEDIA: ["a.example", "b.example"]}, set()),
    ],
)
def test_the_environments_options_are_laid_over_a_release(changes, has, has_not):
    served = served_with(NOVEMBER, "2026-11", **changes)
    assert has.items() <= served.items()
    assert not has_not & served.keys()
    written = load_release("2026-11", NOVEMBER).runs.serve
    environments = ("ssl", "enable-ssl", *(["middleware"] if "metrics" in changes else []))
    same = {name: served[name] for name in written if not name.startswith(environments)}
    assert same.items() <= written.items()


def older(folder: Path, **serve: object) -> Release:
    """A release as an older program wrote it: with whatever its stack had of its environment's."""
    what = runs()
    plain = {name: what.serve[name] for name in what.serve if "ssl" not in name}
    what = what.model_copy(update={"serve": {**plain, **serve}})
    one = Release(name="old", digest=digest_of(what), runs=what, proven={})
    written(folder, one)
    return one


@pytest.mark.parametrize("tls", ["true", "false"])
def test_a_release_of_a_stack_without_tls_keeps_its_digest(tmp_path, tls):
    assert older(tmp_path).digest != digest_of(runs())
    served = served_with(tmp_path, "old", tls=tls)
    assert ("ssl-keyfile" in served) == (tls == "true")


def test_a_release_that_was_written_with_a_list_of_domains_keeps_it_by_default(tmp_path):
    older(tmp_path, **{MEDIA: ["a.example"]})
    assert served_with(tmp_path, "old")[MEDIA] == ["a.example"]
    assert served_with(tmp_path, "old", mediaFrom="none")[MEDIA] == ["none.invalid"]
    assert MEDIA not in served_with(tmp_path, "old", mediaFrom="anywhere")


def test_a_release_written_today_has_the_digest_that_it_would_have_had(tmp_path):
    """So what a first stack runs is what was promoted from it before this was its environment's."""
    with_tls = older(
        tmp_path,
        **{
            "ssl-keyfile": "tls/key.pem",
            "ssl-certfile": "tls/cert.pem",
            "enable-ssl-refresh": True,
        },
    )
    assert digest_of(runs()) == with_tls.digest
    assert digest_of(runs(tls="false", mediaFrom="none")) == with_tls.digest
    assert digest_of(runs(clientCertificates="true")) == with_tls.digest
    assert digest_of(runs(metrics="true")) == with_tls.digest


def test_a_field_that_profiles_get_one_day_makes_no_other_release_of_those_there_are():
    class LaterCompanion(Companion):
        priority: int = 0

    class Later(Profile):
        trust_remote_code: bool = False
        companions: tuple[LaterCompanion, ...] = ()

    one = load_release("2026-11", NOVEMBER)
    content = one.runs.profile.model_dump(mode="json")
    later = one.runs.model_copy(update={"profile": Later.model_validate(content)})
    assert digest_of(later) == one.digest
    trusting = Later.model_validate({**content, "trust_remote_code": True})
    assert digest_of(one.runs.model_copy(update={"profile": trusting})) != one.digest


def test_an_edited_release_is_refused(tmp_path):
    path = written(tmp_path, release())
    path.write_text(path.read_text().replace("max-model-len: 131072", "max-model-len: 65536"))
    with pytest.raises(ReleaseRefused, match=r"r1\.yaml was edited.*restore the file"):
        load_release("r1", tmp_path)


def test_a_profile_s_measurement_goes_with_the_release_and_not_into_the_digest(tmp_path):
    what = runs()
    bare = what.model_copy(update={"profile": what.profile.model_copy(update={"measured": None})})
    assert digest_of(what) == digest_of(bare)
    written(tmp_path, release())
    quoted = load_release("r1", tmp_path).runs.profile.measured
    assert quoted == what.profile.measured
    assert quoted is not None
    assert quoted.vllm == "0.26.0"


def test_what_was_measured_is_not_held_by_the_digest(tmp_path):
    path = written(tmp_path, release())
    path.write_text(path.read_text().replace("stack: dev", "stack: elsewhere"))
    assert load_release("r1", tmp_path).proven == {"stack": "elsewhere"}


def test_a_release_that_is_not_there_names_those_that_are(tmp_path):
    written(tmp_path, release("2026-11"))
    with pytest.raises(ReleaseRefused, match=r"no release '2026-12'.*did you mean '2026-11'"):
        load_release("2026-12", tmp_path)


@pytest.mark.parametrize("content", ["{", "just words", "name: r1\ndigest: x\n", "[" * 9_999])
def test_what_is_no_release_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "r1.yaml").write_text(content)
    with pytest.raises(ReleaseRefused, match="restore") as refused:
        load_release("r1", tmp_path)
    assert "\n" not in str(refused.value)
