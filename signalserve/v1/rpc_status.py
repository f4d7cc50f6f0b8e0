"""google.rpc.Status for the stubs: the installed class where there is one, else the same message from here.

A process has one descriptor pool, and one file of a name fits into it. So the definition of an installed
googleapis-common-protos goes first: a later `import google.rpc.status_pb2` must find nothing in its way.
"""

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

_NAME = "google/rpc/status.proto"


def _own_status():
    pool = descriptor_pool.Default()
    try:
        file = pool.FindFileByName(_NAME)  # another library has brought its own
    except KeyError:
        field = descriptor_pb2.FieldDescriptorProto
        message = descriptor_pb2.DescriptorProto(
            name="Status",
            field=[
                field(name="code", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_INT32),
                field(name="message", number=2, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING),
                field(
                    name="details",
                    number=3,
                    label=field.LABEL_REPEATED,
                    type=field.TYPE_MESSAGE,
                    type_name=f".{any_pb2.Any.DESCRIPTOR.full_name}",
                ),
            ],
        )
        file = pool.AddSerializedFile(
            descriptor_pb2.FileDescriptorProto(
                name=_NAME,
                package="google.rpc",
                syntax="proto3",
                dependency=[any_pb2.DESCRIPTOR.name],
                message_type=[message],
            ).SerializeToString()
        )
    return message_factory.GetMessageClass(file.message_types_by_name["Status"])


try:
    from google.rpc.status_pb2 import Status
except ImportError:
    Status = _own_status()

__all__ = ["Status"]
