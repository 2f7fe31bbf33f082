from __future__ import annotations

import subprocess
import sys

from tests.helpers.places import ROOT

LOOK = """
import sys
import components.vast.api.client, components.vast.market.query
assert "aiohttp" not in sys.modules
import aiohttp
"""


def test_the_official_client_is_loaded_without_its_framework_and_leaves_aiohttp_to_others():
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
