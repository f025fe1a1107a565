"""A client of HTTP/2 that says what no library would let it say: python-h2 without its checks.

streams.py CASE HOST PORT CA     prints what came: "status N", "reset N", "goaway N" or "closed"
"""
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events

case, host, port, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.set_alpn_protocols(["h2"])
stream = context.wrap_socket(socket.create_connection(("127.0.0.1", int(port))), server_hostname=host)
stream.settimeout(30)
assert stream.selected_alpn_protocol() == "h2"
config = h2.config.H2Configuration(
    validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="utf-8",
    validate_inbound_headers=False)
connection = h2.connection.H2Connection(config)
connection.initiate_connection()


def head(method="GET", path="/x", scheme="https", authority=host, more=()):
    pseudo = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
    return [(name, value) for name, value in pseudo if value is not None] + list(more)


def send():
    data = connection.data_to_send()
    if data:
        try:
            stream.sendall(data)
        except (ConnectionError, ssl.SSLError):
            pass  # What has come may still be read.


def events():
    while True:
        try:
            received = stream.recv(65536)
        except (ConnectionResetError, ssl.SSLError):
            received = b""
        if not received:
            yield None
            return
        yield from connection.receive_data(received)
        send()


def told():
    for event in events():
        if event is None:
            return "closed"
        if isinstance(event, h2.events.ResponseReceived):
            return "status " + dict(event.headers)[":status"]
        if isinstance(event, h2.events.StreamReset):
            return f"reset {int(event.error_code)}"
        if isinstance(event, h2.events.ConnectionTerminated):
            return f"goaway {int(event.error_code)}"


one = {
    "good": head(),
    "no_method": head(method=None),
    "no_path": head(path=None),
    "no_scheme": head(scheme=None),
    "two_methods": [(":method", "GET")] + head(),
    "two_paths": head() + [(":path", "/y")],
    "late_pseudo": head(more=[("a", "b"), (":path", "/y")]),
    "unknown_pseudo": head(more=[(":smuggled", "1")]),
    "response_pseudo": head(more=[(":status", "200")]),
    "upper_case": head(more=[("X-Upper", "1")]),
    "connection": head(more=[("connection", "keep-alive")]),
    "upgrade": head(more=[("upgrade", "websocket")]),
    "transfer_encoding": head(method="POST", more=[("transfer-encoding", "chunked")]),
    "te_gzip": head(more=[("te", "gzip")]),
    "line_in_value": head(more=[("x", "a\r\nTransfer-Encoding: chunked")]),
    "line_in_name": head(more=[("x\r\ny", "a")]),
    "colon_in_name": head(more=[("x:y", "a")]),
    "space_in_path": head(path="/x HTTP/1.1\r\nHost: b"),
    "space_in_method": head(method="GET /smuggled HTTP/1.1\r\nX:"),
    "empty_path": head(path=""),
    "bad_path": head(path="x"),
    "other_authority": head(authority="b.apps.test"),
    "user_authority": head(authority="u@" + host),
    "line_authority": head(authority=host + "\r\nX: y"),
    "other_host": head(more=[("host", "b.apps.test")]),
    "two_hosts": head(more=[("host", host), ("host", host)]),
    "connect": head(method="CONNECT", path=None, scheme=None),
    "two_lengths": head(method="POST", more=[("content-length", "1"), ("content-length", "2")]),
}
if case in one:
    connection.send_headers(1, one[case], end_stream=True)
    send()
    print(told())
elif case == "long_body":
    connection.send_headers(1, head(method="POST", path="/echo", more=[("content-length", "1")]))
    connection.send_data(1, b"xx", end_stream=True)
    send()
    print(told())
elif case == "short_body":
    connection.send_headers(1, head(method="POST", path="/echo", more=[("content-length", "9")]))
    connection.send_data(1, b"xx", end_stream=True)
    send()
    print(told())
elif case == "trailers":
    connection.send_headers(1, head(method="POST", path="/back", more=[("te", "trailers"), ("trailer", "x-sum")]))
    connection.send_data(1, b"half")
    connection.send_headers(1, [("x-sum", "1")], end_stream=True)
    send()
    heard, trailers = b"", None
    for event in events():
        assert event is not None and not isinstance(event, h2.events.StreamReset), event
        if isinstance(event, h2.events.DataReceived):
            heard += event.data
        if isinstance(event, h2.events.TrailersReceived):
            trailers = dict(event.headers)
        if isinstance(event, h2.events.StreamEnded):
            break
    print(heard.decode(), trailers)
elif case == "slow_body":
    # A byte now and then, until it is told that it takes too long.
    connection.send_headers(1, head(method="POST", path="/echo"))
    send()
    stream.settimeout(0.1)
    answer = None
    while answer is None:
        connection.send_data(1, b"x")
        send()
        try:
            received = stream.recv(65536)
        except TimeoutError:
            continue
        for event in connection.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                answer = "status " + dict(event.headers)[":status"]
            elif isinstance(event, h2.events.StreamReset):
                answer = answer or f"reset {int(event.error_code)}"
    print(answer)
elif case == "large_head":
    connection.send_headers(1, head(more=[(f"x-{n}", "y" * 4000) for n in range(40)]), end_stream=True)
    send()
    print(told())
elif case == "websocket":
    # RFC 8441. What is echoed is a masked frame, as bytes.
    for event in events():
        if isinstance(event, h2.events.RemoteSettingsChanged):
            assert event.changed_settings[8].new_value == 1, "extended CONNECT is offered"
            break
    connection.send_headers(1, head(method="CONNECT", path="/live", more=[
        (":protocol", "websocket"), ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat")]))
    # "hi", masked with zeros, then a close.
    connection.send_data(1, b"\x81\x82\x00\x00\x00\x00hi")
    send()
    heard = b""
    for event in events():
        assert event is not None, heard
        if isinstance(event, h2.events.ResponseReceived):
            head = dict(event.headers)
            assert head[":status"] == "200" and head["sec-websocket-protocol"] == "chat", head
            assert "sec-websocket-accept" not in head, head
        if isinstance(event, h2.events.DataReceived):
            heard += event.data
            connection.acknowledge_received_data(event.flow_controlled_length, 1)
            send()
            if heard == b"\x81\x02hi":
                connection.send_data(1, b"\x88\x82\x00\x00\x00\x00\x03\xe8")
                send()
        if isinstance(event, h2.events.StreamEnded):
            assert heard == b"\x81\x02hi\x88\x02\x03\xe8", heard
            connection.send_data(1, b"", end_stream=True)
            connection.close_connection()
            send()
            print("talked")
            while stream.recv(65536):
                pass
            break
        assert not isinstance(event, h2.events.StreamReset), event
else:
    sys.exit("no such case")
