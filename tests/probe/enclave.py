"""An app as enclaves serve it: one thread, and TLS on the listening socket itself, so that whoever
connects and stays silent keeps all others out. Takes a certificate and a key, tells its port; a third
argument is the port to take (0: any); behind it, `marked` makes it a configuration server throughout, and
with `telling` it tells a line of everybody who comes.
/STATUS answers with that status, /marked/STATUS as the configuration server does."""

import http.server
import ssl
import sys


class App(http.server.BaseHTTPRequestHandler):
    def setup(self):
        if "telling" in sys.argv[4:]:
            print("somebody came", flush=True)
        super().setup()

    def do_GET(self):
        *marks, status = self.path.strip("/").split("/")
        self.send_response(int(status or 200))
        if marks == ["marked"] or "marked" in sys.argv[4:]:
            self.send_header("Mse-Status", "waiting")
        self.send_header("Seen-Host", self.headers["Host"])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
server = http.server.HTTPServer(("127.0.0.1", port), App)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
while True:
    try:
        server.serve_forever()
    except OSError:
        # A client that breaks off its handshake breaks off accept.
        pass
