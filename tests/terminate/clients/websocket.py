"""A WebSocket server with a page for browsers, or a client that talks with one through the proxy.

websocket.py serve CERTIFICATE KEY         prints its port; says back whatever it hears
websocket.py talk HOST PORT CA             says things and expects them back
"""
import asyncio
import http
import ssl
import sys

import websockets

PAGE = b"""<!doctype html><body><p id="heard">nothing</p><img src="/once-seen"><script>
const socket = new WebSocket("wss://" + location.host + "/live", "chat");
socket.onopen = () => socket.send("from a browser");
socket.onmessage = (event) => {
    if (event.data === "seen") return;
    document.getElementById("heard").textContent = "heard: " + event.data + " (" + socket.protocol + ")";
    socket.send("seen");
};
</script></body>"""


async def serve(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])

    seen = asyncio.Event()

    async def page(path, headers):
        if path == "/page":
            return http.HTTPStatus.OK, [("Content-Type", "text/html")], PAGE
        if path == "/once-seen":
            # The browser's page is loaded when this is, and not before the socket has spoken.
            await asyncio.wait_for(seen.wait(), 60)
            return http.HTTPStatus.NO_CONTENT, [], b""

    async def say_back(socket, path):
        assert "mse-proxy" in socket.request_headers["Via"], socket.request_headers
        async for message in socket:
            await socket.send(message)
            if message == "seen":
                seen.set()
            if message == "bye":
                return

    async with websockets.serve(say_back, "127.0.0.1", 0, ssl=context, max_size=None,
                                subprotocols=["chat"], process_request=page) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


async def talk(host, port, ca):
    context = ssl.create_default_context(cafile=ca)
    async with websockets.connect(f"wss://{host}/live?x=1", host="127.0.0.1", port=int(port),
                                  ssl=context, max_size=None, subprotocols=["chat"], compression=None,
                                  server_hostname=host) as socket:
        assert socket.subprotocol == "chat"
        for message in ["hello", "", "ä" * 1000, b"\x00" * 3_000_000, "x" * 200_000]:
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send("bye")
        assert await socket.recv() == "bye"
        await socket.wait_closed()
        assert socket.close_code == 1000, socket.close_code
    print("talked")


asyncio.run({"serve": serve, "talk": talk}[sys.argv[1]](*sys.argv[2:]))
