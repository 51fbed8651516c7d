"""The bare WebSocket floor: reads each frame and drops it; ``/count`` says how many. Room: benchmarks.

What is left of any gateway's cost on this server when all of its work is taken away.
"""

from typing import Any

from benchmarks.peers.serve import answer, port_argument, serve

frames = 0


async def app(scope: Any, receive: Any, send: Any) -> None:
    global frames
    if scope["type"] == "http":
        await answer(send, str(frames).encode())
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            frames += 1
    else:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})


if __name__ == "__main__":
    serve(app, port_argument())
