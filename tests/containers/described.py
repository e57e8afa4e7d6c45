"""A gRPC service as its description has it, without generated code; requests and answers are plain objects.

What is zero is left out of answers.
"""

import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

JSON = dict[str, Any]


class Service:
    """A service of a .proto file, by its full name."""

    def __init__(self, folder: Path, file: str, name: str) -> None:
        self._name = name
        with tempfile.NamedTemporaryFile() as made:
            options = [f"--proto_path={folder}", f"--descriptor_set_out={made.name}"]
            assert protoc.main(["protoc", *options, "--include_imports", file]) == 0
            described = descriptor_pb2.FileDescriptorSet.FromString(made.read())
        pool = descriptor_pool.DescriptorPool()
        for each in described.file:
            pool.Add(each)
        self._service = pool.FindServiceByName(name)

    def call(self, channel: Any, method: str, seconds: float, **request: Any) -> JSON:
        """One request. Raises grpc.RpcError."""
        described = self._service.methods_by_name[method]
        asked = message_factory.GetMessageClass(described.input_type)()
        answered = message_factory.GetMessageClass(described.output_type)
        send = channel.unary_unary(
            f"/{self._name}/{method}",
            request_serializer=type(asked).SerializeToString,
            response_deserializer=answered.FromString,
        )
        answer = send(json_format.ParseDict(request, asked), timeout=seconds)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)  # type: ignore[no-any-return]
