"""What a foreign client of the control service needs: it knows a socket and what reflection tells, and
nothing else."""

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

PATIENCE = 30


class Service:
    """One service as reflection describes it: each of its methods as a call."""

    def __init__(self, channel, pool, name):
        for method in pool.FindServiceByName(name).methods:
            answer = message_factory.GetMessageClass(method.output_type)
            kind = channel.unary_stream if method.server_streaming else channel.unary_unary
            call = kind(
                f"/{name}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            setattr(self, method.name, self.caller(call, method.input_type))

    @staticmethod
    def caller(call, input_type):
        question = message_factory.GetMessageClass(input_type)
        return lambda **fields: call(question(**fields), timeout=PATIENCE)


def refusal(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    raise AssertionError("this should have been refused")


def services(socket, wanted):
    """The services of these names, which reflection must know."""
    # What h2 takes as an authority; a path is none.
    options = [("grpc.default_authority", "localhost")]
    channel = grpc.insecure_channel(f"unix:{socket}", options=options)
    grpc.channel_ready_future(channel).result(timeout=PATIENCE)
    database = ProtoReflectionDescriptorDatabase(channel)
    names = set(database.get_services())
    assert set(wanted) <= names, names
    pool = descriptor_pool.DescriptorPool(database)
    return [Service(channel, pool, name) for name in wanted]
