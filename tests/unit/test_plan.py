from __future__ import annotations

import json
import shlex

import pytest
import yaml

from components.core.errors import ConfigurationError
from components.plan import MODELS, make_plan
from components.release.release import Release, digest_of, to_text
from components.settings import parse
from components.vllm.profile import profile_names
from tests.helpers.plan_scene import MEDIA, PINNED, in_production, plan
from tests.unit.test_settings import values

RECIPE = (
    "gpu_name=H200 num_gpus=2 direct_port_count>=1 rentable=true disk_space>=500 cuda_vers>=12.2"
)


A_MILLION = {"offerQuery": "gpu_name=H100_SXM num_gpus=2", "maxModelLen": "1048576"}

MS4 = "mistral-small-4-ms4-2xh200"


def test_the_default_is_the_recipe_in_front_of_a_gate_and_over_tls():
    serve = yaml.safe_load(plan().serve_yaml)
    assert serve["model"] == "mistralai/Mistral-Small-4-119B-2603"
    assert serve["tensor-parallel-size"] == 2
    assert serve["max-model-len"] == 131072
    assert serve["attention-backend"] == "FLASH_ATTN_MLA"
    assert serve["middleware"] == "key_gate.KeyGate"
    assert serve["ssl-keyfile"] == "tls/key.pem"


def test_without_a_query_the_profiles_gpus_are_searched_for():
    assert plan().query == "gpu_name=H200 num_gpus=2"
    assert plan(model="mistral-small-4-fp8-4xh100").query == "gpu_name=H100_SXM num_gpus=4"


def test_the_recipes_query_works_as_it_stands():
    made = plan(offerQuery=RECIPE, diskGb="500")
    assert made.query == RECIPE
    assert made.need.num_gpus == 2
    assert made.need.disk_gb == 500


def test_the_need_counts_weights_image_and_one_full_sequence():
    need = plan().need
    assert need.download_gb == pytest.approx(120.92 + 30)
    assert 60 < need.gpu_ram_gib < 139.8 * 0.9


def test_preview_can_say_what_fits():
    fact, *_ = plan().facts
    assert "sequences of 131072 tokens" in fact


LATENCY = "mistral-small-4-fp8-2xh200-latency"
THROUGHPUT = "mistral-small-4-fp8-2xh200-throughput"


@pytest.mark.parametrize("model", ["mistral-small-4-fp8-2xh200", LATENCY, THROUGHPUT])
def test_preview_quotes_a_measurement_and_says_that_it_was_another_vllm(model):
    _, speed, times, *_ = plan(model=model).facts
    assert "measured with vLLM 0.26.0 on 2x H200, another vLLM than the 0.32.0" in speed
    assert "dummy weights" in speed
    assert "NVLink multicast off, all-reduce fusion off" in times
    assert "docs/measured/2xh200-vllm-0.26.0" in times


def test_preview_quotes_what_one_gpu_gave():
    _, speed, times, *_ = plan(model="mistral-small-4-fp8-1xh200").facts
    assert "measured with vLLM 0.26.0 on 1x H200, another vLLM than the 0.32.0" in speed
    assert "186 (1 client, 1024 tokens in and 256 out)" in speed
    assert "docs/measured/1xh200-vllm-0.26.0" in times
    assert "multicast" not in times


def test_preview_says_what_two_engines_give_and_hold():
    made = plan(model=THROUGHPUT)
    room, speed, *_ = made.facts
    assert "45.4 sequences of 131072 tokens" in room
    assert "148 (1 client, 1024 tokens in and 256 out)" in speed
    assert "6963 (256 clients)" in speed
    assert any("real text routes less evenly" in warning for warning in made.warnings)
    serve = yaml.safe_load(made.serve_yaml)
    assert (serve["data-parallel-size"], serve["api-server-count"]) == (2, 1)


@pytest.mark.parametrize(("servers", "told"), [(None, 0), (1, 0), (2, 1)])
@pytest.mark.parametrize("model", ["mistral-small-4-fp8-2xh200", THROUGHPUT])
def test_several_api_servers_are_warned_of(model, servers, told):
    overrides = {"api-server-count": servers} if servers else {}
    made = plan(model=model, vllmOverrides=json.dumps(overrides))
    assert sum("cuts off the requests under way" in one for one in made.warnings) == told


def test_preview_quotes_the_same_vllm_as_the_server_s_own():
    _, speed, *_ = plan(image="vllm/vllm-openai:v0.26.0").facts
    assert "another vLLM" not in speed
    assert "without what this stack changes of the profile" in speed


@pytest.mark.parametrize(
    "change",
    [
        {"vllmOverrides": '{"max-num-seqs": 64}'},
        {"maxModelLen": "65536"},
        {"image": "somebody/else:v1"},
    ],
)
def test_a_changed_profile_does_not_get_the_figure_as_its_own(change):
    _, speed, *_ = plan(**change).facts
    assert "without what this stack changes of the profile" in speed
    _, unchanged, *_ = plan().facts
    assert "this stack changes" not in unchanged


@pytest.mark.parametrize(
    "query", ["gpu_name=H100_SXM num_gpus=4", "gpu_name=H200 num_gpus=8", "gpu_ram>=130"]
)
def test_other_gpus_than_those_measured_have_no_figure(query):
    assert not [fact for fact in plan(offerQuery=query).facts if "measured" in fact]


def variables(**changes):
    words = shlex.split(plan(**changes).environment)
    return dict(word.split("=", 1) for word in words)


def test_with_a_token_the_server_finds_all_it_needs_or_asks():
    assert "HF_TOKEN" not in variables()
    assert "HUB_OFFLINE_ONCE_FETCHED" not in variables()
    told = variables(huggingFaceToken="hf_sentinel")
    assert told["HF_TOKEN"] == "hf_sentinel"
    assert told["HUB_OFFLINE_ONCE_FETCHED"] == "1"
    draft = {"method": "draft_model", "model": "someone/draft", "num_speculative_tokens": 3}
    told = variables(huggingFaceToken="hf_sentinel", vllmOverrides={"speculative-config": draft})
    assert "HUB_OFFLINE_ONCE_FETCHED" not in told


def test_pictures_come_from_anywhere_by_default_and_that_is_warned_of():
    made = plan()
    assert MEDIA not in yaml.safe_load(made.serve_yaml)
    (said,) = [one for one in made.warnings if "mediaFrom" in one]
    assert "whoever has the key can have the machine fetch any address that it reaches" in said
    assert "its own loopback and its host's network among them" in said
    assert plan(mediaFrom="anywhere").warnings == made.warnings
    assert "\n" not in said


@pytest.mark.parametrize(
    ("media_from", "domains"),
    [
        ("none", ["none.invalid"]),
        ("None ", ["none.invalid"]),
        ("a.example", ["a.example"]),
        ("A.example,  b.example,a.example", ["a.example", "b.example"]),
        ("127.0.0.1", ["127.0.0.1"]),
    ],
)
def test_pictures_come_from_whom_the_settings_name(media_from, domains):
    made = plan(mediaFrom=media_from)
    assert yaml.safe_load(made.serve_yaml)[MEDIA] == domains
    said = [one for one in made.warnings if "mediaFrom" in one]
    # Mistral's tokenizer fetches again, and does not know the list.
    assert bool(said) == (domains != ["none.invalid"])
    assert all("follows redirects" in one for one in said)


def test_a_model_that_takes_no_pictures_is_not_warned_of():
    blind = plan(vllmOverrides='{"language-model-only": true}')
    assert not [one for one in blind.warnings if "mediaFrom" in one]
    text = plan(model="qwen2.5-0.5b-1x4090", offerQuery="gpu_name=RTX_4090 num_gpus=1")
    assert not [one for one in text.warnings if "mediaFrom" in one]


def test_every_server_follows_no_redirect_and_gives_few_answers_to_one_request():
    told = variables()
    assert told["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert told["VLLM_MAX_N_SEQUENCES"] == "64"
    assert "VLLM_MEDIA_EGRESS_BLOCK_PRIVATE" not in told


def test_no_release_has_a_say_in_that(tmp_path):
    runs = plan(image=PINNED).runs("a" * 40, {})
    loose = {"VLLM_MAX_N_SEQUENCES": "9999", "NCCL_DEBUG": "INFO"}
    profile = runs.profile.model_copy(update={"env": loose})
    runs = runs.model_copy(update={"profile": profile})
    release = Release(name="r1", digest=digest_of(runs), runs=runs, proven={})
    (tmp_path / "r1.yaml").write_text(to_text(release))
    made = make_plan(parse(values(release="r1")), releases=tmp_path)
    told = dict(word.split("=", 1) for word in shlex.split(made.environment))
    assert told["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert told["VLLM_MAX_N_SEQUENCES"] == "64"
    assert told["NCCL_DEBUG"] == "INFO"
    assert digest_of(made.runs("a" * 40, {})) == release.digest


def test_a_companion_counts_in_traffic_and_disk():
    made = plan(model="mistral-small-4-fp8-2xh200-eagle")
    assert made.need.download_gb == pytest.approx(plan().need.download_gb + 0.39)
    with pytest.raises(ConfigurationError, match=r"121\.31 for the weights"):
        plan(model="mistral-small-4-fp8-2xh200-eagle", diskGb="160")


def test_a_draft_that_only_an_override_names_is_warned_of():
    draft = '{"speculative_config": {"method": "eagle", "model": "org/head"}}'
    as_text = json.dumps({"speculative-config": '{"model": "org/head"}'})
    for overrides in (draft, as_text):
        made = plan(vllmOverrides=overrides)
        assert [one for one in made.warnings if "org/head, which is no companion" in one]


def test_an_adapter_of_the_hub_is_warned_of_and_kept_out_of_production(tmp_path):
    adapter = json.dumps({"lora-modules": ["one=someone/adapter"], "enable-lora": True})
    made = plan(vllmOverrides=adapter)
    assert any("someone/adapter, which is no companion" in warning for warning in made.warnings)
    with pytest.raises(ConfigurationError, match="someone/adapter is taken at 'main', which is no"):
        in_production(tmp_path, vllmOverrides=adapter)


def test_another_format_than_the_profile_s_is_warned_of():
    made = plan(vllmOverrides='{"load-format": "hf"}')
    assert any(
        "load-format is hf and mistral in the profile" in warning for warning in made.warnings
    )
    assert not [warning for warning in plan().warnings if "load-format" in warning]


def test_an_option_is_held_to_the_gpus_that_the_stack_asks_for():
    with pytest.raises(ConfigurationError, match="FLASH_ATTN_MLA runs on Hopper GPUs alone and B2"):
        plan(offerQuery="gpu_name=B200 num_gpus=2")
    assert plan(offerQuery="gpu_name=H100_SXM num_gpus=4 gpu_ram>=140").serve_yaml


def test_gpus_by_memory_are_told_and_narrowed_by_what_is_served():
    """As the market's own pages teach: the recipe's flags run on Hopper alone."""
    made = plan(offerQuery="num_gpus=2 gpu_ram>=80")
    assert (made.need.least_compute_cap, made.need.compute_cap_below) == (900, 1000)
    assert any(
        "leaves the GPU open" in fact
        and "are Hopper GPUs (attention-backend FLASH_ATTN_MLA)" in fact
        for fact in made.facts
    )
    free = plan(
        offerQuery="num_gpus=2 gpu_ram>=80", vllmOverrides='{"attention-backend": "TRITON_MLA"}'
    )
    assert (free.need.least_compute_cap, free.need.compute_cap_below) == (800, 0)
    inside = plan(
        offerQuery="num_gpus=2 gpu_ram>=80",
        vllmOverrides='{"attention-backend": null, "attention-config": {"backend": "FLASHMLA"}}',
    )
    assert (inside.need.least_compute_cap, inside.need.compute_cap_below) == (900, 1100)


def test_a_list_of_gpus_is_asked_one_by_one():
    made = plan(offerQuery="num_gpus=2 gpu_name in [H200,A100_SXM4]")
    assert any("so nothing with A100 SXM4 is rented" in one for one in made.warnings)
    assert any("on 2x H200: weights" in fact for fact in made.facts)
    with pytest.raises(ConfigurationError, match="Hopper GPUs alone and none of A100 SXM4 and B20"):
        plan(offerQuery="num_gpus=2 gpu_name in [A100_SXM4,B200]")
    with pytest.raises(ConfigurationError, match="does not fit"):
        plan(offerQuery="num_gpus=2 gpu_name in [RTX_4090,RTX_3090]")


def test_cards_that_carry_nothing_are_told_whatever_they_are():
    for query in ("num_gpus=4 gpu_ram>=130", "num_gpus=4 gpu_name in [H200,H200_NVL]"):
        said = [one for one in plan(offerQuery=query).warnings if "paid for nothing" in one]
        assert len(said) == 1


EAGLE = "mistral-small-4-fp8-2xh200-eagle"


def test_another_image_is_checked_as_the_vllm_that_its_tag_names():
    assert plan(image="vllm/vllm-openai:v0.32.0").profile.vllm_version == "0.32.0"
    with pytest.raises(ConfigurationError, match=r"the eagle head ends vLLM 0\.22\.1 at the start"):
        plan(model=EAGLE, image="vllm/vllm-openai:v0.22.1")
    with pytest.raises(ConfigurationError, match="the eagle head ends the server of mistralllm/"):
        plan(model=EAGLE, image="mistralllm/vllm-ms4:latest")


def test_an_image_that_does_not_say_its_vllm_is_warned_of():
    made = plan(image="mistralllm/vllm-ms4:latest")
    (said,) = [warning for warning in made.warnings if "does not say which vLLM" in warning]
    assert f"as those of vLLM {plan().profile.vllm_version}, the profile's" in said
    assert not [warning for warning in plan().warnings if "does not say" in warning]


@pytest.mark.parametrize(
    ("changes", "version"),
    [({"image": "vllm/vllm-openai:v0.20.0"}, "0.20.0"), ({"model": MS4}, "0.18.0")],
)
def test_a_table_of_another_version_is_warned_of(changes, version):
    assert any(
        f"there is no table of vLLM {version}'s options, so they are checked as" in warning
        for warning in plan(**changes).warnings
    )


@pytest.mark.parametrize("name", sorted({*profile_names(MODELS)} - {MS4}))
def test_a_profile_is_checked_by_the_table_of_its_own_version(name):
    assert not [warning for warning in plan(model=name).warnings if "no table" in warning]


def test_an_override_is_in_the_file():
    made = plan(vllmOverrides='{"max-num-seqs": 64}', maxModelLen="65536")
    serve = yaml.safe_load(made.serve_yaml)
    assert serve["max-num-seqs"] == 64
    assert serve["max-model-len"] == 65536


def test_tls_off_is_possible_and_warned_about():
    made = plan(tls="false")
    assert "ssl-keyfile" not in made.serve_yaml
    assert any("in clear" in warning for warning in made.warnings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "mistral-small-4"}, "there is no profile 'mistral-small-4'"),
        ({"offerQuery": "gpu_name=RTX_4090 num_gpus=2"}, "does not fit"),
        ({"offerQuery": "gpu_name=H200 num_gpus=1"}, "spreads over 2 GPUs and there are 1"),
        ({"offerQuery": "gpu_name=H200 num_gpus>=2"}, "asks for num_gpus gte 2"),
        ({"offerQuery": "gpu_name=H200 num_gpus=two"}, "compares num_gpus with 'two'"),
        ({"maxModelLen": "2000000"}, "max_model_len is 2000000"),
        ({"vllmOverrides": '{"max-num-seq": 64}'}, "did you mean `max-num-seqs`?"),
        ({"vllmOverrides": '{"api-key": "x"}'}, "the key gate decides"),
        ({"vllmOverrides": '{"allowed-media-domains": ["a.b"]}'}, "set mediaFrom"),
        ({"vllmOverrides": '{"max-num-seqs": "many"}'}, "takes a whole number"),
        ({"offerQuery": "gpu=H200"}, "names 'gpu'"),
        ({"offerQuery": "gpu=H200"}, "did you mean"),
        ({"offerQuery": "gpu_name=H200 num_gpus"}, "cannot be read"),
        (A_MILLION, "does not fit"),
        (A_MILLION, "one sequence of 1048576 tokens needs"),
        (A_MILLION, "what would fit"),
        ({"diskGb": "100"}, "diskGb is 100 and mistral-small-4-fp8-2xh200 needs 167 GB"),
    ],
)
def test_what_cannot_work_is_refused_before_the_market_is_asked(changes, said):
    with pytest.raises(ConfigurationError) as refused:
        plan(**changes)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_caps_floors_and_budget_are_the_settings():
    need = plan(
        datacenterOnly="true",
        maxDollarsPerMonth="3000",
        rentBudgetMinutes="15",
        rentBudgetDollars="2.5",
    ).need
    assert need.datacenter_only is True
    assert need.max_dollars_per_month == 3000
    assert (need.rent_budget_minutes, need.rent_budget_dollars) == (15, 2.5)
    assert need.min_driver == "580"


def test_the_need_knows_what_to_measure_the_link_with():
    need = plan().need
    assert need.repository == "mistralai/Mistral-Small-4-119B-2603"
    assert need.files[0] == "consolidated*"
    assert need.weights_gb == pytest.approx(120.92)
    assert need.ready_minutes == 45


@pytest.mark.parametrize("name", profile_names(MODELS))
def test_each_profiles_own_disk_is_large_enough(name):
    assert plan(model=name).need.disk_gb > 0


def test_the_kind_of_contract_is_part_of_the_search_and_of_what_a_host_is() -> None:
    plain = plan()
    bids = plan(contract="interruptible")
    assert (plain.need.contract, bids.need.contract) == ("on-demand", "interruptible")
    assert plain.generation() != bids.generation()


def test_a_machine_that_replaces_one_whose_contract_ends_lasts_longer() -> None:
    rule = {"whenContractEnds": "replace", "warnDaysBefore": "5"}
    assert plan(**rule).need.min_days_left == 6
    assert plan(**rule, minDaysLeft="9").need.min_days_left == 9
    assert plan(warnDaysBefore="5").need.min_days_left == 3


MODEL, COMMIT, DRAFTS = "mistralai/Mistral-Small-4-119B-2603", "a" * 40, "b" * 40


def test_a_stack_takes_the_revisions_that_it_sets():
    made = plan(model=EAGLE, revisions=json.dumps({MODEL: COMMIT, f"{MODEL}-eagle": DRAFTS}))
    assert made.profile.fetched == {MODEL: COMMIT, f"{MODEL}-eagle": DRAFTS}
    serve = yaml.safe_load(made.serve_yaml)
    assert serve["revision"] == COMMIT
    assert serve["speculative-config"]["revision"] == DRAFTS
    assert {one.repository: one.revision for one in made.references} == made.profile.fetched


def test_a_draft_that_is_no_companion_is_at_the_revision_that_is_set():
    draft = '{"speculative_config": {"method": "eagle", "model": "org/head"}}'
    made = plan(vllmOverrides=draft, revisions=json.dumps({"org/head": DRAFTS}))
    assert yaml.safe_load(made.serve_yaml)["speculative-config"]["revision"] == DRAFTS
    assert made.runs(COMMIT, {"org/head": DRAFTS}).serve["speculative-config"]["model"]


def test_a_revision_of_what_is_not_taken_is_told():
    made = plan(revisions=json.dumps({"org/other": COMMIT}))
    assert "revisions names org/other, which this stack does not take" in made.warnings


@pytest.mark.parametrize(
    ("model", "image", "cuda", "driver"),
    [
        (MS4, "", 12.8, "570"),
        (MS4, "vllm/vllm-openai:v0.33.0", 13.0, "580"),
        ("mistral-small-4-fp8-2xh200", "mistralllm/vllm-ms4:latest", 12.8, "570"),
        ("mistral-small-4-fp8-2xh200", "vllm/vllm-openai:v0.33.0-cu129", 12.9, "575"),
        ("mistral-small-4-fp8-2xh200", "registry.example/own:1", 13.0, "580"),
    ],
)
def test_what_a_driver_must_be_follows_the_image(model, image, cuda, driver):
    need = plan(model=model, **({"image": image} if image else {})).need
    assert (need.min_cuda, need.min_driver) == (cuda, driver)


@pytest.mark.parametrize("name", profile_names(MODELS))
def test_no_profile_asks_for_less_than_its_image_needs(name):
    assert not [one for one in plan(model=name).warnings if "min_cuda" in one]


def test_a_profile_that_asks_for_less_than_its_image_needs_is_told(tmp_path):
    text = (MODELS / f"{MS4}.yaml").read_text()
    newer = text.replace("mistralllm/vllm-ms4:latest", "vllm/vllm-openai:v0.32.0")
    (tmp_path / "own.yaml").write_text(newer)
    made = make_plan(parse(values(model="own")), models=tmp_path)
    assert any("min_cuda is 12.8" in one and "holds CUDA 13" in one for one in made.warnings)


GATED = """\
description: Llama 3.2 1B Instruct on 1x RTX 4090
repository: meta-llama/Llama-3.2-1B-Instruct
files: ["*.safetensors", "*.json"]
served_model_name: llama
weights_gb: 2.48
kv_bytes_per_token: 32768
kv_replicated: false
attention_heads: 32
max_position_embeddings: 131072
max_model_len: 32768
gpu_memory_utilization: 0.9
tensor_parallel_size: 1
gpu_name: RTX 4090
num_gpus: 1
overhead_gib: 3
image: vllm/vllm-openai:v0.33.0
vllm_version: "0.33.0"
min_cuda: 13.0
min_driver: "580"
image_gb: 30
disk_gb: 60
gated: true
"""


def test_a_gated_model_without_a_token_is_refused_before_anything_is_rented(tmp_path):
    (tmp_path / "llama.yaml").write_text(GATED)
    with pytest.raises(ConfigurationError, match=r"\(gated\), and the stack has no token.*nothing"):
        make_plan(parse(values(model="llama")), models=tmp_path)
    with_token = parse(values(model="llama", huggingFaceToken="hf_sentinel"))
    assert make_plan(with_token, models=tmp_path).profile.gated
    (tmp_path / "llama.yaml").write_text(GATED.replace("gated: true", "gated: false"))
    assert make_plan(parse(values(model="llama")), models=tmp_path)


def test_an_option_that_vllms_parser_refuses_is_refused_in_preview():
    with pytest.raises(
        ConfigurationError, match=r"`limit-mm-per-prompt` is set to 'image=4'.*JSON"
    ):
        plan(vllmOverrides='{"limit-mm-per-prompt": "image=4"}')
