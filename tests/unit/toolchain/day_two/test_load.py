"""`make load`, with one endpoint and with many replicas, whatever fails on the way."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given as examples_of
from hypothesis import strategies as st
from rich.console import Console

from components.vast.errors import ApiUnreachable
from tests.helpers.day_two import NOW, FakeMarket, contract, strangers
from tests.helpers.fakes import VirtualClock
from tests.helpers.fleets import CONTRACT, destroyed, fleet
from tests.helpers.load_scene import (
    PLAN,
    TARGET,
    FakeRunner,
    conditions,
    given,
    load_test,
    point,
    served,
    times,
)
from toolchain.day_two.command import Asked, report, run
from toolchain.day_two.fleet import fleet_of
from toolchain.day_two.load import drawing
from toolchain.day_two.load.answer import LoadAnswer
from toolchain.day_two.load.command import Tools, measured_answer, options, played
from toolchain.day_two.load.kept import LoadTest, kept
from toolchain.day_two.load.plan import BadLoad, Cost, OverBudget
from toolchain.day_two.load.procedure import NothingToLoad, target_of
from toolchain.day_two.load.report import NoReport
from toolchain.day_two.load.runner import LoadFailed
from toolchain.day_two.load.view import described_knee, show


@dataclasses.dataclass(frozen=True)
class AskedOfStrangers(Asked):
    """A command line whose market is the test's."""

    strangers: object = None

    @property
    def context(self):
        return self.strangers


OTHER = "vast-vllm/older/endpoint-instance/4ab10f57b5ef2b10"
"""Label of a contract of another stack, whose name begins alike."""


def sketched(tests: Sequence[LoadTest], path: Path, title: str) -> None:
    """Stand for a picture, a third of a second each, where what is in it is not shown."""
    path.write_text(f"<svg>{title}: {len(tests)} tests</svg>")


@pytest.fixture
def play(tmp_path):
    """Make loads of the stack `old`; gives the answer and the runner."""

    def played(
        instead=None,
        *,
        found=None,
        contracts=None,
        market=None,
        fails=99,
        takes=1.0,
        installs=0.0,
        asking=0.0,
        meanwhile=lambda: None,
        draw=sketched,
        **options,
    ):
        clock = VirtualClock(NOW)

        def wait():
            meanwhile()
            clock.sleep(takes)

        runner = FakeRunner(instead or {}, fails, wait)
        account = market or FakeMarket(tmp_path, contracts or [contract()])
        here = AskedOfStrangers(
            stack="old",
            on_account=True,
            as_json=False,
            strangers=strangers(tmp_path, servers={}, account=account, clock=clock),
        )

        def after(seconds, thing):
            clock.sleep(seconds)
            return thing

        tools = Tools(
            runner=lambda: after(installs, runner),
            served=lambda *_: after(asking, served()),
            seed=lambda: 7,
            belongings=tmp_path,
            draw=draw,
        )
        return measured_answer(here, given(**options), found or fleet(), tools), runner

    return played


def printed(answer: LoadAnswer, width: int = 80) -> str:
    written = io.StringIO()
    paper = Console(file=written, width=width)
    for part in show(answer):
        paper.print(part)
    return written.getvalue()


def test_a_test_is_measured_kept_and_drawn_with_its_conditions(play, tmp_path, capsys):
    answer, runner = play(draw=drawing.save)
    assert answer.exit_status == 0
    assert runner.loads == [1, 2, 4]
    assert len(runner.seeds) == 3
    test = answer.test
    assert test is not None
    assert (test.conditions.vllm, test.conditions.guidellm) == ("0.33.0", "0.8.1")
    assert (test.conditions.replicas, test.conditions.gpus) == (1, ("2x H200",))
    assert test.conditions.dollars_per_hour == 6.0
    assert test.conditions.marketplace == "Vast.ai"
    assert answer.dollars_per_million[0] == pytest.approx(6.0 / 3600 / 820.6 * 1e6, rel=1e-3)
    assert kept(tmp_path / "loads/account/old") == [test]
    assert "<svg" in (tmp_path / answer.picture).read_text()
    said = capsys.readouterr().err
    assert "at most 3 min 15 s, in which the machines cost $0.33 at $6.00/h" in said
    assert "1 client: 821 tokens/s" in said


def test_a_second_test_says_how_far_it_is_from_the_first(play, tmp_path):
    folder = tmp_path / "loads/account/old"
    answer, _ = play()
    assert not answer.apart
    (path,) = folder.glob("*.json")
    path.rename(folder / "2020.json")
    text = (folder / "2020.json").read_text().replace(answer.asked_at, "2020-01-01T00:00:00+00:00")
    (folder / "2020.json").write_text(text)
    again, _ = play()
    assert [one.is_within_noise for one in again.apart] == [True, True, True]
    assert any("3 of 3 loads are within the noise of both" in note for note in again.notes)


def test_several_replicas_cost_together_and_a_stranger_of_the_account_does_not(play):
    mine = [contract(CONTRACT + replica) for replica in range(4)]
    answer, _ = play(found=fleet(4), contracts=[*mine, contract(1, label=OTHER)])
    assert answer.cost.dollars_per_hour == 24.0
    assert answer.test is not None
    assert (answer.test.conditions.replicas, answer.test.conditions.router) == (4, True)
    assert "4 x (2x H200)" in printed(answer)


def test_above_the_budget_nothing_is_asked(play):
    with pytest.raises(OverBudget, match=r"\$0.33 of that, above the budget of \$0.10"):
        play(budget="0.10")
    with pytest.raises(BadLoad):
        play(budget="300/day")


def test_without_a_price_nothing_is_asked(play, tmp_path):
    market = FakeMarket(tmp_path, ApiUnreachable("the market does not answer"))
    with pytest.raises(ApiUnreachable):
        play(market=market)


@pytest.mark.parametrize(
    "contracts",
    [
        [contract(1, label=OTHER)],
        [contract(dph_total=None)],
        [contract(dph_total=0)],
        [contract(dph_total=-6.0)],
        [contract(), contract(1, dph_total=0)],
    ],
    ids=["not billed", "without a price", "free", "below nothing", "another without a price"],
)
def test_a_contract_without_a_price_is_not_taken_for_a_free_one(play, contracts):
    with pytest.raises(NothingToLoad, match=r"no price for contract \d+ of the stack old, so"):
        play(contracts=contracts)


def test_a_contract_that_only_its_label_knows_costs_too(play):
    answer, _ = play(contracts=[contract(), contract(1), contract(2, label=OTHER)])
    assert answer.cost.dollars_per_hour == 12.0


def test_what_guidellm_cannot_ask_is_one_sentence(play):
    with pytest.raises(NothingToLoad, match="has no endpoint"):
        play(found=fleet_of("old", destroyed()))
    one = fleet()
    shows = dataclasses.replace(one, outputs={**one.outputs, "client_certificate": "PEM"})
    with pytest.raises(NothingToLoad, match="clientCertificates"):
        play(found=shows)
    assert TARGET.key not in repr(TARGET)
    assert set(target_of(one).hidden) == {*one.secrets, one.outputs["api_key"]}
    assert not any(secret in repr(target_of(one)) for secret in one.secrets)


@pytest.mark.parametrize("error", [NoReport("no report"), KeyboardInterrupt()])
def test_a_load_without_an_answer_or_ctrl_c_leaves_those_before_it(play, error):
    answer, runner = play({2.0: error})
    assert answer.exit_status == 1
    assert runner.loads == [1, 2]
    assert answer.test is not None
    assert [one.load for one in answer.test.points] == [1]
    (problem,) = answer.problems
    assert problem.about == "2 clients"
    assert "; 4 clients were not tried" in problem.text


@pytest.mark.parametrize(("fails", "status", "loads"), [(1, 0, [1, 2, 4]), (2, 1, [1, 4])])
def test_where_guidellm_fails_the_load_is_tried_once_more_at_the_end(play, fails, status, loads):
    answer, runner = play({2.0: LoadFailed("guidellm did not end")}, fails=fails)
    assert answer.exit_status == status
    assert runner.loads == [1, 2, 4, 2]
    assert len(runner.seeds) == 4
    assert answer.test is not None
    assert [one.load for one in answer.test.points] == loads
    assert [one.text for one in answer.problems] == ["guidellm did not end"] * status


def test_it_is_not_tried_again_beyond_the_time_whose_price_was_said(play):
    answer, runner = play({2.0: LoadFailed("guidellm did not end")}, fails=1, takes=65.0)
    assert runner.loads == [1, 2, 4]
    assert answer.exit_status == 1
    assert answer.cost.most_seconds == 3 * 65.0


def test_one_deadline_holds_from_the_start_whatever_the_loads_take(play):
    answer, runner = play(takes=90.0)
    assert runner.left == [195.0, 105.0]
    assert runner.loads == [1, 2]
    (problem,) = answer.problems
    assert problem.about == "4 clients"
    assert problem.text == "the time whose price was said is over"


def test_what_the_endpoint_is_asked_before_is_within_the_time_and_the_install_is_not(play):
    _, runner = play(installs=400.0, asking=25.0)
    assert runner.left == [170.0, 169.0, 168.0]


def test_a_test_during_which_machines_came_or_went_is_told_and_no_release_carries_it(
    play, tmp_path
):
    market = FakeMarket(tmp_path, [contract(), contract(1)])

    def scale():
        market.contracts = [contract(), contract(2), contract(3, label=OTHER)]

    answer, runner = play(market=market, meanwhile=scale)
    assert answer.exit_status == 1
    assert runner.loads == [1, 2, 4]
    (problem,) = answer.problems
    assert problem.text.startswith("contract 2 came and contract 1 went during the test")
    assert "make scale" in problem.mend
    assert answer.test is not None
    assert not answer.test.is_whole
    assert kept(tmp_path / "loads/account/old") == [answer.test]


def test_where_the_market_is_silent_afterwards_nobody_knows_what_was_measured(play, tmp_path):
    market = FakeMarket(tmp_path, [contract()])

    def silence():
        market.contracts = ApiUnreachable("the market does not answer")

    answer, _ = play(market=market, meanwhile=silence)
    assert (answer.verdict, answer.problems) == ("could not be asked", ())
    assert answer.not_asked[0].endswith("the market does not answer")
    assert answer.test is not None
    assert not answer.test.is_whole


def test_a_test_is_whole_if_every_load_was_measured_and_every_request_answered(play):
    answer, _ = play()
    assert answer.test is not None
    assert answer.test.is_whole
    cut_off, _ = play({2.0: KeyboardInterrupt()})
    assert cut_off.test is not None
    assert cut_off.test.flaws == ("2 and 4 clients were not measured",)
    assert not load_test(point(1), point(2, failed=1)).is_whole


def test_a_first_load_that_fails_leaves_nothing_to_keep(play, tmp_path):
    answer, _ = play({1.0: b"{}"})
    assert (answer.exit_status, answer.test, answer.file) == (1, None, "")
    assert not (tmp_path / "loads").exists()
    assert "no load of the stack old was measured" in printed(answer)


def test_a_folder_that_cannot_be_written_is_a_note(play, tmp_path):
    (tmp_path / "loads").write_text("")
    answer, _ = play()
    assert answer.exit_status == 0
    assert any("the test is not kept" in note for note in answer.notes)


def test_a_program_reads_one_model(play, capsys):
    answer, _ = play()
    report(Asked("old", on_account=True, as_json=True), answer, show)
    read = json.loads(capsys.readouterr().out)
    assert read["format"] == "vast-vllm/load/1"
    assert read["verdict"] == "well"
    assert read["most_dollars"] == pytest.approx(0.325)
    assert LoadAnswer.model_validate({k: v for k, v in read.items() if k != "verdict"}) == answer


def test_a_refusal_is_an_exit_status_for_cron_and_a_sentence(capsys):
    def refuse() -> LoadAnswer:
        raise OverBudget("too dear")

    assert run(Asked("old", on_account=True, as_json=False), refuse, show) == 2
    assert capsys.readouterr().err == "too dear\n"


def test_ctrl_c_beside_the_loads_is_a_sentence(capsys):
    def interrupted() -> LoadAnswer:
        raise KeyboardInterrupt

    assert played(Asked("old", on_account=True, as_json=False), interrupted) == 130
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "billed as they were before" in said.err


@pytest.mark.parametrize("option", ["--prompt", "--answer", "--shared"])
def test_tokens_have_a_most(option, capsys):
    assert options([option, "2000000"])
    with pytest.raises(SystemExit):
        options([option, "2000001"])
    assert "2000001 is none of" in capsys.readouterr().err


@examples_of(
    st.lists(
        st.tuples(st.floats(0.01, 1e6), st.floats(0, 1e6), st.integers(0, 99_999)),
        min_size=1,
        max_size=6,
    )
)
def test_any_figures_fit_into_80_columns(rows):
    points = [
        point(2.0**n, tokens, milliseconds, failed=failed, first_token=times(milliseconds))
        for n, (tokens, milliseconds, failed) in enumerate(rows)
    ]
    test = load_test(*points, dollars_per_hour=60.0)
    answer = LoadAnswer(
        asked_at=conditions().at,
        stack="old",
        plan=PLAN,
        cost=Cost(dollars_per_hour=60.0, most_seconds=1, budget=2),
        most_dollars=0.02,
        test=test,
    )
    text = printed(answer)
    assert max(map(len, text.splitlines())) <= 80
    # A cell that did not fit would end in an ellipsis.
    assert "…" not in text
    assert text.count("< knee") == (test.knee is not None)


def test_the_knee_is_named_with_its_figures():
    test = load_test(point(1, 100, 500), point(2, 180, 520), point(4, 190, 2000))
    assert described_knee(test).startswith("2 clients: 180 tokens/s, first token after 104 ms, $")
    beyond = load_test(point(1, 100, 500), point(2, 200, 500), point(4, 400, 500))
    assert described_knee(beyond).startswith("beyond 4 clients")
