"""What all dynamic providers here share: a bare reference in the state, and errors for people.

A provider class has no attributes and stands in an importable module, so that the state holds
`module.Class` and every operation runs the code on disk. Its dotted path is a contract with every
state file ever written, and with the previous release: see `PREVIOUS_PATHS`.

A provider imports the code of an operation where that operation is called. The program that
declares the resources loads these modules as well and needs none of it, and a preview needs little.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from types import FunctionType, SimpleNamespace
from typing import Any

from pulumi import dynamic

from components.core import interruption
from components.core.commands import as_typed_here
from components.core.display import shown_lines
from components.core.errors import StackError
from components.core.property_bag import Properties
from components.core.terminal import keep_to_terminal

PREVIOUS_PATHS = {
    "components.resources.api_key.ApiKeyProvider": "components.vllm.api_key.ApiKeyProvider",
    "components.resources.instance.InstanceProvider": "components.vast.instance.InstanceProvider",
    "components.resources.offer.OfferProvider": "components.vast.offer.OfferProvider",
    "components.resources.orphan_cleanup.OrphanCleanupProvider": (
        "components.vast.holdings.HoldingsProvider"
    ),
    "components.resources.promotion.PromotionProvider": "components.promotion.PromotionProvider",
    "components.resources.server.ServerProvider": "components.vllm.server.ServerProvider",
    "components.resources.ssh_key.SshKeyProvider": "components.vast.ssh_key.SshKeyProvider",
    "components.resources.stack_finalizer.StackFinalizerProvider": (
        "components.vast.lease.LeaseProvider"
    ),
}
"""Where the previous release has a provider that has moved, by its path in this one.

A state names the provider by its previous path for one more release. So that release can still
refresh and destroy a stack from this release. It would otherwise find no module, and the machine
would stay billed. Each previous path leads here by a module of its own, so this release reads it as
well. The next release deletes this table, and keeps those modules.
"""


class Provider(dynamic.ResourceProvider):
    """Base of the dynamic providers."""

    serialize_as_secret_always = False

    def __init_subclass__(cls) -> None:
        """Name a provider in the state by the path that the previous release has."""
        super().__init_subclass__()
        path = PREVIOUS_PATHS.get(f"{cls.__module__}.{cls.__qualname__}")
        if path is not None:
            cls.__module__, _, cls.__qualname__ = path.rpartition(".")
            cls.__name__ = cls.__qualname__

    def configure(self, _req: dynamic.ConfigureRequest) -> None:
        """Called before anything else: show errors as sentences, and end together with `pulumi`."""
        if is_pulumis_process():
            tell_errors_plainly()
            hear_cancel()
            keep_to_terminal()
            end_with_pulumi()


def is_pulumis_process() -> bool:
    """Whether this is the process that Pulumi starts for dynamic providers."""
    main = sys.modules.get("__main__")
    return getattr(getattr(main, "__spec__", None), "name", "") == "pulumi.dynamic.__main__"


def tell_errors_plainly() -> None:
    """Make Pulumi's provider process report a `StackError` as its sentence, without a traceback.

    `pulumi.dynamic.__main__` sends `traceback.format_exc()` to the engine, whatever was raised.
    Its name `traceback` is replaced, in that module alone; other errors keep their traceback. If
    a later SDK does it another way, the sentence comes with a traceback again and is still there.
    """
    vars(sys.modules["__main__"])["traceback"] = SimpleNamespace(format_exc=_format_current_error)


def hear_cancel() -> bool:
    """Make Pulumi's provider process hear that somebody has pressed Ctrl-C; whether that works.

    `pulumi.dynamic.__main__` answers `Cancel` and does nothing. Its server holds that very function
    already, so its code is replaced, in that module alone. If a later SDK works differently,
    nothing is replaced, and every wait runs to its end.
    """
    servicer = vars(sys.modules["__main__"]).get("DynamicResourceProviderServicer")
    cancel = vars(servicer).get("Cancel") if servicer is not None else None
    if not isinstance(cancel, FunctionType):
        return False
    own, theirs = _cancelled.__code__, cancel.__code__
    if theirs.co_argcount != own.co_argcount or theirs.co_freevars:
        return False
    cancel.__code__ = own
    return True


@functools.cache
def end_with_pulumi() -> None:
    """End this process, whatever it does, as soon as nobody reads its output any more.

    A killed `pulumi` leaves its provider process running, and no state records what that process
    does. It would rent beside the next `pulumi`, and never end. Contracts so far carry the label,
    and are found by it.
    """
    # Threads in the middle of a call would hold up any other end.
    interruption.when_unread(sys.stdout.fileno(), lambda: os._exit(1))


def refused(news: Properties, error: StackError) -> dynamic.CheckResult:
    """Refuse inputs in `check` with one sentence.

    The failure names no property: Pulumi would print that property's value, secret or not.
    """
    return dynamic.CheckResult(news, [dynamic.CheckFailure("", as_typed_here(str(error)))])


def _cancelled(_servicer: Any, _request: Any, _context: Any) -> Any:
    """Stand in for `Cancel`: it runs with the names of that module, and so imports its own."""
    from google.protobuf import empty_pb2  # type: ignore[import-untyped]  # noqa: PLC0415

    from components.core import interruption  # noqa: PLC0415

    interruption.ask()
    return empty_pb2.Empty()


def _format_current_error() -> str:
    error = sys.exc_info()[1]
    if isinstance(error, StackError):
        return as_typed_here(str(error))
    return shown_lines(traceback.format_exc())
