"""A small server on PyTorch that holds device memory: an engine for the GPU benchmark.

It speaks the lines of `kip_freezer::probe`: one word a line on standard input, one JSON object a line back. With PORT in
the environment it also answers GET requests with the checksum, so that it can be run as a function. `--weight` says what
is loaded into the context beside the memory, because that, not the bytes, sets the fixed part of a wake.
"""

import argparse
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

WEIGHTS = ["bare", "cublas", "cudnn", "graphs", "compiled"]


class Holder:
    def __init__(self, size, weight):
        self.device = torch.device("cuda:0")
        self.lock = threading.Lock()
        generator = torch.Generator(device=self.device).manual_seed(1)
        low, high = -(2**62), 2**62
        self.held = torch.empty(size // 8, dtype=torch.int64, device=self.device)
        piece = 1 << 24
        for at in range(0, self.held.numel(), piece):
            self.held[at : at + piece].random_(low, high, generator=generator)
        self.shadow = None
        self.graphs = []
        self.compiled = None
        self.load(weight)
        torch.cuda.synchronize()

    def load(self, weight):
        """Each weight has those before it as well."""
        rank = WEIGHTS.index(weight)
        if rank >= 1:
            self.matrix = torch.randn(1024, 1024, device=self.device)
            self.matrix @ self.matrix
        if rank >= 2:
            convolution = torch.nn.Conv2d(3, 16, 3).to(self.device)
            with torch.no_grad():
                convolution(torch.randn(1, 3, 224, 224, device=self.device))
        if rank >= 3:
            for size in range(1, 21):
                static = torch.zeros(size, 1024, device=self.device)
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    static @ self.matrix
                torch.cuda.current_stream().wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    result = static @ self.matrix
                self.graphs.append((graph, static, result))
        if rank >= 4:
            self.compiled = torch.compile(lambda x: torch.nn.functional.gelu(x) * 2 + 1)
            self.compiled(self.matrix)

    def sum(self):
        """All bytes, those that a graph and a compiled kernel make too."""
        with self.lock:
            if self.held is None:
                return 0
            weights = torch.arange(1, 4097, device=self.device, dtype=torch.int64)
            total = int(self.held.sum().item())
            total ^= int((self.held[: 4096 * (self.held.numel() // 4096)].view(-1, 4096) * weights).sum().item())
            for graph, static, result in self.graphs:
                static.fill_(1.0)
                graph.replay()
                total ^= int(torch.nan_to_num(result).sum().item())
            if self.compiled is not None:
                total ^= int(self.compiled(self.matrix).sum().item())
            return total & (2**64 - 1)

    def first(self):
        """The first kernel after a wake."""
        with self.lock:
            if self.held is None:
                return 0
            return int((self.held[:512] * 2).sum().item()) & (2**64 - 1)

    def drop(self):
        with self.lock:
            if self.shadow is None:
                self.shadow = torch.empty(self.held.shape, dtype=self.held.dtype, pin_memory=True)
            self.shadow.copy_(self.held)
            torch.cuda.synchronize()
            self.held = None
            torch.cuda.empty_cache()
            return 0

    def reload(self):
        with self.lock:
            self.held = self.shadow.to(self.device, non_blocking=True)
            torch.cuda.synchronize()
            return 0


def say(begun, total=0, failed=None):
    said = {"sum": total, "took_us": int((time.monotonic() - begun) * 1e6)}
    if failed is not None:
        said["failed"] = str(failed)
    print(json.dumps(said), flush=True)


def listen(holder, port):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = f"{holder.sum():016x}\n".encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever, daemon=True).start()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, default=1 << 30)
    parser.add_argument("--weight", choices=WEIGHTS, default="bare")
    options = parser.parse_args()
    begun = time.monotonic()
    try:
        holder = Holder(options.bytes, options.weight)
    except Exception as error:
        say(begun, failed=error)
        return
    if os.environ.get("PORT"):
        listen(holder, int(os.environ["PORT"]))
    say(begun)
    words = {"sum": holder.sum, "first": holder.first, "drop": holder.drop, "reload": holder.reload}
    for line in sys.stdin:
        begun = time.monotonic()
        try:
            say(begun, words.get(line.strip(), lambda: 0)())
        except Exception as error:
            say(begun, failed=error)


if __name__ == "__main__":
    main()
