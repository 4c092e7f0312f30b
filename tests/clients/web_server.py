"""A server of the standard library and `websockets`: a chat that streams in OpenAI's style, and sockets that echo."""

import asyncio
import http
import json
import os

from websockets.asyncio.server import serve


async def echo(socket):
    if socket.request.path.endswith("/close"):
        await socket.close(4001, "as asked")
        return
    try:
        async for message in socket:
            await socket.send(message)
    finally:
        print(f"websocket: over with {socket.close_code}", flush=True)


async def chat(reader, writer):
    """Just enough of HTTP/1.1 for one request a connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next((int(line.split(":")[1]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0)
    body = json.loads(await reader.readexactly(length) or b"{}")
    base = {"id": "1", "created": 0, "model": body.get("model", ""), "object": "chat.completion.chunk"}
    words = ["the ", "model ", "is ", body.get("model", "")]

    def answer(status, kind, extra=""):
        reason = http.HTTPStatus(status).phrase
        return f"HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\nconnection: close\r\n{extra}\r\n".encode()

    if body.get("stream"):
        writer.write(answer(200, "text/event-stream", "transfer-encoding: chunked\r\n"))
        for word in [*words, None]:
            choice = {"index": 0, "delta": {"content": word} if word else {}, "finish_reason": None if word else "stop"}
            event = f"data: {json.dumps(base | {'choices': [choice]})}\n\n".encode()
            writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    else:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "".join(words)}}
        text = json.dumps(base | {"object": "chat.completion", "choices": [choice]}).encode()
        writer.write(answer(200, "application/json", f"content-length: {len(text)}\r\n") + text)
    await writer.drain()
    writer.close()


async def main():
    port = int(os.environ["PORT"])
    if os.environ.get("KIND") == "chat":
        server = await asyncio.start_server(chat, "127.0.0.1", port)
        await server.serve_forever()
    else:
        async with serve(echo, "127.0.0.1", port, subprotocols=["b", "a"], max_size=None) as server:
            await server.serve_forever()


asyncio.run(main())
