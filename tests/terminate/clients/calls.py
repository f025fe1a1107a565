"""A gRPC server and its client, of every kind of call.

calls.py serve CERTIFICATE KEY     prints its port
calls.py call HOST PORT CA
"""
import sys
import threading
from concurrent import futures

import grpc


def read(path):
    with open(path, "rb") as file:
        return file.read()


def unary(request, context):
    context.set_trailing_metadata((("x-trailer", "end"),))
    assert "mse-proxy" in dict(context.invocation_metadata())["via"]
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    return request


def many(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def both(requests, context):
    for request in requests:
        yield request


def serve(certificate, key):
    class Calls(grpc.GenericRpcHandler):
        def service(self, details):
            return {
                "/test.Calls/Unary": grpc.unary_unary_rpc_method_handler(unary),
                "/test.Calls/Many": grpc.unary_stream_rpc_method_handler(many),
                "/test.Calls/Both": grpc.stream_stream_rpc_method_handler(both),
            }.get(details.method)

    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Calls(),))
    credentials = grpc.ssl_server_credentials([(read(key), read(certificate))])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def call(host, port, ca):
    credentials = grpc.ssl_channel_credentials(read(ca))
    options = [("grpc.ssl_target_name_override", host), ("grpc.default_authority", host)]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        ask = channel.unary_unary("/test.Calls/Unary")
        answer, info = ask.with_call(b"x" * 1_000_000, timeout=30)
        assert answer == b"x" * 1_000_000
        assert dict(info.trailing_metadata())["x-trailer"] == "end"
        try:
            ask(b"fail", timeout=30)
            sys.exit("it did not fail")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
            assert error.details() == "as asked"
        numbers = list(channel.unary_stream("/test.Calls/Many")(b"1000", timeout=30))
        assert numbers == [str(number).encode() for number in range(1000)]

        heard = threading.Semaphore(1)

        def slowly():
            # The next question is asked when the one before was answered: no answer can wait for the rest.
            for number in range(5):
                assert heard.acquire(timeout=30), "the answer does not wait for the rest"
                yield str(number).encode()

        answers = []
        for answer in channel.stream_stream("/test.Calls/Both")(slowly(), timeout=30):
            answers.append(answer)
            heard.release()
        assert answers == [str(number).encode() for number in range(5)]
    print("called")


{"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
