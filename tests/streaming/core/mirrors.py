"""Processes that serve one user, with copies of the user's bucket and a store between them, in a clock of the test."""

import dataclasses
from dataclasses import dataclass, field

from streaming.core.shares import Mirror, Report
from streaming.core.throttle import MirroredBucket

# Of a token, for what rounding leaves missing.
_ROUNDING = 1e-6


class TrueBucket:
    """What all processes together are to come near: one bucket that hears of every message at once."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._tokens, self._updated = rate, rate, now
        self.passed = 0

    def has_token(self, now: float) -> bool:
        self._tokens = min(self._rate, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        return self._tokens >= 1.0 + _ROUNDING

    def take(self, now: float) -> bool:
        if not self.has_token(now):
            return False
        self._tokens -= 1.0
        self.passed += 1
        return True


class Server:
    """One process; its copy is made when the user first connects there."""

    def __init__(self, name: str, rate: float, now: float) -> None:
        self.name = name
        self.bucket = MirroredBucket(rate, rate, now)
        self.mirror = Mirror(self.bucket, now)
        self.is_live = True


@dataclass
class Cluster:
    """``ideal`` is offered all messages as well; ``passed``: by all processes together."""

    rate: float
    now: float = 0.0
    # Processes that do not reach the store.
    cut_off: set[str] = field(default_factory=set)
    servers: dict[str, Server] = field(default_factory=dict)
    store: dict[str, Report] = field(default_factory=dict)
    passed: int = 0
    _answers: dict[str, tuple[Server, dict[str, Report], float]] = field(default_factory=dict)
    ideal: TrueBucket = field(init=False)

    def __post_init__(self) -> None:
        self.ideal = TrueBucket(self.rate, self.now)

    def server(self, name: str) -> Server:
        """The process, where the user has connected by now at the latest."""
        if name not in self.servers:
            self.servers[name] = Server(name, self.rate, self.now)
        return self.servers[name]

    def send(self, name: str) -> tuple[bool, bool]:
        """Whether one more message passes there, and whether the one true bucket would let it pass."""
        passes, may_pass = self.server(name).bucket.take(self.now), self.ideal.take(self.now)
        self.passed += passes
        return passes, may_pass

    def ask(self, name: str) -> None:
        """The process reports and asks for the others, if the store is there for it; ``answer`` brings the answer."""
        server = self.servers[name]
        report = server.mirror.report(self.now, is_live=server.is_live)
        if name not in self.cut_off:
            self.store[name] = dataclasses.replace(report, at=self.now)
            others = {other: report for other, report in self.store.items() if other != name}
            self._answers[name] = (server, others, self.now)
        else:
            server.mirror.miss()

    def answer(self, name: str) -> None:
        if name in self._answers:
            server, others, asked_at = self._answers.pop(name)
            server.mirror.hear(name, others, asked_at, self.now)

    def exchange(self, name: str) -> None:
        self.ask(name)
        self.answer(name)

    def forget(self, name: str) -> None:
        """The process forgets the user, who has been away from it for long."""
        self.servers.pop(name, None)

    def move_to(self, name: str) -> None:
        """The user's connections are at this process only."""
        for server in self.servers.values():
            server.is_live = False
        self.server(name).is_live = True
