"""Runs handlers of Function Compute's Python runtimes behind a web server, one for each instance of a Kipwake function.

Event handlers take (event, context), WSGI applications (environ, start_response). Arguments: the handler, and the initializer if there is one.
"""
import base64
import importlib
import inspect
import io
import json
import logging
import os
import site
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote

CODE = os.getcwd()


def add_packages():
    """Packages that were installed for this interpreter, on a share or beside the code. They come before those of the host."""
    version = "python%d.%d" % sys.version_info[:2]
    for base in (os.path.join(CODE, ".fun", "python"), os.environ.get("PYTHONUSERBASE", "")):
        folder = os.path.join(base, "lib", version, "site-packages")
        if base and os.path.isdir(folder):
            site.addsitedir(folder)
            sys.path[:] = [folder] + [other for other in sys.path if other != folder]


class Namespace:
    def __init__(self, **fields):
        self.__dict__.update(fields)


def load(name):
    """The callable that `folder/module.function` names."""
    module, _, function = name.rpartition(".")
    if not module:
        raise RuntimeError("the handler %r is not MODULE.FUNCTION" % name)
    return getattr(importlib.import_module(module.replace("/", ".")), function)


class Loaded:
    """A handler that is loaded at its first use: an error in its module is the answer of that request."""

    def __init__(self, name):
        self.name = name
        self.lock = threading.Lock()
        self.found = None

    def get(self):
        with self.lock:
            if self.found is None:
                self.found = load(self.name)
            return self.found


HANDLER = Loaded(sys.argv[1])
INITIALIZER = Loaded(sys.argv[2]) if len(sys.argv) > 2 else None


def context_of(headers):
    get = lambda name: headers.get(name, "")
    number = lambda text: int(text) if text.isdigit() else 0
    function = Namespace(
        name=get("x-fc-function-name"),
        handler=HANDLER.name,
        memory=number(get("x-fc-function-memory")),
        timeout=number(get("x-fc-function-timeout")),
    )
    return Namespace(
        request_id=get("x-fc-request-id"),
        requestId=get("x-fc-request-id"),
        credentials=Namespace(
            access_key_id=os.environ.get("ALIBABA_CLOUD_ACCESS_KEY_ID", ""),
            access_key_secret=os.environ.get("ALIBABA_CLOUD_ACCESS_KEY_SECRET", ""),
            security_token=os.environ.get("ALIBABA_CLOUD_SECURITY_TOKEN", ""),
        ),
        function=function,
        service=Namespace(name="", log_project="", log_store="", qualifier=get("x-fc-qualifier"), version_id=get("x-fc-version-id")),
        region=get("x-fc-region"),
        account_id=get("x-fc-account-id"),
        logger=logging.getLogger(),
    )


def as_bytes(value):
    if value is None:
        return b""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body go in one piece: in two, the second would wait for the other side's word about the first.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def body(self):
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        pieces = []
        while True:
            length = int(self.rfile.readline().split(b";")[0], 16)
            pieces.append(self.rfile.read(length))
            self.rfile.readline()
            if not length:
                return b"".join(pieces)

    def answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        body = self.body()
        request_id = self.headers.get("x-fc-request-id", "")
        path = self.path.split("?", 1)[0]
        if path == "/initialize" and self.command == "POST":
            return self.framed("Initialize", request_id, self.initialize)
        if path == "/pre-stop" and self.command == "GET":
            return self.answer(200, [], b"")
        if self.headers.get("x-fc-control-path") == "/invoke" or (path == "/invoke" and self.command == "POST"):
            return self.framed("Invoke", request_id, lambda: self.event(body))
        return self.framed("Invoke", request_id, lambda: self.http(path, body))

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = handle_any

    def framed(self, what, request_id, work):
        print("FC %s Start RequestId: %s" % (what, request_id), flush=True)
        try:
            answer = work()
        except BaseException as error:
            traceback.print_exc()
            said = {
                "errorMessage": str(error),
                "errorType": type(error).__name__,
                "stackTrace": traceback.format_exc().splitlines(),
            }
            failed = [("content-type", "application/json"), ("x-fc-status", "500"), ("x-fc-error-type", "UnhandledInvocationError")]
            answer = (502, failed, json.dumps(said).encode())
        print("FC %s End RequestId: %s" % (what, request_id), flush=True)
        sys.stdout.flush()
        sys.stderr.flush()
        self.answer(*answer)

    def initialize(self):
        if INITIALIZER:
            INITIALIZER.get()(context_of(self.headers))
        HANDLER.get()
        return 200, [], b""

    def event(self, body):
        result = HANDLER.get()(body, context_of(self.headers))
        return 200, [("content-type", "application/octet-stream"), ("x-fc-status", "200")], as_bytes(result)

    def http(self, path, body):
        handler = HANDLER.get()
        first = next(iter(inspect.signature(handler).parameters), "")
        return self.wsgi(handler, path, body) if first == "environ" else self.wrapped(handler, path, body)

    def wrapped(self, handler, path, body):
        """An event handler gets a request as an event, and says what to answer."""
        query = self.path.partition("?")[2]
        event = {
            "version": "v1",
            "rawPath": path,
            "headers": dict(self.headers.items()),
            "queryParameters": dict(parse_qsl(query, keep_blank_values=True)),
            "body": base64.b64encode(body).decode(),
            "isBase64Encoded": True,
            "requestContext": {
                "requestId": self.headers.get("x-fc-request-id", ""),
                "domainName": self.headers.get("host", ""),
                "http": {"method": self.command, "path": path, "protocol": "HTTP/1.1"},
            },
        }
        result = handler(json.dumps(event).encode(), context_of(self.headers))
        try:
            said = result if isinstance(result, dict) else json.loads(as_bytes(result))
        except ValueError:
            said = None
        if not isinstance(said, dict) or "statusCode" not in said:
            return 200, [("content-type", "application/octet-stream")], as_bytes(result)
        content = as_bytes(said.get("body"))
        if said.get("isBase64Encoded"):
            content = base64.b64decode(content)
        return int(said["statusCode"]), list((said.get("headers") or {}).items()), content

    def wsgi(self, handler, path, body):
        query = self.path.partition("?")[2]
        environ = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(path),
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": str(self.server.server_port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "fc.context": context_of(self.headers),
            "fc.request_uri": self.path,
        }
        for name, value in self.headers.items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        begun = []

        def start_response(status, headers, exc_info=None):
            begun[:] = [int(status.split(" ", 1)[0]), headers]
            return None

        content = b"".join(as_bytes(piece) for piece in handler(environ, start_response))
        return begun[0], begun[1], content


if __name__ == "__main__":
    add_packages()
    sys.path.insert(0, CODE)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Request).serve_forever()
