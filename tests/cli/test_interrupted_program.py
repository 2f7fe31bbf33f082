"""The stack's program under a language host that interrupts it when an update has failed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf import empty_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)

from components.core.interruption import MESSAGE_SHOWN
from tests.helpers.places import ROOT
from tests.helpers.stack_world import PATH, PROJECT
from tests.unit.test_settings import values

EXEC = ROOT / ".tools/bin/pulumi-language-python-exec"


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """Makes the stack and the component, and never answers for what they are made of."""

    def __init__(self) -> None:
        self.waits = threading.Event()
        self.over = threading.Event()

    def SupportsFeature(self, _request: Any, _context: Any) -> Any:  # noqa: N802  (the protocol's)
        return resource_pb2.SupportsFeatureResponse(hasSupport=False)

    def RegisterResource(self, request: Any, _context: Any) -> Any:  # noqa: N802  (the protocol's)
        if request.custom:
            self.waits.set()
            self.over.wait()
        return resource_pb2.RegisterResourceResponse(urn=f"urn:pulumi:s::p::{request.type}::x")


class Engine(engine_pb2_grpc.EngineServicer):
    """Takes logs, and knows the root of the stack."""

    def Log(self, _request: Any, _context: Any) -> Any:  # noqa: N802  (the protocol's)
        return empty_pb2.Empty()

    def SetRootResource(self, _request: Any, _context: Any) -> Any:  # noqa: N802  (the protocol's)
        return engine_pb2.SetRootResourceResponse()


def test_a_program_that_is_interrupted_leaves_without_a_traceback(tmp_path):
    server, monitor = grpc.server(ThreadPoolExecutor(32)), Monitor()
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, server)
    engine_pb2_grpc.add_EngineServicer_to_server(Engine(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    given = {"--monitor": address, "--engine": address, "--project": PROJECT, "--stack": "s"}
    options = [word for option in given.items() for word in option]
    process = subprocess.Popen(
        [sys.executable, "-u", EXEC, *options, "--parallel", "4", "--dry_run", "false", "."],
        cwd=ROOT,
        env={
            "PATH": PATH,
            "HOME": str(tmp_path),
            "PULUMI_CONFIG": json.dumps({f"{PROJECT}:{k}": v for k, v in values().items()}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert monitor.waits.wait(60)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
    finally:
        monitor.over.set()
        process.kill()
        server.stop(grace=None)
    assert process.returncode == MESSAGE_SHOWN, said
    assert "Traceback" not in said
