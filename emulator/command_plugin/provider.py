"""The resource's life in Pulumi's provider protocol: check, diff, create, update, read, delete.

It does what the official plugin does: every output but `stdout` and `stderr` mirrors an input,
with its secrecy; a preview runs nothing; an update without `update` runs `create` again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import grpc  # type: ignore[import-untyped]  # (its types are a package of their own)
from google.protobuf import (  # type: ignore[import-untyped]  # (the same)
    empty_pb2,
    json_format,
    struct_pb2,
)

from emulator.command_plugin.inputs import differences, problems, with_defaults
from emulator.command_plugin.protocol import (
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
)
from emulator.command_plugin.shell import CommandFailedError, Running, run
from emulator.command_plugin.values import UNKNOWN, Properties, plain

TYPE = "command:local:Command"

MESSAGE_BYTES = 400 * 1024 * 1024
"""Largest message, as the SDK's own servers have it."""

SAID = ("stdout", "stderr")

KINDS = {
    "add": provider_pb2.PropertyDiff.ADD,
    "delete": provider_pb2.PropertyDiff.DELETE,
    "update": provider_pb2.PropertyDiff.UPDATE,
}

Log = Callable[[str, str], None]
"""Shows a line (second) under a resource (first, its URN) while the command runs."""


class CommandProvider(provider_pb2_grpc.ResourceProviderServicer):
    """Serves `command:local:Command` to the engine."""

    def __init__(self, log: Log, running: Running) -> None:
        self._log = log
        self._running = running

    def Handshake(  # noqa: N802  (the protocol's name)
        self, _request: Any, _context: grpc.ServicerContext
    ) -> Any:
        """Agree on how values are written."""
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def GetPluginInfo(  # noqa: N802  (the protocol's name)
        self, _request: Any, _context: grpc.ServicerContext
    ) -> Any:
        """Say which version this stands in for."""
        return plugin_pb2.PluginInfo(version=version("pulumi-command"))

    def CheckConfig(  # noqa: N802  (the protocol's name)
        self, request: Any, _context: grpc.ServicerContext
    ) -> Any:
        """Take the provider's configuration as it is: there is none."""
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(  # noqa: N802  (the protocol's name)
        self, _request: Any, _context: grpc.ServicerContext
    ) -> Any:
        """Nothing in the configuration can change."""
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(  # noqa: N802  (the protocol's name)
        self, _request: Any, _context: grpc.ServicerContext
    ) -> Any:
        """Ask for secrets with their marks, and for previews."""
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  (the same)
        """Fill in defaults; refuse what does not fit."""
        _only_commands(request.urn, context)
        inputs = _read(request.news)
        # A failure that names a property makes the engine print its value, even a secret one.
        failures = [provider_pb2.CheckFailure(reason=reason) for reason in problems(inputs)]
        return provider_pb2.CheckResponse(inputs=_written(with_defaults(inputs)), failures=failures)

    def Diff(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802  (the same)
        """Compare inputs; whether a changed trigger replaces is the SDK's `replace_on_changes`."""
        news = _read(request.news)
        olds = _read(request.olds)
        for ignored in request.ignoreChanges:
            news[ignored] = olds.get(ignored)
        found = differences(olds, news)
        some = provider_pb2.DiffResponse.DIFF_SOME
        none = provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=some if found else none,
            diffs=sorted({path.partition(".")[0].partition("[")[0] for path in found}),
            detailedDiff={
                path: provider_pb2.PropertyDiff(kind=KINDS[kind], inputDiff=True)
                for path, kind in found.items()
            },
            hasDetailedDiff=True,
        )

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  (the same)
        """Run `create`."""
        inputs = _read(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=_written(_foreseen(inputs)))
        command = plain(inputs.get("create"))
        said = self._ran(command, inputs, {}, request.urn, context)
        name = request.urn.rpartition("::")[2]
        return provider_pb2.CreateResponse(
            id=f"{name}{secrets.token_hex(4)}", properties=_written({**inputs, **said})
        )

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  (the same)
        """Run `update`, or `create` where there is none."""
        inputs = _read(request.news)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=_written(_foreseen(inputs)))
        command = plain(inputs.get("update")) or plain(inputs.get("create"))
        said = self._ran(command, inputs, _previous(request.olds), request.urn, context)
        return provider_pb2.UpdateResponse(properties=_written({**inputs, **said}))

    def Read(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802  (the same)
        """There is nothing outside the state."""
        return provider_pb2.ReadResponse(
            id=request.id, properties=request.properties, inputs=request.inputs
        )

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  (the same)
        """Run `delete`, if there is one."""
        state = _read(request.properties)
        command = plain(state.get("delete"))
        self._ran(command, state, _previous(request.properties), request.urn, context)
        return empty_pb2.Empty()

    def Cancel(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802  (the same)
        """End what runs."""
        self._running.end()
        return empty_pb2.Empty()

    def _ran(
        self,
        command: str | None,
        inputs: Properties,
        previous: dict[str, str],
        urn: str,
        context: grpc.ServicerContext,
    ) -> dict[str, str]:
        if not command:
            return {stream: previous.get(stream, "") for stream in SAID}
        try:
            said = run(
                command, plain(inputs), previous, lambda line: self._log(urn, line), self._running
            )
        except CommandFailedError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return {"stdout": said.stdout, "stderr": said.stderr}


def serve(engine_address: str | None) -> tuple[grpc.Server, int, Running]:
    """Start a server on loopback; return it, its port and the commands that it runs."""
    server = grpc.server(
        ThreadPoolExecutor(max_workers=16),
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
        ],
    )
    running = Running()
    provider = CommandProvider(_engine_log(engine_address) if engine_address else _silent, running)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port, running


def _only_commands(urn: str, context: grpc.ServicerContext) -> None:
    kind = urn.split("::")[2].rpartition("$")[2]
    if kind != TYPE:
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            f"the emulator's stand-in for pulumi-command has {TYPE} and no {kind}: "
            "install the official plugin",
        )


def _foreseen(inputs: Properties) -> Properties:
    return {**inputs, **dict.fromkeys(SAID, UNKNOWN)}


def _previous(state: struct_pb2.Struct) -> dict[str, str]:
    known = _read(state)
    return {stream: str(plain(known.get(stream)) or "") for stream in SAID}


def _read(properties: struct_pb2.Struct) -> Properties:
    return dict(json_format.MessageToDict(properties))


def _written(properties: Properties) -> struct_pb2.Struct:
    message = struct_pb2.Struct()
    json_format.ParseDict(properties, message)
    return message


def _engine_log(address: str) -> Log:
    engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(address))

    def log(urn: str, line: str) -> None:
        """A status line: shown while the command runs, and not kept."""
        engine.Log(
            engine_pb2.LogRequest(severity=engine_pb2.INFO, message=line, urn=urn, ephemeral=True)
        )

    return log


def _silent(_urn: str, _line: str) -> None:
    """Nobody asked to hear it."""
