"""librdkafka's settings of a producer that keeps the order and says what became of each message. Room:
streaming.sinks."""

from collections.abc import Mapping
from typing import Any


def producer_config(bootstrap_servers: str, linger: float, options: Mapping[str, str]) -> dict[str, Any]:
    """librdkafka settings of the producer; ``linger`` in seconds; ``options`` win (security, compression).

    What durability and order stand on cannot be overridden: acks=all, idempotence without gaps, no expiry, and the
    partitioner.
    """
    return {
        "linger.ms": linger * 1000,
        "socket.timeout.ms": 10_000,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 524_288,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1_000,
        "statistics.interval.ms": 1_000,
        "topic.metadata.refresh.interval.ms": 60_000,
        **options,
        "bootstrap.servers": bootstrap_servers,
        "acks": "all",
        "enable.idempotence": True,
        # The first batch that is refused stops the producer instead of letting the next one go before it.
        "enable.gapless.guarantee": True,
        # Never: expiry of single messages would leave gaps in the order. The sink ends what takes too long.
        "delivery.timeout.ms": 0,
        # As Java's default partitioner, so that Java consumers find a user where they expect it.
        "partitioner": "murmur2_random",
    }
