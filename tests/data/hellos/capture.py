#!/usr/bin/env python3
"""Captures one ClientHello from each TLS client that is installed here, and says what is in it.

Each client is pointed at a loopback port that reads one hello and hangs up. The bytes go into
NAME.bin; what a plain dissector of our own (below, independent of the proxy's parser) finds in them
goes into hellos.toml, which the tests read. Clients that are not installed are skipped and named;
their files stay as they are. Run it by hand when a stack has a new version worth keeping:

    python3 tests/data/hellos/capture.py [NAME ...]

Needs some of: openssl curl gnutls-cli tstclnt go java node chromium, and curl_cffi from PyPI.
"""
import json, os, pathlib, shutil, socket, struct, subprocess, sys, tempfile, threading

HERE = pathlib.Path(__file__).parent
HOST = "app.enclave.test"
LONG = "a-very-long-label-that-goes-on." * 5 + "deep.enclave.test"


def read_hello(connection):
    """All records of the first handshake message, and not a byte more."""
    connection.settimeout(20)
    records = message = b""
    while True:
        header = receive(connection, 5)
        payload = receive(connection, struct.unpack(">H", header[3:])[0])
        records += header + payload
        message += payload
        if len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4], "big"):
            return records


def receive(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError("the client left")
        data += more
    return data


def dissect(records):
    """What the manifest says of a hello: a straightforward reading of RFC 8446 and RFC 6066."""
    message, count, at = b"", 0, 0
    while at < len(records):
        size = struct.unpack(">H", records[at + 3 : at + 5])[0]
        message += records[at + 5 : at + 5 + size]
        at += 5 + size
        count += 1
    found = {"sni": None, "alpn": [], "ech": False, "records": count, "size": len(message), "key_shares": []}
    at = 4 + 2 + 32
    at += 1 + message[at]
    at += 2 + struct.unpack(">H", message[at : at + 2])[0]
    at += 1 + message[at]
    at += 2
    while at + 4 <= len(message):
        kind, size = struct.unpack(">HH", message[at : at + 4])
        body = message[at + 4 : at + 4 + size]
        at += 4 + size
        if kind == 0:
            found["sni"] = body[5 : 5 + struct.unpack(">H", body[3:5])[0]].decode("ascii")
        elif kind == 16:
            rest = body[2:]
            while rest:
                found["alpn"].append(rest[1 : 1 + rest[0]].decode("latin-1"))
                rest = rest[1 + rest[0] :]
        elif kind == 0xFE0D:
            found["ech"] = True
        elif kind == 51:
            rest = body[2:]
            while rest:
                group, size = struct.unpack(">HH", rest[:4])
                grease = group & 0x0F0F == 0x0A0A and group >> 8 == group & 0xFF
                found["key_shares"].append("grease" if grease else f"{group:04x}")
                rest = rest[4 + size :]
    return found


GO = """package main
import ("crypto/tls"; "os"; "strings")
func main() {
    config := &tls.Config{ServerName: os.Args[2], InsecureSkipVerify: true}
    if os.Args[3] != "" { config.NextProtos = strings.Split(os.Args[3], ",") }
    if os.Args[4] == "1.2" { config.MaxVersion = tls.VersionTLS12 }
    tls.Dial("tcp", "127.0.0.1:"+os.Args[1], config)
}
"""
JAVA = """import javax.net.ssl.*; import java.net.*;
class Hello { public static void main(String[] a) throws Exception {
    Socket raw = new Socket("127.0.0.1", Integer.parseInt(a[0]));
    SSLSocket tls = (SSLSocket) ((SSLSocketFactory) SSLSocketFactory.getDefault()).createSocket(raw, a[1], 443, true);
    SSLParameters p = tls.getSSLParameters();
    p.setApplicationProtocols(new String[]{"h2", "http/1.1"});
    tls.setSSLParameters(p);
    try { tls.startHandshake(); } catch (Exception e) { } } }
"""
NODE = "require('tls').connect({port: +process.argv[1], host: '127.0.0.1', servername: process.argv[2], ALPNProtocols: ['h2', 'http/1.1']}).on('error', () => {})"
PYTHON = """import socket, ssl, sys
context = ssl._create_unverified_context()
protocols = sys.argv[3].split(",") if sys.argv[3] else []
if protocols: context.set_alpn_protocols(protocols)
context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))), server_hostname=sys.argv[2] or None)
"""
CFFI = """import sys
from curl_cffi import requests
requests.get(f"https://{sys.argv[2]}:{sys.argv[1]}/", impersonate=sys.argv[3], verify=False, timeout=10,
             curl_options={10203: [f"{sys.argv[2]}:{sys.argv[1]}:127.0.0.1"]})
"""


def clients(work):
    """Name, command, and the command that tells the version."""
    openssl = ["openssl", "s_client", "-connect", "127.0.0.1:{port}"]
    version = ["openssl", "version"]
    yield "openssl-tls13", [*openssl, "-servername", HOST, "-alpn", "h2,http/1.1"], version
    yield "openssl-tls12", [*openssl, "-servername", HOST, "-tls1_2"], version
    yield "openssl-no-name", [*openssl, "-noservername"], version
    yield "openssl-acme", [*openssl, "-servername", HOST, "-alpn", "acme-tls/1"], version
    yield "openssl-upper-case", [*openssl, "-servername", "App.ENCLAVE.test"], version
    yield "openssl-underscore", [*openssl, "-servername", "my_app.enclave.test"], version
    yield "openssl-long-name", [*openssl, "-servername", LONG], version
    yield "openssl-p521-groups", [*openssl, "-servername", HOST, "-groups", "P-256:X25519:P-521"], version
    resolve = ["--resolve", HOST + ":{port}:127.0.0.1", "https://" + HOST + ":{port}/"]
    yield "curl", ["curl", "-sk", *resolve], ["curl", "--version"]
    python, python_version = [sys.executable, "-c", PYTHON, "{port}"], [sys.executable, "-c", "import ssl,sys; print('Python', sys.version.split()[0], ssl.OPENSSL_VERSION)"]
    yield "python-ssl", [*python, HOST, ""], python_version
    # As many protocols as make a hello of several records.
    many = lambda count: ",".join(f"{number:03d}" + "p" * 197 for number in range(count))
    yield "python-17-kib", [*python, HOST, many(85)], python_version
    yield "python-60-kib", [*python, HOST, many(300)], python_version
    gnutls = ["gnutls-cli", "--insecure", "-p", "{port}", "--sni-hostname", HOST, "127.0.0.1"]
    yield "gnutls", [*gnutls[:-1], "--alpn", "h2", "127.0.0.1"], ["gnutls-cli", "--version"]
    yield "gnutls-tls12", [*gnutls[:-1], "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.2", "127.0.0.1"], ["gnutls-cli", "--version"]
    nss = ["tstclnt", "-h", "127.0.0.1", "-p", "{port}", "-a", HOST, "-o", "-D"]
    yield "nss", nss, ["sh", "-c", "dpkg-query -W -f 'NSS ${Version}' libnss3 2>/dev/null || echo NSS"]
    if shutil.which("go"):
        (work / "hello.go").write_text(GO)
        subprocess.run(["go", "build", "-o", work / "go-hello", work / "hello.go"], check=True, env={**os.environ, "GOCACHE": str(work / "go"), "GO111MODULE": "off"})
        yield "go", [str(work / "go-hello"), "{port}", HOST, "h2,http/1.1", ""], ["go", "version"]
        yield "go-tls12", [str(work / "go-hello"), "{port}", HOST, "", "1.2"], ["go", "version"]
        yield "go-acme", [str(work / "go-hello"), "{port}", HOST, "acme-tls/1", ""], ["go", "version"]
    if shutil.which("java"):
        (work / "Hello.java").write_text(JAVA)
        yield "java", ["java", str(work / "Hello.java"), "{port}", HOST], ["sh", "-c", "java -version 2>&1"]
    yield "node", ["node", "-e", NODE, "{port}", HOST], ["sh", "-c", "node -p \"'Node ' + process.version + ' OpenSSL ' + process.versions.openssl\""]
    cffi_version = [sys.executable, "-c", "import curl_cffi; print('curl_cffi', curl_cffi.__version__, '(BoringSSL)')"]
    if subprocess.run([sys.executable, "-c", "import curl_cffi"], capture_output=True).returncode == 0:
        for browser in ["chrome99", "chrome124", "chrome131", "chrome136", "safari17_0", "safari18_0", "firefox133", "firefox135", "edge101", "tor145"]:
            yield "cffi-" + browser.replace("_", "-"), [sys.executable, "-c", CFFI, "{port}", HOST, browser], cffi_version
    else:
        print("skipped: curl_cffi is not installed")
    profile = tempfile.mkdtemp(dir=work)
    yield "chromium", ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--ignore-certificate-errors",
        "--user-data-dir=" + profile, "--host-resolver-rules=MAP " + HOST + " 127.0.0.1", "--dump-dom", "https://" + HOST + ":{port}/"], ["chromium", "--version"]


def capture(command):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(30)
    port = str(listener.getsockname()[1])
    client = subprocess.Popen([part.replace("{port}", port) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # Browsers open connections ahead and say nothing on some of them.
        for _ in range(4):
            connection, _ = listener.accept()
            with connection:
                try:
                    return read_hello(connection)
                except (EOFError, TimeoutError):
                    continue
        raise EOFError("no hello came")
    finally:
        listener.close()
        client.kill()
        client.wait()


def main():
    manifest = HERE / "hellos.toml"
    entries = {}
    if manifest.exists():
        import tomllib
        entries = {entry["file"]: entry for entry in tomllib.loads(manifest.read_text())["hello"]}
    wanted = set(sys.argv[1:])
    with tempfile.TemporaryDirectory() as work:
        for name, command, version in clients(pathlib.Path(work)):
            if wanted and name not in wanted:
                continue
            if not shutil.which(command[0]):
                print(f"skipped: {name} ({command[0]} is not installed)")
                continue
            try:
                records = capture(command)
            except (OSError, EOFError) as error:
                print(f"skipped: {name} ({error})")
                continue
            (HERE / f"{name}.bin").write_bytes(records)
            told = subprocess.run(version, capture_output=True, text=True).stdout.strip().splitlines()
            stack = (told or [command[0]])[0]
            entries[f"{name}.bin"] = {"file": f"{name}.bin", "stack": stack, **dissect(records)}
            print(name, len(records), stack)
    lines = ["# Written by capture.py: what each captured ClientHello must parse to.\n"]
    for _, entry in sorted(entries.items()):
        lines.append("[[hello]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in entry.items() if value is not None]
        lines.append("")
    manifest.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
