"""FastAPI with aiokafka: the common way to bridge WebSocket and Kafka without Django. Room: benchmarks."""

from asyncio import Future
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse
from google.protobuf.message import DecodeError

from benchmarks.peers.serve import identity, port_argument, serve
from benchmarks.peers.work import KAFKA, Refused, prepare

producer: AIOKafkaProducer
delivered = 0
failed = 0


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    global producer
    producer = AIOKafkaProducer(
        bootstrap_servers=KAFKA, enable_idempotence=True, acks="all", linger_ms=1, compression_type=None
    )
    await producer.start()
    yield
    await producer.stop()


app = FastAPI(lifespan=lifespan)


def report(future: Future[Any]) -> None:
    global delivered, failed
    if future.cancelled() or future.exception() is not None:
        failed += 1
    else:
        delivered += 1


@app.get("/readyz", response_class=PlainTextResponse)
async def readyz() -> str:
    return "ok"


@app.websocket("/ws/mt5")
async def stream(websocket: WebSocket) -> None:
    user_id, company_id = identity(websocket.scope["query_string"])
    key = user_id.encode()
    await websocket.accept()
    try:
        while True:
            try:
                topic, value = prepare(await websocket.receive_bytes(), user_id, company_id)
            except (Refused, DecodeError):
                continue
            (await producer.send(topic, value, key=key)).add_done_callback(report)
    except WebSocketDisconnect:
        return


if __name__ == "__main__":
    serve(app, port_argument())
