"""Dev, staging and prod on one account, with the real CLI."""

from __future__ import annotations

import pytest

from tests.cli.promotion import Story, document
from tests.helpers.checkout import Checkout


@pytest.mark.timeout(1800)
def test_a_release_goes_from_dev_to_prod_and_back(emulator, tmp_path):
    # Ten a second, as `make promotion` has them, would take a tenth of a core of two.
    story = Story(Checkout(tmp_path, emulator, is_forked=True), emulator, asks_every=0.25)
    story.play()
    page = document(story.steps)
    assert page.count("\n| ") == len(story.steps) + 2
