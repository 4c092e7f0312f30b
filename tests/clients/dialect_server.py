"""A small engine of the standard library that speaks Anthropic's and Ollama's dialects. KIND: anthropic or ollama."""

import http.server
import json
import os
import threading

WORDS = ["the ", "model ", "is "]

#: Set when the caller has said that it has the first word of a stream.
seen = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments):
        pass

    def whole(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def pieces(self, kind, first, rest):
        """Sends the first pieces, and the rest once the caller has said that it has them: a proxy that buffers would be seen."""
        seen.clear()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in first:
            self.piece(piece)
        if not seen.wait(timeout=20):
            # An end that no client takes for one.
            self.close_connection = True
            return
        for piece in rest:
            self.piece(piece)
        self.wfile.write(b"0\r\n\r\n")

    def piece(self, text):
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def do_GET(self):
        if self.path == "/api/tags":
            self.whole({"models": [{"model": "tiny:latest", "name": "tiny:latest"}]})
        elif self.path == "/seen":
            seen.set()
            self.whole({})
        else:
            self.whole({"status": "ok"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        model = body.get("model", "")
        words = [*WORDS, model]
        if model == "broken":
            self.whole({"error": "no such model"}, status=404)
        elif self.path == "/v1/messages":
            self.messages(body, model, words)
        elif self.path in ("/api/chat", "/api/generate"):
            self.ollama(body, model, words)
        elif self.path == "/api/embed":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            self.whole({"model": model, "embeddings": [[float(len(text)), 1.0] for text in texts]})
        else:
            self.whole({"error": f"nothing at {self.path}"}, status=404)

    def messages(self, body, model, words):
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 0},
        }
        if not body.get("stream"):
            content = [{"type": "text", "text": "".join(words)}]
            self.whole(message | {"content": content, "stop_reason": "end_turn"})
            return
        block = {"type": "text", "text": ""}
        events = [
            ("message_start", {"message": message | {"content": []}}),
            ("content_block_start", {"index": 0, "content_block": block}),
            ("ping", {}),
            *[("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": word}}) for word in words],
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 4}}),
            ("message_stop", {}),
        ]
        lines = [f"event: {name}\ndata: {json.dumps({'type': name} | data)}\n\n" for name, data in events]
        # The first word is the fourth event.
        self.pieces("text/event-stream", lines[:4], lines[4:])

    def ollama(self, body, model, words):
        def part(text, done):
            value = {"model": model, "created_at": "2026-01-01T00:00:00Z", "done": done}
            if self.path == "/api/chat":
                return value | {"message": {"role": "assistant", "content": text}}
            return value | {"response": text}

        if body.get("stream") is False:
            self.whole(part("".join(words), True))
            return
        parts = [part(word, False) for word in words] + [part("", True)]
        lines = [json.dumps(one) + "\n" for one in parts]
        self.pieces("application/x-ndjson", lines[:1], lines[1:])


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
