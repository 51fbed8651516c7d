"""``python -m tests.support.kafka``: a broker until SIGTERM or SIGINT."""

import argparse
import signal
import sys
from pathlib import Path

from tests.support.kafka import KafkaBroker, KafkaMissing


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.kafka", description="A real Apache Kafka, one broker."
    )
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--dir", type=Path, required=True, help="its data, logs and settings; kept over restarts")
    options = parser.parse_args()
    broker = KafkaBroker(options.dir, options.port)

    def end(*_: object) -> None:
        broker.stop()
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        broker.start()
    except KafkaMissing as missing:
        sys.stderr.write(f"{missing}\n")
        return 2
    sys.stdout.write(f"Kafka listens at {broker.bootstrap}\n")
    sys.stdout.flush()
    return broker.wait()


if __name__ == "__main__":
    sys.exit(main())
