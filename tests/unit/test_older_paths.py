"""The paths by which states name the providers: the previous release has them, and so has this."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Iterator

import pytest
from pulumi.dynamic.dynamic import serialize_provider

from components.resources.api_key import ApiKeyProvider
from components.resources.authority import AuthorityProvider
from components.resources.hub_revisions import HubRevisionsProvider
from components.resources.instance import InstanceProvider
from components.resources.machine_certificate import MachineCertificateProvider
from components.resources.offer import OfferProvider
from components.resources.orphan_cleanup import OrphanCleanupProvider
from components.resources.promotion import PromotionProvider
from components.resources.provider import PREVIOUS_PATHS, Provider
from components.resources.router import RouterProvider
from components.resources.scale import ScaleProvider
from components.resources.server import ServerProvider
from components.resources.ssh_key import SshKeyProvider
from components.resources.stack_finalizer import StackFinalizerProvider
from tests.helpers.places import ROOT

PROVIDERS = {
    (day.stem, resource["type"].rpartition("/")[2]): resource["inputs"]["__provider"]
    for day in sorted((ROOT / "tests/states").iterdir())
    for resource in json.loads(day.read_text())["deployment"]["resources"]
    if "__provider" in (resource.get("inputs") or {})
}
"""By day of an exported state and type of resource: how the state names the provider."""

KINDS = {
    "tls:Authority": AuthorityProvider,
    "vast:Holdings": OrphanCleanupProvider,
    "vast:Instance": InstanceProvider,
    "vast:Lease": StackFinalizerProvider,
    "vast:Offer": OfferProvider,
    "vast:SshKey": SshKeyProvider,
    "vllm:ApiKey": ApiKeyProvider,
    "vllm:HubRevisions": HubRevisionsProvider,
    "vllm:Server": ServerProvider,
}

PREVIOUS: dict[type[Provider], tuple[str, str]] = {
    ApiKeyProvider: ("components.vllm.api_key", "ApiKeyProvider"),
    AuthorityProvider: ("components.resources.authority", "AuthorityProvider"),
    HubRevisionsProvider: ("components.resources.hub_revisions", "HubRevisionsProvider"),
    InstanceProvider: ("components.vast.instance", "InstanceProvider"),
    MachineCertificateProvider: (
        "components.resources.machine_certificate",
        "MachineCertificateProvider",
    ),
    OfferProvider: ("components.vast.offer", "OfferProvider"),
    OrphanCleanupProvider: ("components.vast.holdings", "HoldingsProvider"),
    PromotionProvider: ("components.promotion", "PromotionProvider"),
    RouterProvider: ("components.resources.router", "RouterProvider"),
    ScaleProvider: ("components.resources.scale", "ScaleProvider"),
    ServerProvider: ("components.vllm.server", "ServerProvider"),
    SshKeyProvider: ("components.vast.ssh_key", "SshKeyProvider"),
    StackFinalizerProvider: ("components.vast.lease", "LeaseProvider"),
}
"""Module and name of every provider, as the release before the move of the providers has them."""


def written(provider: type[Provider]) -> bytes:
    """What a state holds of a provider."""
    return base64.b64decode(serialize_provider(provider()))


def providers(kind: type[Provider] = Provider) -> Iterator[type[Provider]]:
    """All providers of the project that are loaded."""
    for one in kind.__subclasses__():
        if one.__module__.startswith("components."):
            yield one
        yield from providers(one)


@pytest.mark.parametrize("written_there", PROVIDERS, ids="-".join)
def test_the_path_of_an_older_release_leads_to_the_provider_of_this_one(written_there):
    found = pickle.loads(base64.b64decode(PROVIDERS[written_there]))  # noqa: S301  (our own file)
    assert type(found) is KINDS[written_there[1]]


@pytest.mark.parametrize("provider", PREVIOUS, ids=lambda provider: provider.__name__)
def test_a_state_names_each_provider_where_the_previous_release_has_it(provider):
    module, name = PREVIOUS[provider]
    content = written(provider)
    # Each text is followed by the byte that keeps it for later use.
    assert module.encode() + b"\x94" in content
    assert name.encode() + b"\x94" in content
    assert content.count(b"components.") == 1
    assert type(pickle.loads(content)) is provider  # noqa: S301  (written above)


@pytest.mark.parametrize("written_there", PROVIDERS, ids="-".join)
def test_a_state_names_a_provider_as_the_exported_one_does(written_there):
    found = pickle.loads(base64.b64decode(PROVIDERS[written_there]))  # noqa: S301  (our own file)
    assert written(type(found)) == base64.b64decode(PROVIDERS[written_there])


def test_every_provider_and_every_path_that_has_moved_is_held_to_that():
    assert set(providers()) == set(PREVIOUS)
    here = {f"{module}.{name}" for module, name in PREVIOUS.values()}
    assert set(PREVIOUS_PATHS.values()) <= here
    assert len(here - set(PREVIOUS_PATHS.values())) == 5
