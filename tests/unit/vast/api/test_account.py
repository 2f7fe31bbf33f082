"""The account that a key belongs to, asked once by all that rent with it."""

from __future__ import annotations

import pytest

from components.vast.api.account import UNKNOWN, KnownAccount, account_of, hold_to
from components.vast.api.locked_file import LockedJsonFile
from components.vast.errors import ApiFailed, KeyRefused, NoSharedFolder, WrongAccount


class Asked:
    """A market that counts how often it is asked."""

    def __init__(self, folder, *answers: int | Exception) -> None:
        self.folder = folder
        self.answers = list(answers)
        self.asked = 0

    def account_id(self) -> int:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def shared(self, name: str) -> LockedJsonFile:
        return LockedJsonFile(self.folder / name)


def remembered_account(api: Asked) -> int:
    return account_of(KnownAccount(api))


def test_it_is_asked_once_for_all(tmp_path):
    api = Asked(tmp_path, 4711)
    assert [remembered_account(api) for _ in range(16)] == [4711] * 16
    assert api.asked == 1


def test_one_that_is_not_given_is_asked_for_again(tmp_path):
    api = Asked(tmp_path, KeyRefused("may not see it"), 0, 4711)
    assert [remembered_account(api) for _ in range(4)] == [UNKNOWN, UNKNOWN, 4711, 4711]


def test_a_look_at_a_machine_asks_the_market_itself(tmp_path):
    api = Asked(tmp_path, 4711, 4712)
    assert (remembered_account(api), account_of(api)) == (4711, 4712)


@pytest.mark.parametrize("content", ["[]", '{"id": "x"}', '{"id": 0}', "no JSON"])
def test_what_lies_in_the_file_is_no_account_unless_it_is_a_number(tmp_path, content):
    (tmp_path / "account.json").write_text(content)
    assert remembered_account(Asked(tmp_path, 4711)) == 4711


def test_a_folder_that_cannot_be_used_stops_nothing(tmp_path):
    class Without(Asked):
        def shared(self, name: str) -> LockedJsonFile:
            raise NoSharedFolder(name)

    assert remembered_account(Without(tmp_path, 4711)) == UNKNOWN


def test_a_machine_of_another_account_is_held_back_by_what_is_known(tmp_path):
    api = Asked(tmp_path, 4711)
    for _ in range(2):
        with pytest.raises(WrongAccount, match="account 4711, and it was rented on account 4712"):
            hold_to(KnownAccount(api), 4712, "it")
    hold_to(KnownAccount(api), 4711, "it")
    assert api.asked == 1


def test_what_vast_does_not_say_is_still_an_error(tmp_path):
    with pytest.raises(ApiFailed):
        hold_to(KnownAccount(Asked(tmp_path, ApiFailed("not now"))), 4711, "it")
