"""A web server that says which release it is. With FAILS, that part of its answers are failures."""

import http.server
import os
import random

RELEASE = os.environ["RELEASE"]
FAILS = float(os.environ.get("FAILS", "0"))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = 500 if random.random() < FAILS else 200
        text = f"release {RELEASE}\n".encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
