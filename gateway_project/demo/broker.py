"""A Kafka broker in memory, librdkafka's own for tests. Room: gateway_project (demo).

A program of its own that loads nothing of the product, so that it is there in a moment: ``python broker.py TOPIC ...``.
It takes and gives records as Kafka does, keeps nothing after its end, chooses its port itself, and prints {"port": N}
once it has the topics.
"""

import json
import signal
import sys
import threading
from types import FrameType

from confluent_kafka import KafkaException, Producer

_TIMEOUT = 10.0


def main(topics: list[str]) -> int:
    """Until SIGTERM or SIGINT; the exit status."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    # The broker lives as long as this object. Level 3: it announces itself with a warning otherwise.
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 3})
    try:
        for topic in topics:
            # Asking for a topic makes it.
            cluster.list_topics(topic, timeout=_TIMEOUT)
        (broker,) = cluster.list_topics(timeout=_TIMEOUT).brokers.values()
    except KafkaException as error:
        sys.stderr.write(f"the embedded broker did not start: {error}\n")
        return 1
    sys.stdout.write(json.dumps({"port": broker.port}) + "\n")
    sys.stdout.flush()
    while not stopping.wait(1.0):
        cluster.poll(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
