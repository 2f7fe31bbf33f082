"""The paths by which states of older releases name the providers: each leads to its class."""

from __future__ import annotations

import base64
import json
import pickle

import pytest

from components.resources.api_key import ApiKeyProvider
from components.resources.instance import InstanceProvider
from components.resources.offer import OfferProvider
from components.resources.provider import Provider
from components.resources.server import ServerProvider
from components.resources.ssh_key import SshKeyProvider
from components.resources.stack_finalizer import StackFinalizerProvider
from tests.helpers.places import ROOT

STATE = json.loads((ROOT / "tests" / "stack/states/2026-11-24.json").read_text())

PROVIDERS = {
    resource["type"].rpartition("/")[2]: resource["inputs"]["__provider"]
    for resource in STATE["deployment"]["resources"]
    if "__provider" in (resource.get("inputs") or {})
}
"""By type of resource, as a stack of 2026-11-24 exported them."""

MOVED = {
    "vast:Instance": InstanceProvider,
    "vast:Lease": StackFinalizerProvider,
    "vast:Offer": OfferProvider,
    "vast:SshKey": SshKeyProvider,
    "vllm:ApiKey": ApiKeyProvider,
    "vllm:Server": ServerProvider,
}


@pytest.mark.parametrize("kind", sorted(PROVIDERS))
def test_the_path_of_an_older_release_leads_to_the_provider_of_this_one(kind):
    found = pickle.loads(base64.b64decode(PROVIDERS[kind]))  # noqa: S301  (our own file)
    assert isinstance(found, Provider)
    assert type(found) is MOVED.get(kind, type(found))
