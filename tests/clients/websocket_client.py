"""`websockets` against a function that is started by it. Arguments: the gateway's address and the function."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

base = f"ws://{sys.argv[1]}/f/{sys.argv[2]}"


async def main():
    async with connect(f"{base}/x?q=1", subprotocols=["a", "b"], max_size=None) as socket:
        assert socket.subprotocol in ("a", "b"), socket.subprotocol
        assert socket.response.headers["x-kip-start"] == "cold", socket.response.headers
        for length in (0, 1, 125, 126, 65535, 65536, 1 << 20):
            await socket.send(b"x" * length)
            assert await socket.recv() == b"x" * length
        await socket.send(["in ", "pieces"])
        assert await socket.recv() == "in pieces"
        pong = await socket.ping()
        await asyncio.wait_for(pong, 10)
    assert socket.close_code == 1000

    async with connect(f"{base}/close", subprotocols=["a"]) as socket:
        try:
            await socket.recv()
            raise AssertionError("it must be closed")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as asked"), closed

    try:
        await connect(f"ws://{sys.argv[1]}/f/nobody/")
        raise AssertionError("there is no such function")
    except InvalidStatus as error:
        assert error.response.status_code == 404 and error.response.headers["x-kip-error"] == "KW-2001"


asyncio.run(main())
print("ok")
