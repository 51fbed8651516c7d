"""Valid traffic while a part of Kafka is ill: nobody else may notice.

``PYTHONPATH=clients/python python -m tests.campaigns.ill_parts --seconds 15 --turns 3`` streams through one real
gateway on a real Kafka, in turn with everything well and with one part ill, beside a terminal that sends malformed
frames all the time. Prints for each turn what signals and ticks took to their acknowledgement, closes, and
what ``/readyz`` names; then the ratio of the medians. The parts: failed-messages without the right to write, and with a
limit of 1 KB.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.support.gateway import Gateway, clean_environment, manage, seed_template
from tests.support.kafka import WITH_RULES, KafkaBroker
from tests.support.kafka.rules import denied
from tests.support.simulator import Simulator
from tests.support.terminal import Terminal
from tests.support.topics import Topics
from tests.support.valkey import Valkey

_LOAD = ["--clients", "30", "--ticks-per-second", "10", "--batch-size", "1", "--signals-per-second", "50"]
_PAUSE = 0.02


@contextmanager
def small(bootstrap: str, topic: str, limit: int) -> Iterator[None]:
    """The topic takes records of at most ``limit`` bytes."""
    _set_limit(bootstrap, topic, AlterConfigOpType.SET, str(limit))
    try:
        yield
    finally:
        _set_limit(bootstrap, topic, AlterConfigOpType.DELETE, None)


def _set_limit(bootstrap: str, topic: str, how: AlterConfigOpType, value: str | None) -> None:
    entry = ConfigEntry("max.message.bytes", value, incremental_operation=how)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    # Held until it has answered.
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result()


class Offender:
    """A terminal that sends nothing but frames that are kept in failed-messages, until it is banned or told to stop."""

    def __init__(self, gateway: Gateway, token: str) -> None:
        self._terminal = Terminal(gateway, token, stream="offender")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0

    def __enter__(self) -> "Offender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._terminal.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            while not self._stop.wait(_PAUSE):
                self.sent += 1
                # Every second one is good: half of them wrong is no reason for a ban.
                self._terminal.say("no_such_type", sequence=2 * self.sent - 1, payload={"filler": "x" * 2_000})
                self._terminal.tick(2 * self.sent)


def measure(gateway: Gateway, folder: Path, seconds: int, part: AbstractContextManager[None]) -> dict[str, Any]:
    """One turn of load; milliseconds by message type, closes, and the ill parts that readiness names."""
    closes = gateway.metric("gateway_closes_total")
    with part, Offender(gateway, gateway.users[-1].token) as offender:
        report = Simulator(gateway, folder, *_LOAD, "--duration", str(seconds)).report(seconds + 60)
        status, body = gateway.http("/readyz")
    # Those of the simulator end by themselves.
    return {
        "p50": {kind: ack["p50"] for kind, ack in report["ack_ms"].items()},
        "p99": {kind: ack["p99"] for kind, ack in report["ack_ms"].items()},
        "lost": report["lost"],
        "refused": report["refused"],
        "reconnects": report["reconnects"],
        "closed by the gateway": sum(count for code, count in report["closes"].items() if code != "1000"),
        "offended": offender.sent,
        "closes": gateway.metric("gateway_closes_total") - closes,
        "readyz": (status, json.loads(body)["ill"]),
    }


def run(gateway: Gateway, topics: Topics, folder: Path, seconds: int, turns: int) -> int:
    p99: dict[str, list[float]] = defaultdict(list)
    disturbed = 0
    for turn in range(turns):
        parts: dict[str, AbstractContextManager[None]] = {
            "all is well": nullcontext(),
            "no right to write": denied(topics.bootstrap, topics.failed),
            "a limit of 1 KB": small(topics.bootstrap, topics.failed, 1_024),
        }
        for name, part in parts.items():
            found = measure(gateway, folder, seconds, part)
            print(f"turn {turn}, {name}: {json.dumps(found)}", flush=True)
            p99[name].append(max(found["p99"].values()))
            disturbed += found["lost"] + found["reconnects"] + found["closed by the gateway"]
    well = statistics.median(p99["all is well"])
    for name, values in p99.items():
        print(f"{name}: p99 {statistics.median(values):.1f} ms, {statistics.median(values) / well:.2f}x")
    print(f"{disturbed} terminals disturbed")
    return 1 if disturbed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    valkey = Valkey()
    with tempfile.TemporaryDirectory(prefix="ill-parts-") as name:
        folder = Path(name)
        broker = KafkaBroker(folder / "kafka", settings=WITH_RULES)
        gateway: Gateway | None = None
        try:
            broker.start()
            valkey.start()
            manage("migrate", "-v0", environment=clean_environment(folder / "template"))
            seed_template(folder / "template", users=40)
            topics = Topics(broker.bootstrap)
            gateway = Gateway(folder / "template", folder / "gateway", **topics.settings, REDIS_URL=valkey.url)
            gateway.start()
            return run(gateway, topics, folder, options.seconds, options.turns)
        finally:
            if gateway is not None and gateway.process is not None:
                gateway.stop()
            valkey.stop()
            broker.stop()


if __name__ == "__main__":
    sys.exit(main())
