"""``manage.py embedded_broker``: a Kafka broker in memory, librdkafka's own for tests. Room: gateway_project (demo).

It takes and gives records as Kafka does, keeps nothing after its end, and chooses its port itself.
"""

import json
import signal
import threading
from types import FrameType
from typing import Any

from confluent_kafka import KafkaException, Producer
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

_TIMEOUT = 10.0


class Command(BaseCommand):
    help = 'Development only: runs a broker until SIGTERM; prints {"port": N} once it has the topics.'

    def handle(self, *_args: Any, **_options: Any) -> None:
        if settings.IS_PRODUCTION:
            raise CommandError("the embedded broker is for development machines")
        stopping = threading.Event()

        def stop(_number: int, _frame: FrameType | None) -> None:
            stopping.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        # The broker lives as long as this object. Level 3: it announces itself with a warning otherwise.
        cluster = Producer({"test.mock.num.brokers": 1, "log_level": 3})
        try:
            for topic in {
                *settings.GATEWAY_ROUTES.values(),
                settings.GATEWAY_FAILED_MESSAGES_TOPIC,
                settings.GATEWAY_SUBSCRIPTION_TOPIC,
                settings.GATEWAY_ACTIVITY_TOPIC,
            }:
                # Asking for a topic makes it.
                cluster.list_topics(topic, timeout=_TIMEOUT)
            (broker,) = cluster.list_topics(timeout=_TIMEOUT).brokers.values()
        except KafkaException as error:
            raise CommandError(f"the embedded broker did not start: {error}") from error
        self.stdout.write(json.dumps({"port": broker.port}))
        self.stdout.flush()
        while not stopping.wait(1.0):
            cluster.poll(0)
