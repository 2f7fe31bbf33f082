from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.machine.gpus import is_older_driver
from components.vast.api.models import Offer
from components.vast.errors import NoCredit, NoOffer, QueryRefused
from components.vast.market.query import gpus_asked, matches, parse_query, still_fits
from components.vast.market.ranking import (
    SHORTLIST,
    check_credit,
    choose_bid,
    hourly_cap,
    landed,
    shortlist,
)
from components.vast.market.search import search_body, starts_on, with_floors
from components.vast.market.wording import SHOWN, describe_bid, runway, shortlist_lines, summarize
from emulator.gpus import GPUS
from tests.helpers.offers import need, offer, row

RECIPE = (
    "gpu_name=H200 num_gpus=2 direct_port_count>=1 rentable=true disk_space>=500 cuda_vers>=12.2"
)


def test_the_recipes_query_is_read_as_the_official_client_reads_it():
    assert parse_query(RECIPE) == {
        "verified": {"eq": True},
        "external": {"eq": False},
        "rentable": {"eq": True},
        "gpu_name": {"eq": "H200"},
        "num_gpus": {"eq": "2"},
        "direct_port_count": {"gte": "1"},
        "disk_space": {"gte": "500"},
        "cuda_max_good": {"gte": "12.2"},
    }


def test_a_default_can_be_taken_back():
    assert "verified" not in parse_query("gpu_name=H200 verified=any")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("gpu_nam=H200", "did you mean gpu_name?"),
        ("gpu_name", "cannot be read"),
        ("gpu_name ~ H200", "cannot be read"),
        ("zzz=1", "vastai search offers --help"),
    ],
)
def test_a_query_that_is_none_is_refused_in_one_sentence(text, named, capsys):
    with pytest.raises(QueryRefused, match="offer query") as refused:
        parse_query(text)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("disk_space>=500GB", "compares disk_space with '500GB'"),
        ("inet_down>=1Gbps", "compares inet_down with '1Gbps'"),
        ("num_gpus=two", "compares num_gpus with 'two'"),
        ("num_gpus in [2,four]", "compares num_gpus with 'four'"),
        ("reliability>=null", "compares reliability with 'None'"),
        ("direct_port_count=true", "compares direct_port_count with 'True'"),
        ("dph<nan", "compares dph_total with 'nan'"),
        ("disk_space>=inf", "compares disk_space with 'inf'"),
        ("gpu_ram>=64GB", "compares gpu_ram with '64GB'"),
        ("duration>=1_week", "compares duration with '1 week'"),
    ],
)
def test_a_number_that_is_none_is_refused_with_its_field(text, named):
    with pytest.raises(QueryRefused, match="without a unit") as refused:
        parse_query(text)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_number_anyway_may_be_a_word():
    query = parse_query("gpu_name=H200 geolocation=IS static_ip=true verification=null")
    assert query["geolocation"] == {"eq": "IS"}
    assert query["static_ip"] == {"eq": True}


@pytest.mark.parametrize(
    ("text", "field", "condition"),
    [
        ("gpu_ram>=80", "gpu_ram", {"gte": 80000.0}),
        ("duration>=2.5", "duration", {"gte": 216000.0}),
        ("cpu_ram in [64,128]", "cpu_ram", {"in": [64000.0, 128000.0]}),
        ("inet_down>=800", "inet_down", {"gte": "800"}),
    ],
)
def test_gb_and_days_become_the_units_of_a_row(text, field, condition):
    assert parse_query(text)[field] == condition


@pytest.mark.parametrize(
    ("text", "gpus"),
    [("gpu_name=H200", 2), ("num_gpus=any", 2), ("num_gpus=4", 4), ("num_gpus=4 num_gpus>=2", 4)],
)
def test_the_number_of_gpus_is_the_querys_or_the_profiles(text, gpus):
    assert gpus_asked(parse_query(text), 2) == gpus


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("num_gpus>=2", "asks for num_gpus gte 2,"),
        ("num_gpus in [2,4]", "asks for num_gpus in [2,4],"),
        ("num_gpus>1 num_gpus<8", "asks for num_gpus gt 1 num_gpus lt 8,"),
        ("num_gpus=2.5", "asks for num_gpus eq 2.5,"),
    ],
)
def test_a_query_that_leaves_the_number_of_gpus_open_is_refused(text, said):
    with pytest.raises(QueryRefused, match=r"made for 2 GPUs.*write `num_gpus=2`") as refused:
        gpus_asked(parse_query(text), 2)
    assert said in str(refused.value)


def test_floors_are_added_and_the_stricter_condition_stays():
    query = with_floors(parse_query("gpu_name=H200 cuda_vers>=13.1 disk_space>=100"), need())
    assert query["cuda_max_good"] == {"gte": 13.1}
    assert query["disk_space"] == {"gte": 500.0}
    assert query["num_gpus"] == {"eq": 2}
    assert query["direct_port_count"] == {"gte": 2.0}


def test_the_memory_of_a_slice_is_its_share():
    """Section 6 of marketplace-facts.md: a row has the whole machine's."""
    slice_of_8 = row(cpu_ram=2_000_000, cpu_cores=192, cpu_cores_effective=48)
    assert matches(slice_of_8, parse_query("cpu_ram>=500"))
    assert not matches(slice_of_8, parse_query("cpu_ram>=501"))
    assert matches(row(cpu_ram=2_000_000), parse_query("cpu_ram>=501"))
    assert matches(slice_of_8, parse_query("cpu_ram<=2000"))


HOPPER = {"least_compute_cap": 900.0, "compute_cap_below": 1000.0}
BY_MEMORY = "num_gpus=2 gpu_ram>=80"


def of(kind: str, **changes: Any) -> dict[str, Any]:
    known = {gpu.name: gpu for gpu in GPUS}[kind]
    facts = {"gpu_name": kind, "gpu_ram": known.ram_mib, "compute_cap": known.compute_cap}
    return row(**facts | changes)


def starting(query: str, **changes: Any) -> set[str]:
    """The GPUs of a market of all kinds that come into question."""
    wanted = with_floors(parse_query(query), need(**changes))
    offers = [Offer.from_json(of(gpu.name, id=n)) for n, gpu in enumerate(GPUS, 1)]
    try:
        found = shortlist(offers, wanted, need(**changes))
    except NoOffer:
        return set()
    return {one.offer.gpu_name for one in found}


def test_gpus_by_memory_are_those_on_which_the_server_starts():
    assert starting(BY_MEMORY, **HOPPER) == {"H200", "H200 NVL", "H100 SXM", "H100 NVL"}
    assert "A100 SXM4" in starting(BY_MEMORY, least_compute_cap=800.0)
    assert starting("gpu_name in [A100_SXM4,H200]", **HOPPER) == {"H200"}
    assert starting("compute_cap=800", **HOPPER) == set()
    assert starting("gpu_ram=24.564", gpu_ram_gib=72.0) == set()


def test_the_market_is_asked_for_them_too_since_it_gives_only_so_many():
    body = search_body(with_floors(parse_query(BY_MEMORY), need()), need())
    assert body["compute_cap"] == {"gte": 500.0}
    floors = with_floors(parse_query(BY_MEMORY), need(**HOPPER))
    assert floors["compute_cap"] == {"gte": 900.0, "lt": 1000.0}
    stricter = with_floors(parse_query("compute_cap>=890 compute_cap<950"), need(**HOPPER))
    assert stricter["compute_cap"] == {"gte": 900.0, "lt": 950.0}


@pytest.mark.parametrize(
    ("changes", "starts"),
    [
        ({"compute_cap": None}, True),  # its name is known
        ({"compute_cap": None, "gpu_name": "H900"}, False),
        ({"compute_cap": 800}, False),
        ({"compute_cap": 1000}, False),
        ({"gpu_ram": 40960}, False),
        ({"gpu_ram": None}, True),
        ({"gpu_ram": "much"}, False),
        ({"gpu_ram": 10**400}, False),
        ({"compute_cap": "new"}, False),
        ({"compute_cap": 10**400}, False),
        ({"compute_cap": "900"}, True),
        ({"gpu_arch": "amd"}, False),
        ({"gpu_arch": "nvidia"}, True),
    ],
)
def test_a_row_is_judged_by_what_it_says(changes, starts):
    assert starts_on(of("H200", **changes), need(**HOPPER)) is starts


@given(
    st.sampled_from([gpu.name for gpu in GPUS]),
    st.sampled_from(["", "gpu_ram>=20", "gpu_ram=80", "compute_cap>=700", "gpu_name in [A,B]"]),
    st.sampled_from([(700, 0), (800, 0), (900, 1000), (900, 1100), (1000, 1100)]),
    st.floats(1, 200),
)
def test_whatever_is_asked_no_offer_is_a_candidate_that_cannot_start(name, query, caps, memory):
    least, below = map(float, caps)
    needs = need(least_compute_cap=least, compute_cap_below=below, gpu_ram_gib=memory)
    offer_ = Offer.from_json(of(name))
    with contextlib.suppress(NoOffer):
        shortlist([offer_], with_floors(parse_query(query), needs), needs)
        assert offer_.raw["compute_cap"] >= least
        assert not below or offer_.raw["compute_cap"] < below
        assert offer_.gpu_ram_mib >= memory * 1024 * 0.99


def test_a_search_by_cuda_names_a_compute_capability_too():
    """Section 13 of marketplace-facts.md: without any, H100 and H200 may be hidden."""
    body = search_body(with_floors(parse_query("gpu_name=H200"), need()), need())
    assert (body["cuda_max_good"], body["compute_cap"]) == ({"gte": 13.0}, {"gte": 500.0})
    asked = with_floors(parse_query("compute_cap>=900"), need())
    assert asked["compute_cap"] == {"gte": 900.0}


def test_floors_change_nothing_in_the_query_they_are_given():
    query = parse_query(RECIPE)
    with_floors(query, need())
    assert query == parse_query(RECIPE)


def test_the_search_asks_for_prices_with_the_real_disk():
    body = search_body(parse_query(RECIPE), need(disk_gb=640.0))
    assert body["allocated_storage"] == 640.0
    assert body["type"] == "on-demand"
    assert body["order"] == [["dph_total", "asc"]]


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("num_gpus=2", True),
        ("num_gpus=4", False),
        ("gpu_name=H100", False),
        ("gpu_name in [H100,H200]", True),
        ("gpu_name notin [H200]", False),
        ("inet_down>5000", False),
        ("inet_down>=5000", True),
        ("dph_total<6", False),
        ("dph_total<=6.0", True),
        ("num_gpus!=2", False),
        ("bw_nvlink>=100", True),  # not in the row: Vast's word is taken for it
    ],
)
def test_each_condition_is_checked_again_on_the_row(query, fits):
    assert matches(row(), parse_query(query)) is fits


def test_landed_cost_counts_traffic_and_the_time_of_the_download():
    candidate = landed(offer(dph_total=6.0, inet_down=1000.0, inet_down_cost=0.01), need())
    assert candidate.traffic_dollars == pytest.approx(1.5)
    assert candidate.download_seconds == pytest.approx(1200)
    assert candidate.dollars_to_ready == pytest.approx(1.5 + 2.0)
    assert candidate.landed_dollars_per_hour == pytest.approx(6.35)


def test_a_cheap_offer_on_a_slow_link_loses_to_a_fast_one():
    slow = offer(id=1, machine_id=1, dph_total=5.9, inet_down=500.0, inet_down_cost=0.03)
    fast = offer(id=2, machine_id=2, dph_total=6.0, inet_down=8000.0, inet_down_cost=0.001)
    query = parse_query("gpu_name=H200")
    ranked = shortlist([slow, fast], query, need(expected_hours=2.0))
    assert [candidate.offer.id for candidate in ranked] == [2, 1]
    ranked = shortlist([slow, fast], query, need(expected_hours=2000.0))
    assert [candidate.offer.id for candidate in ranked] == [1, 2]


@pytest.mark.parametrize(
    "field", ["id", "machine_id", "gpu_name", "num_gpus", "inet_down", "dph_total"]
)
def test_an_offer_that_does_not_say_what_counts_is_left_out(field):
    silent = offer(**{"id": 1, "machine_id": 1, field: None})
    found = shortlist([silent, offer(id=2)], parse_query("gpu_name=H200"), need())
    assert [candidate.offer.id for candidate in found] == [2]


def test_at_most_as_many_candidates_as_a_rent_may_try():
    many = [offer(id=n, machine_id=n) for n in range(40)]
    assert len(shortlist(many, {}, need())) == SHORTLIST


def test_a_cap_below_the_market_names_both_numbers_and_the_remedy():
    with pytest.raises(NoOffer) as refused:
        shortlist([offer(dph_total=6.001)], {}, need(max_dollars_per_hour=5.0))
    text = str(refused.value)
    assert "$6.00/h" in text
    assert "maxDollarsPerHour is 5.00" in text
    assert "at least 6.01" in text
    assert "nothing was rented" in text


def test_an_empty_market_names_what_was_asked():
    with pytest.raises(NoOffer, match=r"no offer on the market matches: .*num_gpus eq 16"):
        shortlist([offer()], parse_query("num_gpus=16"), need())


def test_a_running_machine_outlives_the_market_but_not_another_gpu():
    facts = {"gpu_name": "H200", "num_gpus": 2.0}
    assert still_fits(facts, parse_query("gpu_name=H200 num_gpus=2 dph_total<1"))
    assert not still_fits(facts, parse_query("gpu_name=H200 num_gpus=4"))


def test_the_summary_says_how_many_how_much_and_how_long():
    candidates = shortlist([offer(), offer(id=2, machine_id=8)], {}, need())
    text = summarize(candidates)
    assert text.startswith("2 offers, best: 2x H200 in Iceland, IS (datacenter), $6.00/h")
    assert "4 min of download" in text
    assert "$144 a day" in text


def test_a_cap_per_month_refuses_too_and_the_stricter_one_speaks():
    cheap = need(max_dollars_per_hour=8.0, max_dollars_per_month=4000.0)
    with pytest.raises(NoOffer) as refused:
        shortlist([offer(dph_total=6.0)], {}, cheap)
    text = str(refused.value)
    assert "costs $4320.00 a month ($6.00/h)" in text
    assert "maxDollarsPerMonth is 4000.00" in text
    assert "at least 4320.00" in text
    assert hourly_cap(cheap) == pytest.approx(4000 / 720)
    assert hourly_cap(need(max_dollars_per_hour=5.0)) == 5.0


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({"hosting_type": 0}, False),
        ({"hosting_type": 1}, True),
        ({"driver_version": "570.124.04"}, False),
        ({"driver_version": "580.65.06"}, True),
        ({"driver_version": None}, True),  # the host check will see
    ],
)
def test_what_a_row_says_in_another_form_is_checked_as_well(changes, fits):
    needs = need(datacenter_only=True, min_driver="580")
    if fits:
        assert len(shortlist([offer(**changes)], {}, needs)) == 1
        return
    with pytest.raises(NoOffer, match="driver gte 580"):
        shortlist([offer(**changes)], {}, needs)


@pytest.mark.parametrize(
    ("duration", "fits"),
    [(86400.0, False), (29.9 * 86400, False), (30.0 * 86400, True), (None, True)],
)
def test_an_offer_whose_host_leaves_too_early_is_none(duration, fits):
    needs = need(min_days_left=30.0)
    query = with_floors(parse_query("gpu_name=H200"), needs)
    offers = [offer(duration=duration), offer(id=2, duration=31 * 86400.0)]
    found = shortlist(offers, query, needs)
    assert {candidate.offer.id for candidate in found} == ({111, 2} if fits else {2})


def test_a_query_that_asks_for_more_days_is_held_to_them():
    query = with_floors(parse_query("duration>=40"), need())
    assert query["duration"] == {"gte": 40 * 86400.0}
    assert not matches(row(), query)
    assert matches(row(duration=41 * 86400.0), query)


def test_datacenters_are_asked_for_where_only_they_will_do():
    assert with_floors({}, need(datacenter_only=True))["datacenter"] == {"eq": True}
    assert "datacenter" not in with_floors({}, need())


@pytest.mark.parametrize(
    ("version", "least", "older"),
    [
        ("570.124.04", "580", True),
        ("580", "580", False),
        ("580.95.05", "580.105", True),
        ("580.105.08", "580.95.05", False),
        ("1000.1", "580", False),
    ],
)
def test_drivers_are_compared_by_their_numbers(version, least, older):
    assert is_older_driver(version, least) is older


def test_the_shortlist_is_a_table_that_any_terminal_shows():
    many = [offer(id=n, machine_id=n, dph_total=6.0 + n / 100) for n in range(1, 12)]
    heading, _, best, *others = shortlist_lines(shortlist(many, {}, need()))
    assert " ".join(heading.split()) == (
        "machine GPUs place host $/h Mbit/s reliability download $ to ready $/day $/month "
        "offered for"
    )
    assert " ".join(best.split()) == (
        "1 2x H200 Iceland, IS datacenter 6.01 5,000 0.995 4 min 0.70 144 4,327 30 days"
    )
    assert len(others) == SHOWN - 1


def test_runway_is_what_the_credit_lasts_on_the_best_offer():
    candidates = shortlist([offer(dph_total=6.0)], {}, need())
    assert runway(60.3, candidates) == (
        "credit $60.30, which is 10.0 h of running on the best offer"
    )
    assert "0.0 h" in runway(0.0, candidates)


def test_credit_must_cover_getting_ready_and_an_hour_of_use():
    dear, cheap = offer(id=1, dph_total=7.9), offer(id=2, dph_total=6.0)
    candidates = shortlist([dear, cheap], {}, need())
    check_credit(6.71, candidates)
    with pytest.raises(NoCredit) as refused:
        check_credit(6.0, candidates)
    assert "has $6.00 of credit and the least of these offers needs $6.70" in str(refused.value)
    assert "nothing was rented" in str(refused.value)


@pytest.mark.parametrize(
    ("floor", "storage", "cap", "wanted"),
    [
        (2.0, 0.1, 8.0, 2.4),
        (2.0, 0.1, 2.3, 2.2),
        (2.0, 0.1, 2.1, 2.0),
        (2.0, 0.1, 2.09, None),
        (2.0001, 0.0, 2.0002, 2.0001),
        (0.0, 0.1, 8.0, 0.002),
        (1.0003, 0.0, 8.0, 1.201),
    ],
)
def test_a_bid_is_a_margin_over_the_least_and_within_the_cap_with_the_disk(
    floor, storage, cap, wanted
):
    assert choose_bid(floor, storage, cap) == (None if wanted is None else pytest.approx(wanted))


def test_an_interruptible_search_asks_for_bids_and_prices_each_offer_with_its_bid():
    wanted = need(contract="interruptible", max_dollars_per_hour=2.5)
    assert search_body({}, wanted)["type"] == "bid"
    assert search_body({}, need())["type"] == "on-demand"
    dear = offer(id=2, min_bid=2.45)
    found = shortlist([offer(id=1), dear], {}, wanted)
    assert [one.offer.id for one in found] == [1]
    assert found[0].bid == pytest.approx(2.4)
    assert found[0].offer.dollars_per_hour == pytest.approx(2.5)
    words = describe_bid(found)
    assert "the bid on the best offer is $2.400/h for its GPUs, 20% over the least" in words
    assert "takes the machine away" in words


def test_an_offer_that_does_not_say_what_to_bid_is_left_out_of_bids_alone():
    silent, wanted = offer(id=1, min_bid=None), need(contract="interruptible")
    assert [one.offer.id for one in shortlist([silent, offer(id=2)], {}, wanted)] == [2]
    assert [one.offer.id for one in shortlist([silent], {}, need())] == [1]


def test_bids_that_are_all_above_the_cap_are_refused_with_the_least_of_them():
    wanted = need(contract="interruptible", max_dollars_per_hour=2.0)
    with pytest.raises(NoOffer, match=r"cheapest costs \$2.10/h"):
        shortlist([offer()], {}, wanted)


def test_on_demand_has_no_bid():
    found = shortlist([offer()], {}, need())
    assert found[0].bid is None
    assert describe_bid(found) == ""
