"""A real Apache Kafka of one broker, from Maven artifacts; says so when Java 17 or Maven lack.

``python -m tests.support.kafka --port P --dir D`` runs one until SIGTERM.
"""

import base64
import fcntl
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.children import start_child, stop_child
from tests.support.ports import free_port, is_listening

_HERE = Path(__file__).resolve().parent
_JARS = _HERE.parents[2] / ".cache" / "kafka"
_START_TIMEOUT = 90.0
# Settings of a broker with an authorizer that lets everybody do what no rule speaks of.
WITH_RULES = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


class KafkaMissing(RuntimeError):
    """Java, Maven or the broker's artifacts cannot be had; the message says what to do."""


def fetch_jars() -> Path:
    """The folder of the broker's jars, filled by Maven at the first use; raises KafkaMissing."""
    for program, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            raise KafkaMissing(f"{program} is missing: install {package} (.ci/run does), the tests use a real Kafka")
    _JARS.parent.mkdir(parents=True, exist_ok=True)
    # Several test processes may come here at once; the first one fetches.
    with (_JARS.parent / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _fill(_JARS)
    return _JARS


def _fill(folder: Path) -> None:
    pom = (_HERE / "pom.xml").read_bytes()
    stamp = folder / "pom.xml"
    if not stamp.exists() or stamp.read_bytes() != pom:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = ["mvn", "-q", "-B", "-f", str(_HERE / "pom.xml"), "dependency:copy-dependencies"]
        done = subprocess.run([*command, f"-DoutputDirectory={folder}"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise KafkaMissing(f"Maven cannot fetch Apache Kafka:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        stamp.write_bytes(pom)


class KafkaBroker:
    """One broker that keeps its port and its data over ``kill`` and ``start``.

    ``for_speed``: for measurements. Without it half of the processor time of a start is saved, and a broker that lives
    for long is slower."""

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        *,
        settings: Mapping[str, str] | None = None,
        joins: "KafkaBroker | None" = None,
        for_speed: bool = False,
    ) -> None:
        """``settings``: of Kafka's own, besides those that every broker gets here; ``joins``: the first broker of the
        cluster, of which this one becomes number 2."""
        self.port = port or free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.log = directory / "kafka.log"
        self.controller: int = joins.controller if joins else free_port()
        cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")
        self.cluster: str = joins.cluster if joins else cluster
        self._is_first = joins is None
        self._settings = dict(settings or {})
        self._directory = directory
        self._options = [] if for_speed else ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when this broker, and no other one that has its port, answers a client."""
        jars = fetch_jars()
        settings = self._directory / "server.properties"
        if not settings.exists():
            self._format(jars, settings)
        self._process = start_child(self._java(jars, "kafka.Kafka", str(settings)), self.log)
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if is_listening(self.port) and self._answers():
                return
            time.sleep(0.05)
        raise RuntimeError(f"Kafka does not start:\n{self.log.read_text()[-3000:]}")

    def _answers(self) -> bool:
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            found = client.list_topics(timeout=2.0).cluster_id
        except KafkaException:
            return False
        return f"cluster.id={found}" in (self._directory / "data" / "meta.properties").read_text().splitlines()

    def kill(self) -> None:
        """As a machine that loses its power."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        if self._process is not None:
            stop_child(self._process, 20)
            self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait()
        self._process = None

    def _java(self, jars: Path, *arguments: str) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={_HERE / 'log4j2.properties'}"
        return ["java", "-Xmx512m", *self._options, log4j, "-cp", f"{jars}/*", *arguments]

    def _format(self, jars: Path, settings: Path) -> None:
        listeners = f"PLAINTEXT://127.0.0.1:{self.port}"
        values = {
            "process.roles": "broker,controller" if self._is_first else "broker",
            "node.id": "1" if self._is_first else "2",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{self.controller}" if self._is_first else listeners,
            "advertised.listeners": listeners,
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self._directory / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "num.partitions": "6",
            **self._settings,
        }
        self._directory.mkdir(parents=True, exist_ok=True)
        draft = settings.with_suffix(".tmp")
        draft.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        command = self._java(jars, "kafka.tools.StorageTool", "format", "-t", self.cluster, "-c", str(draft))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"Kafka cannot format its folder:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
        draft.replace(settings)
