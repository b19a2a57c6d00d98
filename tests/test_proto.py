"""The proto files are in good style, the generated code is theirs, and each call that they promise is served."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from taskd.rpc.tasks import TaskCalls
from taskd.rpc.tokens import TokenCalls
from taskd.rpc.work import WorkCalls
from taskd.v1 import status_pb2, taskd_pb2, taskd_pb2_grpc

ROOT = Path(__file__).parent.parent
BUF = Path(sys.executable).parent / "buf"
COMMITTED = {file.name: file for file in (taskd_pb2.DESCRIPTOR, status_pb2.DESCRIPTOR)}
METHODS = [method for service in taskd_pb2.DESCRIPTOR.services_by_name.values() for method in service.methods]
CALLS = {"TaskService": TaskCalls, "WorkerService": WorkCalls, "TokenService": TokenCalls}


def buf(*words: str) -> bytes:
    """Run buf, which must find nothing wrong."""
    done = subprocess.run([BUF, *words], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout


def plain(file: FileDescriptorProto) -> FileDescriptorProto:
    """Return a file's description without what compilers write down or not, as they like."""
    again = FileDescriptorProto.FromString(file.SerializeToString())
    again.ClearField("source_code_info")
    # buf adds fields of its own to a file's description.
    again.DiscardUnknownFields()
    messages = list(again.message_type)
    while messages:
        message = messages.pop()
        messages += message.nested_type
        for field in (*message.field, *message.extension):
            field.ClearField("json_name")
    return again


def own(file: FileDescriptor) -> FileDescriptorProto:
    found = FileDescriptorProto()
    file.CopyToProto(found)
    return found


def test_the_style_is_bufs() -> None:
    assert buf("lint", "proto") == b""
    assert "STANDARD" in (ROOT / "proto" / "buf.yaml").read_text()


def test_the_form_is_bufs() -> None:
    assert buf("format", "--diff", "proto") == b""


def test_the_generated_code_is_of_these_files() -> None:
    image = FileDescriptorSet.FromString(buf("build", "proto", "-o", "-#format=binpb"))
    built = {file.name: file for file in image.file}
    assert {str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto")} == set(COMMITTED)
    for name, file in COMMITTED.items():
        assert plain(own(file)) == plain(built[name]), f"{name}: run `make proto`"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_each_method_has_a_handler_and_a_stub(method: MethodDescriptor) -> None:
    service = method.containing_service.name
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
    assert inspect.iscoroutinefunction(getattr(CALLS[service], snake))
    assert hasattr(getattr(taskd_pb2_grpc, f"{service}Servicer"), method.name)
    source = Path(taskd_pb2_grpc.__file__).read_text()
    assert f"'/{method.containing_service.full_name}/{method.name}'" in source
    typed = Path(taskd_pb2_grpc.__file__).with_suffix(".pyi").read_text()
    assert f"def {method.name}(" in typed


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_each_method_has_messages_of_its_own(method: MethodDescriptor) -> None:
    assert (method.input_type.name, method.output_type.name) == (f"{method.name}Request", f"{method.name}Response")


def test_each_method_is_documented() -> None:
    page = (ROOT / "docs" / "grpc.md").read_text("utf-8")
    assert [method.name for method in METHODS if f"`{method.name}`" not in page] == []
