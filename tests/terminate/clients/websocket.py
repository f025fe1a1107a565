"""A WebSocket server, or a client that talks with one through the proxy.

websocket.py serve CERTIFICATE KEY         prints its port; says back whatever it hears
websocket.py talk HOST PORT CA             says things and expects them back
"""
import asyncio
import ssl
import sys

import websockets


async def serve(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])

    async def say_back(socket, path):
        assert "mse-proxy" in socket.request_headers["Via"], socket.request_headers
        async for message in socket:
            await socket.send(message)
            if message == "bye":
                return

    async with websockets.serve(say_back, "127.0.0.1", 0, ssl=context, max_size=None,
                                subprotocols=["chat"]) as server:
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
