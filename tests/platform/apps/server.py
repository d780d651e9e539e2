# An app that says who it is. The root file system has Python's smallest library: no http, no json.
import os
import socket
import threading

LIFE = os.urandom(8).hex()
HOME = os.getcwd()


def read(name):
    with open(os.path.join(HOME, os.path.basename(name)), "rb") as file:
        return file.read()


def body(path):
    kind, _, rest = path.strip("/").partition("/")
    if kind == "file":
        return read(rest)
    if kind == "env":
        return os.environ.get(rest, "").encode()
    if kind == "read":
        # A file that a variable leads to, or one in the directory that it leads to.
        variable, _, name = rest.partition("/")
        with open(os.path.join(os.environ[variable], name) if name else os.environ[variable], "rb") as file:
            return file.read()
    if kind == "fetch":
        # What a server says to whoever connects, or why that cannot be.
        try:
            with socket.create_connection((rest.encode(), 80), timeout=5) as stream:
                return stream.recv(65536)
        except OSError as error:
            return ("%s: %s" % (type(error).__name__, error)).encode()
    if kind == "exit":
        os._exit(int(rest))
    if kind == "log":
        print(rest, flush=True)
        return b""
    said = {
        "version": read("version.txt").decode().strip(),
        "life": LIFE,
        "instance": os.environ["CF_INSTANCE_GUID"],
        "index": os.environ["CF_INSTANCE_INDEX"],
    }
    pairs = ", ".join('"%s": "%s"' % pair for pair in said.items())
    return ("{%s}" % pairs).encode()


def answer(connection):
    with connection:
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(65536)
            if not more:
                return
            head += more
        said = body(head.split()[1].decode())
        start = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(said)
        connection.sendall(start.encode() + said)


listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", int(os.environ["PORT"])))
listener.listen(64)
print("life", LIFE, "begins", flush=True)
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
