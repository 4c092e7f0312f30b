"""A web server that greets: what a custom runtime of Function Compute runs."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(f"{os.environ['GREETING']} from {os.environ['FC_FUNCTION_NAME']}\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/initialize":
            self.answer("")
        else:
            self.answer(f"{os.environ['GREETING']}, {body.decode()}\n")

    def answer(self, text):
        data = text.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


port = int(os.environ.get("FC_SERVER_PORT", "9000"))
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
