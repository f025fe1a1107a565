"""Asks for a WebSocket that is refused, and prints status, Proxy-Status and page.

refused.py upgrade|tunnel [PATH] HOST PORT CA     by HTTP/1.1, or within HTTP/2
"""
import http.client
import socket
import ssl
import sys

import h2.connection
import h2.events

how, *path, host, port, ca = sys.argv[1:]
path = path[0] if path else "/live"
context = ssl.create_default_context(cafile=ca)
context.set_alpn_protocols(["h2" if how == "tunnel" else "http/1.1"])
stream = context.wrap_socket(socket.create_connection(("127.0.0.1", int(port))), server_hostname=host)
stream.settimeout(30)
if how == "upgrade":
    ask = (f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    stream.sendall(ask.encode())
    answer = http.client.HTTPResponse(stream)
    answer.begin()
    print(answer.status, answer.headers["proxy-status"], answer.read().decode().strip())
else:
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    stream.sendall(connection.data_to_send())
    head, body, is_asked, is_over = {}, b"", False, False
    while not is_over:
        received = stream.recv(65536)
        assert received, "it is closed"
        for event in connection.receive_data(received):
            if isinstance(event, h2.events.RemoteSettingsChanged) and not is_asked:
                is_asked = True
                connection.send_headers(1, [
                    (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", path),
                    (":authority", host), ("sec-websocket-version", "13")])
            elif isinstance(event, h2.events.ResponseReceived):
                head = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                is_over = True
        stream.sendall(connection.data_to_send())
    print(head[":status"], head.get("proxy-status"), body.decode().strip())
