"""What all dynamic providers share, in a process of its own."""

from __future__ import annotations

import base64
import os
import subprocess
import sys

import dill  # type: ignore[import-untyped]
import grpc  # type: ignore[import-untyped]
import pytest
from google.protobuf import empty_pb2, struct_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from components.core.commands import STACK_ON_EMULATOR
from tests.helpers.interruptible import WaitingProvider
from tests.helpers.places import ROOT

WAITS_FOR_EVER = """
import threading
from components.resources import provider
provider.end_with_pulumi()
provider.end_with_pulumi()
print("at work", threading.active_count(), flush=True)
threading.Event().wait()
"""


@pytest.fixture
def at_work():
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS_FOR_EVER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.kill()


def test_a_provider_process_ends_when_nobody_reads_it_any_more(at_work):
    assert at_work.stdout.readline() == "at work 2\n"
    with pytest.raises(subprocess.TimeoutExpired):
        at_work.wait(0.2)
    at_work.stdout.close()
    assert at_work.wait(10) == 1


def test_a_test_is_not_taken_for_pulumis_process():
    code = "from components.resources.provider import is_pulumis_process as it; print(it())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.fixture
def pulumis():
    """Pulumi's own provider process, with a stub of its protocol."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pulumi.dynamic"],
        cwd=ROOT,
        env={**os.environ, STACK_ON_EMULATOR: "dev"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    with process, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield process, provider_pb2_grpc.ResourceProviderStub(channel)
        process.kill()


def test_a_ctrl_c_ends_a_wait_with_a_sentence_and_no_traceback(pulumis):
    process, stub = pulumis
    blob = base64.b64encode(dill.dumps(WaitingProvider(), recurse=True)).decode()
    properties = struct_pb2.Struct()
    properties.update({"__provider": blob})
    stub.Configure(provider_pb2.ConfigureRequest())
    creating = stub.Create.future(provider_pb2.CreateRequest(properties=properties))
    assert process.stdout.readline() == "test: waits\n"
    stub.Cancel(empty_pb2.Empty())
    refused = creating.exception(timeout=10)
    assert refused.details() == "the wait was ended by Ctrl-C; run `make up STACK=dev` again"
