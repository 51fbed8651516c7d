"""``python -m tests.support.kafka``: a broker until SIGTERM or SIGINT."""

import argparse
import sys
from pathlib import Path

from gateway_project.signals import stop_of_signals
from tests.support.kafka import KafkaBroker, KafkaMissing


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.kafka", description="A real Apache Kafka, one broker."
    )
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--dir", type=Path, required=True, help="its data, logs and settings; kept over restarts")
    options = parser.parse_args()
    broker = KafkaBroker(options.dir, options.port, for_speed=True)

    # Only noted: the broker's end may not be waited for inside of another wait for it.
    stopping = stop_of_signals()
    try:
        broker.start()
    except KafkaMissing as missing:
        sys.stderr.write(f"{missing}\n")
        return 2
    sys.stdout.write(f"Kafka listens at {broker.bootstrap}\n")
    sys.stdout.flush()
    while broker.is_running and not stopping.wait(0.2):
        pass
    broker.stop()
    return 0 if stopping.is_set() else 1


if __name__ == "__main__":
    sys.exit(main())
