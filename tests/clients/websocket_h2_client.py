"""A WebSocket over HTTP/2 (RFC 8441), its frames by `websockets`, its streams by `h2`. Arguments: the gateway's address and the
function."""

import socket
import sys

import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

host, port = sys.argv[1].rsplit(":", 1)


class Caller:
    """One connection that carries several WebSockets and requests."""

    def __init__(self):
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.heads, self.readers, self.ended, self.reset = {}, {}, set(), {}
        self.flush()
        self.until(lambda: self.h2.remote_settings.enable_connect_protocol == 1)
        assert self.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def until(self, done):
        while not done():
            data = self.socket.recv(65536)
            assert data, "the connection ended"
            for event in self.h2.receive_data(data):
                stream = getattr(event, "stream_id", None)
                if isinstance(event, h2.events.ResponseReceived):
                    self.heads[stream] = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.readers[stream].feed_data(event.data)
                    self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, h2.events.StreamEnded):
                    self.ended.add(stream)
                elif isinstance(event, h2.events.StreamReset):
                    self.reset[stream] = event.error_code
            self.flush()

    def ask(self, headers, end):
        stream = self.h2.get_next_available_stream_id()
        self.readers[stream] = StreamReader()
        self.h2.send_headers(stream, headers, end_stream=end)
        self.flush()
        self.until(lambda: stream in self.heads or stream in self.reset)
        return stream

    def open(self, path, more=()):
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path)]
        head += [(":authority", sys.argv[1]), ("sec-websocket-version", "13"), *more]
        return self.ask(head, end=False)

    def get(self, path):
        return self.ask(
            [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", sys.argv[1])], end=True
        )

    def send(self, stream, opcode, data):
        data = Frame(opcode, data).serialize(mask=True)
        while data:
            self.until(lambda: self.h2.local_flow_control_window(stream) > 0)
            length = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(data))
            self.h2.send_data(stream, data[:length])
            data = data[length:]
            self.flush()

    def receive(self, stream):
        parser = Frame.parse(self.readers[stream].read_exact, mask=False)
        while True:
            try:
                next(parser)
            except StopIteration as done:
                return done.value
            self.socket.settimeout(60)
            before = len(self.readers[stream].buffer)
            self.until(lambda: len(self.readers[stream].buffer) > before or stream in self.ended)


base = f"/f/{sys.argv[2]}"
caller = Caller()

one = caller.open(f"{base}/x?q=1", [("sec-websocket-protocol", "a, b")])
assert caller.heads[one][":status"] == "200", caller.heads[one]
assert caller.heads[one]["sec-websocket-protocol"] in ("a", "b"), caller.heads[one]
assert caller.heads[one]["x-kip-start"] == "cold", caller.heads[one]
# What is said of the handshake in HTTP/1.1 has no place here.
assert not {"sec-websocket-accept", "upgrade", "connection"} & set(caller.heads[one]), caller.heads[one]

two = caller.open(f"{base}/y", [("sec-websocket-protocol", "a")])
assert caller.heads[two][":status"] == "200", caller.heads[two]
for length in (0, 125, 126, 65536, 1 << 20):
    for stream in (one, two):
        caller.send(stream, Opcode.BINARY, b"x" * length)
    for stream in (two, one):
        frame = caller.receive(stream)
        while not frame.fin:
            more = caller.receive(stream)
            frame = Frame(frame.opcode, frame.data + more.data, more.fin)
        assert (frame.opcode, len(frame.data)) == (Opcode.BINARY, length), (frame.opcode, len(frame.data))
caller.send(one, Opcode.PING, b"here?")
frame = caller.receive(one)
assert (frame.opcode, bytes(frame.data)) == (Opcode.PONG, b"here?"), frame

# An ordinary request beside them.
get = caller.get("/f/nobody/")
assert caller.heads[get][":status"] == "404", caller.heads[get]

caller.send(one, Opcode.CLOSE, Close(1000, "").serialize())
frame = caller.receive(one)
assert frame.opcode == Opcode.CLOSE and Close.parse(frame.data).code == 1000, frame
caller.until(lambda: one in caller.ended)

# The function ends this one.
three = caller.open(f"{base}/close", [("sec-websocket-protocol", "a")])
frame = caller.receive(three)
close = Close.parse(frame.data)
assert (close.code, close.reason) == (4001, "as asked"), close

# Its caller goes without a word: the place is free then.
caller.h2.reset_stream(two)
caller.flush()

# No such function, and a protocol that nobody speaks.
four = caller.open("/f/nobody/")
assert caller.heads[four][":status"] == "404", caller.heads[four]
print("ok")
