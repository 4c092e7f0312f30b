"""`httpx`, HTTP/1.1 and HTTP/2, against the test program. Arguments: the gateway's address and the function."""

import sys

import httpx

address, function = sys.argv[1], sys.argv[2]
base = f"http://{address}/f/{function}"


def fnv(data):
    total = 0xCBF29CE484222325
    for byte in data:
        total = ((total ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{total:016x}"


for options in ({"http1": True}, {"http1": False, "http2": True}):
    with httpx.Client(timeout=60, **options) as client:
        first = client.get(f"{base}/echo?a=%FF&b=[x]|y&c=%20", headers=[("x-twice", "1"), ("x-twice", "2")])
        assert first.status_code == 200, first.text
        seen = first.json()
        assert seen["target"].startswith("/echo?a=%FF&"), seen
        twice = [value for name, value in seen["headers"] if name == "x-twice"]
        assert twice == ["1", "2"] or twice == ["1, 2"], seen
        # As the protocol wants it: one cookie header towards HTTP/1.1.
        cookies = client.get(f"{base}/echo", cookies={"a": "1", "b": "2"}).json()
        assert [value for name, value in cookies["headers"] if name == "cookie"] == ["a=1; b=2"], cookies

        assert client.head(f"{base}/echo").status_code == 200
        small = bytes(range(256)) * 4
        assert client.post(f"{base}/echo", content=small).json()["sum"] == fnv(small)
        pieces = (bytes([number]) * 1000 for number in range(100))
        assert client.post(f"{base}/echo", content=pieces).json()["length"] == 100_000
        # 32 MiB up, unbuffered, and 64 MiB down.
        up = client.post(f"{base}/echo", content=(b"u" * 65536 for _ in range(512)))
        assert up.json()["length"] == 32 << 20, up.text
        with client.stream("GET", f"{base}/big/{64 << 20}") as down:
            assert sum(len(piece) for piece in down.iter_raw()) == 64 << 20

        with client.stream("GET", f"{base}/stream/20/10") as events:
            lines = [line for line in events.iter_lines() if line]
            assert lines == [f"data: {number}" for number in range(20)], lines
        try:
            with client.stream("GET", f"{base}/half") as half:
                half.read()
            raise AssertionError("half an answer must not look whole")
        except httpx.RemoteProtocolError:
            pass
        assert client.get(f"{base}/status/418").status_code == 418
        assert client.get(f"http://{address}/f/nobody/").headers["x-kip-error"] == "KW-2001"
        version = client.get(f"{base}/pid").http_version
        assert version == ("HTTP/2" if options.get("http2") else "HTTP/1.1"), version
print("ok")
