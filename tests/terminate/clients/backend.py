"""A backend of HTTP/2 alone that answers, talks, or dies, as the path says: python-h2 without its checks.

backend.py serve CERTIFICATE KEY [mute]     prints its port; mute: WebSocket is not offered (RFC 8441 §3)
"""
import socket
import ssl
import struct
import sys
import threading

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

PAGE = b"""<!doctype html><body><p id="heard">nothing</p><img src="/once-seen"><script>
const socket = new WebSocket("wss://" + location.host + "/live", "chat");
socket.onopen = () => socket.send("from a browser");
socket.onmessage = (event) => {
    if (event.data === "seen") return;
    document.getElementById("heard").textContent = "heard: " + event.data + " (" + socket.protocol + ")";
    socket.send("seen");
};
</script></body>"""
OK = [(":status", "200")]
seen = threading.Event()


class Gone(Exception):
    """The connection is to be closed."""


class Talk:
    """A WebSocket that says back what it hears (RFC 6455 §5.2)."""

    def __init__(self):
        self.heard, self.is_over = b"", False

    def hear(self, data):
        self.heard += data
        said = b""
        while len(self.heard) >= 2:
            size, start = self.heard[1] & 127, 2
            if size > 125:
                start = 4 if size == 126 else 10
                if len(self.heard) < start:
                    break
                size = int.from_bytes(self.heard[2:start], "big")
            assert self.heard[1] & 128, "clients mask what they say"
            if len(self.heard) < start + 4 + size:
                break
            mask, payload = self.heard[start:start + 4], self.heard[start + 4:start + 4 + size]
            mask = (mask * (size // 4 + 1))[:size]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")
            head = bytes([self.heard[0]])
            head += bytes([size]) if size < 126 else (
                struct.pack(">BH", 126, size) if size < 65536 else struct.pack(">BQ", 127, size))
            self.heard = self.heard[start + 4 + size:]
            if payload == b"seen":
                seen.set()
            if head[0] == 0x88:
                return said + (b"" if self.is_over else head + payload), True
            said += head + payload
            if payload == b"bye":
                # It says good-bye itself, and hears that of the other.
                said, self.is_over = said + b"\x88\x02\x03\xe8", True
        return said, False


class Connection:
    def __init__(self, stream, is_mute):
        self.stream = stream
        config = h2.config.H2Configuration(
            client_side=False, header_encoding="utf-8", validate_outbound_headers=False,
            normalize_outbound_headers=False, validate_inbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        codes = h2.settings.SettingCodes
        settings = {codes.MAX_CONCURRENT_STREAMS: 100}
        if not is_mute:
            settings[codes.ENABLE_CONNECT_PROTOCOL] = 1
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        self.talks, self.unsent, self.ended = {}, {}, set()

    def send(self):
        self.stream.sendall(self.h2.data_to_send())

    def is_heard(self):
        """Waits until the other side has taken what was sent."""
        self.h2.ping(b"is heard")
        self.send()
        while True:
            data = self.stream.recv(65536)
            if not data:
                raise Gone
            if any(isinstance(event, h2.events.PingAckReceived) for event in self.h2.receive_data(data)):
                return

    def run(self):
        self.send()
        while True:
            data = self.stream.recv(65536)
            if not data:
                return
            for event in self.h2.receive_data(data):
                self.take(event)
            self.flush()
            self.send()

    def flush(self):
        for stream, data in list(self.unsent.items()):
            while data:
                size = min(len(data), self.h2.local_flow_control_window(stream), 16384)
                if size <= 0:
                    break
                self.h2.send_data(stream, data[:size])
                data = data[size:]
            self.unsent[stream] = data
            if not data and stream in self.ended:
                self.h2.end_stream(stream)
                self.ended.discard(stream)
                del self.unsent[stream]

    def say(self, stream, data, is_end=False):
        self.unsent[stream] = self.unsent.get(stream, b"") + data
        if is_end:
            self.ended.add(stream)

    def take(self, event):
        if isinstance(event, h2.events.RequestReceived):
            head = dict(event.headers)
            if head[":method"] == "CONNECT":
                assert head[":protocol"] == "websocket" and "mse-proxy" in head["via"], head
                assert "sec-websocket-key" not in head, head
                if head[":path"] == "/refused":
                    self.h2.send_headers(event.stream_id, [(":status", "403")], end_stream=True)
                    return
                self.talks[event.stream_id] = Talk()
                self.h2.send_headers(event.stream_id, OK + [("sec-websocket-protocol", "chat")])
            else:
                self.answer(event.stream_id, head[":path"])
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.talks:
                self.say(event.stream_id, *self.talks[event.stream_id].hear(event.data))

    def answer(self, stream, path):
        peer = self.h2
        whole = OK + [("content-length", "4")]
        longer = OK + [("content-length", "9")]
        if path == "/page":
            peer.send_headers(stream, OK + [("content-type", "text/html")])
            self.say(stream, PAGE, True)
        elif path == "/once-seen":
            # The browser's page is loaded when this is, and not before the socket has spoken.
            assert seen.wait(60)
            peer.send_headers(stream, [(":status", "204")], end_stream=True)
        elif path == "/whole":
            peer.send_headers(stream, whole)
            peer.send_data(stream, b"half", end_stream=True)
        elif path == "/trailers":
            peer.send_headers(stream, OK)
            peer.send_data(stream, b"half")
            peer.send_headers(stream, [("x-sum", "1")], end_stream=True)
        elif path == "/close-before-head":
            raise Gone
        elif path == "/reset-before-head":
            peer.reset_stream(stream, 2)
        elif path == "/refuse-stream":
            peer.reset_stream(stream, 7)
        elif path == "/goaway":
            peer.close_connection(last_stream_id=0)
            self.send()
            raise Gone
        elif path == "/half-head":
            # HEADERS of which CONTINUATION never comes.
            self.send()
            self.stream.sendall(b"\x00\x00\x01\x01\x00" + stream.to_bytes(4, "big") + b"\x88")
            raise Gone
        elif path == "/no-status":
            peer.send_headers(stream, [("x", "y")], end_stream=True)
        elif path == "/garbage":
            self.send()
            self.stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 3)
        elif path == "/close-after-head":
            peer.send_headers(stream, longer)
            self.is_heard()
            raise Gone
        elif path == "/close-in-body":
            peer.send_headers(stream, longer)
            peer.send_data(stream, b"half")
            self.is_heard()
            raise Gone
        elif path == "/reset-in-body":
            peer.send_headers(stream, longer)
            peer.send_data(stream, b"half")
            self.is_heard()
            peer.reset_stream(stream, 2)
        elif path == "/end-in-body":
            peer.send_headers(stream, longer)
            self.is_heard()
            peer.send_data(stream, b"half", end_stream=True)
        elif path == "/close-before-trailers":
            peer.send_headers(stream, OK)
            peer.send_data(stream, b"half")
            self.is_heard()
            raise Gone
        else:
            peer.send_headers(stream, [(":status", "404")], end_stream=True)


def attend(stream, context, is_mute):
    try:
        with context.wrap_socket(stream, server_side=True) as tls:
            Connection(tls, is_mute).run()
    except (Gone, ConnectionError, ssl.SSLError, h2.exceptions.ProtocolError):
        pass  # Clients that leave are no matter.


def serve(certificate, key, *more):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    # Whoever offers nothing that is spoken here is refused, as RFC 7301 has it.
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=attend, args=(stream, context, "mute" in more), daemon=True).start()


{"serve": serve}[sys.argv[1]](*sys.argv[2:])
