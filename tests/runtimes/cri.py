"""The Container Runtime Interface as a kubelet speaks it: gRPC over a Unix socket.

Requests and answers are plain objects; what they may hold is read from Kubernetes' own api.proto
(service runtime.v1.RuntimeService), so that no code is generated.
"""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

SERVICE = "runtime.v1.RuntimeService"
SECONDS = 240.0
"""What a kubelet waits for RunPodSandbox: twice its runtimeRequestTimeout."""

JSON = dict[str, Any]


class CRIError(Exception):
    """The runtime refused; its own words."""


@cache
def service(folder: Path) -> Any:
    """The service that the api.proto in a folder describes."""
    with tempfile.NamedTemporaryFile() as file:
        options = [f"--proto_path={folder}", f"--descriptor_set_out={file.name}"]
        assert protoc.main(["protoc", *options, "--include_imports", "api.proto"]) == 0
        described = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    pool = descriptor_pool.DescriptorPool()
    for each in described.file:
        pool.Add(each)
    return pool.FindServiceByName(SERVICE)


class CRI:
    """A connection to a runtime."""

    def __init__(self, socket: str, protocol: Path) -> None:
        self._service = service(protocol)
        # Retries of gRPC's own would hide for how long the runtime is away.
        self._channel = grpc.insecure_channel(f"unix://{socket}")

    def call(self, method: str, seconds: float = SECONDS, **request: Any) -> JSON:
        """One request. Raises `CRIError`."""
        described = self._service.methods_by_name[method]
        asked = message_factory.GetMessageClass(described.input_type)()
        answered = message_factory.GetMessageClass(described.output_type)
        send = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=type(asked).SerializeToString,
            response_deserializer=answered.FromString,
        )
        try:
            answer = send(json_format.ParseDict(request, asked), timeout=seconds)
        except grpc.RpcError as error:
            raise CRIError(f"{method}: {error.code().name}: {error.details()}") from None
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Hang up."""
        self._channel.close()
