"""A backend for very many connections, which would take too many descriptors in the test's own
process: prints its port, then sends back whatever comes. Ends with its standard input."""

import resource
import select
import socket
import sys

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
door = socket.socket()
door.bind(("127.0.0.1", 0))
door.listen(4096)
print(door.getsockname()[1], flush=True)
streams = {}
epoll = select.epoll()
epoll.register(door, select.EPOLLIN)
epoll.register(sys.stdin, select.EPOLLIN)
while True:
    for number, _ in epoll.poll():
        if number == door.fileno():
            stream, _ = door.accept()
            streams[stream.fileno()] = stream
            epoll.register(stream, select.EPOLLIN)
        elif number == sys.stdin.fileno():
            sys.exit()
        else:
            # What it is sent are small messages, which fit into the socket's buffer.
            try:
                data = streams[number].recv(65536)
                streams[number].sendall(data)
            except OSError:
                data = b""
            if not data:
                streams.pop(number).close()
