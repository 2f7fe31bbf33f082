from __future__ import annotations

from components.vast.api.models import Instance
from components.vast.errors import ApiUnreachable
from components.vast.quarantine import quarantine, quarantine_label, quarantine_reason
from tests.helpers.fake_instances import FakeInstances
from tests.helpers.offers import instance

LABEL = "p/s/endpoint-instance/0a1b2c"


class Account(FakeInstances):
    """One contract, and what is done to its label."""

    def __init__(self, label: str = LABEL, error: Exception | None = None) -> None:
        super().__init__(Instance.from_json(instance(label=label)))
        self.error = error

    def set_label(self, instance_id: int, label: str) -> None:
        if self.error:
            raise self.error
        super().set_label(instance_id, label)


def test_a_mark_stays_under_the_label_of_stack_and_resource_and_says_why():
    label = quarantine_label(LABEL, "download_slow")
    assert label == "p/s/endpoint-instance/unfit-download_slow-0a1b2c"
    assert quarantine_reason(label) == "download slow"


def test_other_labels_are_no_marks():
    assert [quarantine_reason(label) for label in ("", "mine", LABEL, "unfit-x-1/p/s/r/n")] == [
        ""
    ] * 4


def test_a_marked_contract_is_named_with_its_price_and_its_end():
    account = Account()
    told = quarantine(account, 9001, "download_slow")
    assert account.did == [("label", quarantine_label(LABEL, "download_slow"))]
    assert "instance 9001 is marked unfit and costs $6.00/h until the next `pulumi up`" in told


def test_a_mark_is_set_once():
    account = Account(quarantine_label(LABEL, "download_slow"))
    quarantine(account, 9001, "load_late")
    assert account.did == []


def test_a_contract_that_is_gone_is_said_to_be():
    assert quarantine(FakeInstances(), 9001, "download_slow") == "instance 9001 is gone already"


def test_a_mark_that_cannot_be_set_hides_no_cause_and_names_the_ways_out():
    told = quarantine(Account(error=ApiUnreachable("Vast does not answer")), 9001, "download_slow")
    assert "could not be marked unfit (Vast does not answer)" in told
    assert "`pulumi destroy` ends it" in told
