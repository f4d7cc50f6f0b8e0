"""The details of an error that the client reads: ErrorInfo, BadRequest, RetryInfo and RequestInfo of google.rpc.

Their classes are made here, with the fields that are read, in a descriptor pool of their own: the client needs no
package for them, and nothing that a process has loaded under these names is in their way.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, MessageOptions

_PACKAGE = "google.rpc"


def _text(name: str, number: int) -> FieldDescriptorProto:
    return FieldDescriptorProto(
        name=name,
        number=number,
        label=FieldDescriptorProto.LABEL_OPTIONAL,
        type=FieldDescriptorProto.TYPE_STRING,
    )


def _message(name: str, number: int, of: str, *, many: bool = False) -> FieldDescriptorProto:
    label = FieldDescriptorProto.LABEL_REPEATED if many else FieldDescriptorProto.LABEL_OPTIONAL
    return FieldDescriptorProto(
        name=name, number=number, label=label, type=FieldDescriptorProto.TYPE_MESSAGE, type_name=f".{of}"
    )


_MESSAGES = (
    DescriptorProto(
        name="ErrorInfo",
        field=[
            _text("reason", 1),
            _text("domain", 2),
            _message("metadata", 3, f"{_PACKAGE}.ErrorInfo.MetadataEntry", many=True),
        ],
        nested_type=[
            DescriptorProto(
                name="MetadataEntry",
                field=[_text("key", 1), _text("value", 2)],
                options=MessageOptions(map_entry=True),
            )
        ],
    ),
    DescriptorProto(
        name="BadRequest",
        field=[_message("field_violations", 1, f"{_PACKAGE}.BadRequest.FieldViolation", many=True)],
        nested_type=[
            DescriptorProto(name="FieldViolation", field=[_text("field", 1), _text("description", 2)])
        ],
    ),
    DescriptorProto(
        name="RetryInfo", field=[_message("retry_delay", 1, duration_pb2.Duration.DESCRIPTOR.full_name)]
    ),
    DescriptorProto(name="RequestInfo", field=[_text("request_id", 1)]),
)

_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(duration_pb2.DESCRIPTOR.serialized_pb)
_pool.AddSerializedFile(
    descriptor_pb2.FileDescriptorProto(
        name="google/rpc/error_details.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[duration_pb2.DESCRIPTOR.name],
        message_type=_MESSAGES,
    ).SerializeToString()
)


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


ErrorInfo = _class("ErrorInfo")
BadRequest = _class("BadRequest")
RetryInfo = _class("RetryInfo")
RequestInfo = _class("RequestInfo")
