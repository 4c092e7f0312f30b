"""A small model with an engine's manners: it loads its weights, holds them in memory, gives them back and takes them again.

`POST /sleep` drops the weights, `POST /wake_up` loads them again, `POST /generate` works with them. The weights are 32 MiB of numbers, which stand for the
memory of a device: the server counts the share that kip.yaml declares.
"""

import hashlib
import http.server
import json
import os
import time

NAME = os.environ["MODEL"]
SIZE = 32 << 20


class Model:
    def __init__(self):
        self.weights = None
        self.load()

    def load(self):
        if self.weights is None:
            time.sleep(float(os.environ.get("LOAD_SECONDS", "0.3")))
            seed = hashlib.sha256(NAME.encode()).digest()
            self.weights = seed * (SIZE // len(seed))

    def drop(self):
        self.weights = None

    def generate(self):
        return hashlib.sha256(memoryview(self.weights)[: 1 << 20]).hexdigest()[:12]


model = Model()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        work = {"/sleep": model.drop, "/wake_up": model.load, "/generate": model.generate}.get(self.path)
        if work is None:
            return self.answer(404, {"error": "no such path"})
        self.answer(200, {"model": NAME, "answer": work()})

    def answer(self, status, content):
        body = (json.dumps(content) + "\n").encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
