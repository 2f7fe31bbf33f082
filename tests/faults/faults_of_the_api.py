"""The marketplace refuses, lies, stalls or forgets: F01, F02, F13 to F17, F22, F24, F26."""

from __future__ import annotations

import json
import re

from tests.faults.cell import Book
from tests.faults.moments import when
from tests.faults.old_state import as_the_first_release_wrote_it
from tests.faults.world import PROFILE, QUERY, World, assert_says

BOOK = Book()
cell = BOOK.cell

FOREVER = 1000
LIST = "/api/v1/instances"
ONE = "/api/v0/instances"


def tries(world: World) -> int:
    """Rent calls, whatever came of them."""
    return sum("/asks/" in call["path"] for call in world.account.requests())


# ----------------------------------------------------------------- F01: somebody was faster


@cell("F01", "offer_taken", "up", leaves="running")
def the_next_candidate_is_rented(world: World) -> str:
    world.account.arm("offer_taken")
    done = world.succeeds("up")
    assert re.search("taken|gone", done.output), done.outcome()
    assert tries(world) == 2
    return "the next candidate is rented"


@cell("F01", "offer_taken, as 410 and as 400", "up", leaves="running", part="whole")
def its_other_shapes_are_known(world: World) -> str:
    world.account.arm("offer_taken", http=410)
    world.account.arm("offer_taken", http=400)
    world.succeeds("up")
    assert tries(world) == 3
    return "the third candidate is rented"


@cell("F01", "offer_taken, by everybody", "up", part="whole")
def tries_are_bounded(world: World) -> str:
    world.account.arm("offer_taken", FOREVER)
    world.fails("up", "offerQuery")
    assert 2 <= tries(world) <= 12
    assert world.account.ledger()["total"] == 0
    return f"fails after {tries(world)} tries"


@cell("F01", "start_refused", "up", leaves="running", part="whole")
def what_cannot_start_is_cancelled(world: World) -> str:
    world.account.arm("start_refused")
    world.succeeds("up")
    assert tries(world) == 2
    assert len(world.account.ledger()["contracts"]) == 1
    return "nothing is made; the next candidate is rented"


@cell("F01", "start_refused, with a contract", "up", leaves="running")
def what_a_refusal_leaves_is_destroyed(world: World) -> str:
    world.account.arm("start_refused", cancel_ignored="true")
    done = world.succeeds("up")
    (left, serves) = world.account.ledger()["contracts"]
    assert_says(done, f"made contract {left['id']} all the same", "destroyed")
    assert set(left["amounts"]) <= {"disk"}
    assert (left["alive"], serves["alive"]) == (False, True)
    return "destroyed and told; the next candidate is rented"


@cell("F01", "start_refused, with a contract, by everybody", "up", part="whole")
def no_refusal_leaves_anything(world: World) -> str:
    world.account.arm("start_refused", FOREVER, cancel_ignored="true")
    world.fails("up", "nothing is billed any more")
    assert 2 <= tries(world) <= 12
    assert not any(row["alive"] for row in world.account.ledger()["contracts"])
    return f"fails after {tries(world)} tries, all destroyed"


@cell("F01", "start_refused, with a contract, lost_reply", "up", leaves="running", part="whole")
def a_refusal_that_nobody_heard_is_found_by_its_label(world: World) -> str:
    world.account.arm("start_refused", cancel_ignored="true")
    world.account.arm("lost_reply")
    world.succeeds("up", "given back")
    (left, serves) = world.account.ledger()["contracts"]
    assert (left["alive"], serves["alive"]) == (False, True)
    return "found by its label, given back; the next candidate is rented"


# ----------------------------------------------------------------- F02: the reply is lost


@cell("F02", "lost_reply", "up", leaves="running")
def what_was_rented_is_found_by_its_label(world: World) -> str:
    world.account.arm("lost_reply")
    world.succeeds("up")
    assert tries(world) == 1
    return "found by its label, adopted"


@cell("F02", "lost_reply, silent", "up", leaves="running", part="whole")
def silence_is_no_refusal(world: World) -> str:
    world.account.arm("lost_reply", how="timeout", seconds=60)
    world.succeeds("up")
    assert len(world.account.ledger()["contracts"]) == 1
    return "found by its label, adopted"


@cell("F02", "lost_reply, of a destroy", "destroy", needs="running")
def a_destroy_is_read_back(world: World) -> str:
    world.account.arm("lost_reply", on="destroy")
    world.succeeds("destroy")
    return "destroyed"


# ----------------------------------------------------------------- F13: too many calls


@cell("F13", "rate_limited, in four shapes", "up", leaves="running")
def limits_are_waited_for(world: World) -> str:
    limited = world.account.arm
    limited("rate_limited", route="/bundles")
    limited("rate_limited", route="/asks", shape="detail", retry_after=1)
    limited("rate_limited", route=LIST, shape="rate_limit", retry_after=1)
    world.succeeds("up")
    assert len(world.account.rents()) == 1
    return "waits, then rents once"


@cell("F13", "rate_limited, the day's searches", "up")
def a_quota_is_not_tried_again(world: World) -> str:
    world.account.arm("rate_limited", FOREVER, route="/bundles", shape="quota")
    world.fails("up", "quota", "midnight UTC")
    searches = [call for call in world.account.requests() if "/bundles" in call["path"]]
    assert len(searches) == 1
    return "fails at once, names the quota"


@cell("F13", "rate_limited, DELETE too", "destroy", needs="running")
def a_destroy_is_tried_until_it_is_verified(world: World) -> str:
    world.account.arm("rate_limited", 3, method="DELETE", retry_after=1)
    world.succeeds("destroy")
    return "destroyed"


# ----------------------------------------------------------------- F14: the API is ill


@cell("F14", "api_5xx, of each read", "up", leaves="running")
def reads_are_repeated(world: World) -> str:
    world.account.arm("api_5xx", route="/bundles", code=502)
    world.account.arm("api_5xx", route=LIST, code=500)
    world.account.arm("api_5xx", route=ONE, method="GET")
    world.succeeds("up")
    assert len(world.account.rents()) == 1
    return "rents once"


@cell("F14", "api_5xx, of the rent call", "up", leaves="running", part="whole")
def a_rent_is_never_repeated_blindly(world: World) -> str:
    world.account.arm("api_5xx", route="/asks")
    world.succeeds("up")
    assert len(world.account.rents()) == 1
    return "looks for the label first, then rents"


@cell("F14", "api_5xx, of DELETE", "destroy", needs="running")
def a_destroy_outlives_an_ill_api(world: World) -> str:
    world.account.arm("api_5xx", 2, method="DELETE")
    world.succeeds("destroy")
    return "destroyed"


@cell("F14", "api_timeout, of the list", "up", leaves="running", part="whole")
def silence_is_bounded(world: World) -> str:
    world.account.arm("api_timeout", route=LIST, seconds=60)
    world.succeeds("up")
    return "asks again, rents once"


@cell("F14", "api_410, of the list", "up")
def a_withdrawn_list_is_named_before_any_money(world: World) -> str:
    world.account.arm("api_410", FOREVER)
    world.fails("up", LIST, "410")
    assert world.account.ledger()["total"] == 0
    return "fails, names the endpoint"


@cell("F14", "api_410, of the list", "destroy", needs="running", part="whole")
def what_cannot_be_verified_is_not_forgotten(world: World) -> str:
    (before,) = world.account.alive()
    world.account.arm("api_410", FOREVER)
    done = world.fails("destroy", LIST)
    assert str(before["id"]) in done.output
    assert world.stack.instance_ids() == {before["id"]}
    world.account.disarm()
    world.succeeds("destroy")
    return "fails, state kept; the next one succeeds"


@cell("F14", "api_5xx, for good, while the host boots", "up, destroy", part="whole")
def what_is_out_of_sight_is_found_again(world: World) -> str:
    running = world.stack.start("up")
    when(world, running, "the rent call", since=0)
    world.account.arm("api_5xx", FOREVER)
    done = running.wait()
    assert done.status != 0, done.outcome()
    (one,) = world.account.alive()
    assert_says(done, str(one["id"]), "/h")
    world.account.disarm()
    world.succeeds("destroy", f"instance {one['id']}")
    return "fails, names contract and $/h; destroy finds it"


# ----------------------------------------------------------------- F15, F16: it seems to be gone


@cell("F15", "key_unknown_404", "refresh", needs="running", leaves="running")
def an_unknown_key_is_not_gone(world: World) -> str:
    (before,) = world.account.alive()
    world.account.arm("key_unknown_404", FOREVER)
    world.fails("refresh", "key")
    assert world.stack.instance_ids() == {before["id"]}
    return "fails, names the key; state kept"


@cell("F15", "key_unknown_404", "destroy", needs="running")
def an_unknown_key_destroys_nothing_and_forgets_nothing(world: World) -> str:
    (before,) = world.account.alive()
    world.account.arm("key_unknown_404", FOREVER)
    world.fails("destroy", "key")
    assert world.stack.instance_ids() == {before["id"]}
    world.account.disarm()
    world.succeeds("destroy")
    return "fails, state kept; the next one succeeds"


@cell("F16", "instance_null_once", "refresh", needs="running", leaves="running")
def null_is_not_gone(world: World) -> str:
    (before,) = world.account.alive()
    world.account.arm("instance_null_once")
    world.succeeds("refresh")
    assert world.stack.instance_ids() == {before["id"]}
    return "still there"


@cell("F16", "instance_null_once, after a destroy that lied", "destroy", needs="running")
def null_is_not_proof_of_an_end(world: World) -> str:
    world.account.arm("destroy_lies")
    world.account.arm("instance_null_once")
    world.succeeds("destroy")
    return "destroyed"


# ----------------------------------------------------------------- F17: it seems to be destroyed


@cell("F17", "destroy_lies", "destroy", needs="running")
def a_destroy_that_lied_is_repeated(world: World) -> str:
    world.account.arm("destroy_lies")
    world.succeeds("destroy")
    return "destroyed by the second call"


@cell("F17", "destroy_lies, for ever", "destroy", needs="running", part="whole")
def a_contract_that_does_not_go_is_said_loudly(world: World) -> str:
    (before,) = world.account.alive()
    world.account.arm("destroy_lies", FOREVER)
    world.fails("destroy", str(before["id"]), "still", "/h")
    assert world.stack.instance_ids() == {before["id"]}
    world.account.disarm()
    world.succeeds("destroy")
    return "fails with id and $/h, state kept; the next one succeeds"


@cell(
    "F17", "destroy_lies, of a replacing up", "up", needs="running", leaves="running", part="whole"
)
def no_second_machine_while_the_first_is_paid_for(world: World) -> str:
    world.account.arm("destroy_lies")
    world.another_disk()
    world.succeeds("up")
    return "destroyed by the second call, then replaced"


# ----------------------------------------------------------------- F22: no money


@cell("F22", "no_credit", "up")
def another_host_would_not_help(world: World) -> str:
    world.account.arm("no_credit", FOREVER)
    world.fails("up", "credit")
    assert tries(world) == 1
    return "fails at the first refusal"


@cell("F22", "credit for some minutes", "up")
def an_empty_account_rents_nothing(world: World) -> str:
    world.account.set_credit(0.02)
    world.fails("up", "credit", "$0.02")
    assert tries(world) == 0
    return "fails before renting, shows the run-way"


@cell("F22", "credit for some hours", "preview")
def the_run_way_is_shown(world: World) -> str:
    world.account.set_credit(5.0)
    done = world.succeeds("preview", "credit")
    assert re.search(r"\$5\.00", done.output), done.outcome()
    assert re.search(r"\d+ (h|hours)", done.output), done.outcome()
    return "shows credit as hours of run-way"


# ----------------------------------------------------------------- F24, F26: the state


@cell("F24", "key_leak, with a token", "up", leaves="running")
def a_token_reaches_the_host_and_no_other_place(world: World) -> str:
    token = "hf_" + "ThisIsNobodysToken" * 2
    values = {"model": PROFILE, "offerQuery": QUERY, "diskGb": world.disk}
    world.stack.configure_secret("huggingFaceToken", token, **values)
    world.succeeds("up")
    found = world.stack.secrets()
    assert any(token in secret for secret in found)
    assert len(found) >= 3, "API key, SSH key and environment are secrets of the state"
    (environment,) = world.account.home.rglob("serving/environment")
    assert environment.stat().st_mode & 0o777 == 0o600
    assert token in environment.read_text()
    return f"{len(found)} secrets, none in clear"


@cell("F26", "state_of_old_code", "refresh, up, destroy", needs="running")
def a_state_of_the_first_release_works(world: World) -> str:
    # As with the first release, the machine takes the stack's key itself.
    world.configure(sharedApiKey=True)
    world.succeeds("up")
    world.configure()
    (before,), key = world.account.alive(), world.stack.outputs()["api_key"]
    file = world.stack.backend / ".pulumi/stacks/vast-vllm/test.json"
    taken_out = as_the_first_release_wrote_it(file)
    world.succeeds("refresh")
    world.succeeds("up")
    (after,) = world.account.alive()
    assert after["id"] == before["id"], "the machine was replaced"
    assert world.answers()
    assert world.stack.outputs()["api_key"] == key, "the machine's key was replaced"
    as_the_first_release_wrote_it(file)
    world.succeeds("destroy")
    assert json.loads(file.read_text())["checkpoint"]["latest"].get("resources") in (None, [])
    return f"works without {taken_out} newer properties"
