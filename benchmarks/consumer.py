"""An independent Kafka consumer in a process of its own: how long each message took from its client. Room: benchmarks.

Reads ``{"kafka": "HOST:PORT", "topics": [...]}``, answers ``{"event": "ready"}``; then reads
``{"since": µs, "until": µs}`` and answers ``{"event": "latency", "spread": …}`` of the messages sent in that time.
"""

import json
import sys
import threading
import time
from array import array
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from benchmarks.kafka import PARTITIONS
from benchmarks.stats import spread
from proto.gateway.v1 import envelope_pb2

# When the measured time is over, what is still under way is waited for: until nothing came for a while, or the limit.
_QUIET_SECONDS = 0.5
_STRAGGLER_SECONDS = 6.0


def main() -> None:
    order = json.loads(sys.stdin.readline())
    consumer = Consumer(
        {
            "bootstrap.servers": order["kafka"],
            "group.id": "benchmark",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            "fetch.min.bytes": 1,
            "log_level": 2,
        }
    )
    # Assigned by hand from the start of fresh topics: no group to join, nothing missed.
    consumer.assign([TopicPartition(name, partition, 0) for name in order["topics"] for partition in range(PARTITIONS)])
    windows: list[dict[str, int]] = []
    threading.Thread(target=_read_windows, args=(windows,), daemon=True).start()
    sent, taken = array("q"), array("q")
    say({"event": "ready"})
    last, stop_at = 0.0, float("inf")
    while (clock := time.monotonic()) < stop_at and not (windows and clock - last > _QUIET_SECONDS):
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            now = time.time_ns() // 1000
            timestamp = envelope_pb2.MessageEnvelope.FromString(message.value() or b"").timestamp
            sent.append(timestamp)
            taken.append(now - timestamp)
            last = clock
        if windows and stop_at == float("inf"):
            stop_at = clock + _STRAGGLER_SECONDS
    since, until = windows[0]["since"], windows[0]["until"]
    measured = [latency for at, latency in zip(sent, taken, strict=True) if since <= at < until]
    say({"event": "latency", "spread": spread(measured)})
    consumer.close()


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _read_windows(windows: list[dict[str, int]]) -> None:
    line = sys.stdin.readline()
    # The end of the input means that the run is over: an empty window lets the loop end.
    windows.append(json.loads(line) if line else {"since": 0, "until": 0})


if __name__ == "__main__":
    main()
