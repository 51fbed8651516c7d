"""A Channels consumer as the tutorials write it, with Confluent's client and a poll thread. Room: benchmarks."""

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import Any

import django
from confluent_kafka import Producer
from django.conf import settings
from google.protobuf.message import DecodeError

settings.configure(
    INSTALLED_APPS=["channels"],
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(tempfile.gettempdir()) / "benchmark-peer-unused.sqlite3",
        }
    },
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402 (needs the settings above)
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from benchmarks.peers.serve import answer, identity  # noqa: E402
from benchmarks.peers.work import KAFKA, Refused, prepare  # noqa: E402

producer = Producer(
    {
        "bootstrap.servers": KAFKA,
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 1,
        "compression.type": "none",
        "partitioner": "murmur2_random",
    }
)
delivered = 0
failed = 0


def report(error: Any, _message: Any) -> None:
    global delivered, failed
    if error is None:
        delivered += 1
    else:
        failed += 1


def poll_forever() -> None:
    while True:
        producer.poll(0.1)


threading.Thread(target=poll_forever, daemon=True).start()


class TickConsumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self.user_id, self.company_id = identity(self.scope["query_string"])
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            topic, value = prepare(bytes_data or b"", self.user_id, self.company_id)
        except (Refused, DecodeError):
            return
        while True:
            try:
                producer.produce(topic, value, key=self.user_id, on_delivery=report)
                return
            except BufferError:
                await asyncio.sleep(0.01)


async def health(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send)


application = ProtocolTypeRouter({"http": health, "websocket": URLRouter([path("ws/mt5", TickConsumer.as_asgi())])})
