"""Everything of the stream that one process shares, wired together. Room: streaming.

The sessions are pure; this gives them the sink, sends their acknowledgements when they are due, keeps the deadlines and
brings changes of access to them. All of it runs on one event loop.
"""

import asyncio
import math
import random
import secrets
import time
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import structlog

from streaming.admission import QUERY_NAMES, Admission, AdmissionDesk, AdmissionRefused
from streaming.background import repeat
from streaming.carriers import Carriers
from streaming.core.codes import CloseCode, NoticeCode
from streaming.core.context import SessionContext
from streaming.core.errors import MessageRefused, RefreshRefused
from streaming.core.policy import ConnectionLimits
from streaming.core.ports import Receipt, Sink
from streaming.core.replies import FORMS, PROTOBUF
from streaming.core.routing import Route
from streaming.core.session import Session
from streaming.core.stream import StreamPosition
from streaming.fleet import Fleet
from streaming.limits import RuntimeLimits
from streaming.metrics import LATENCY_BUCKETS, Metrics, Sample, SharedSamples, render, samples_of
from streaming.peers import ConnectionPeer
from streaming.positions import Claim, PositionStore
from streaming.refusals import REFUSALS
from streaming.registry import Connection, Registry, StreamKey
from streaming.wire.http import BoundedHttpProtocol

log = structlog.get_logger(__name__)

_SWEEP_INTERVAL = 1.0
_KNOWN_CODES = frozenset({*map(int, CloseCode), *range(1000, 1016)})
# Seconds between two looks at everything that refreshes of unknown keys may ask for.
_LOOK_PAUSE = 3.0
# A drain lets go of this many connections a second at most, so that the rest of the cluster can take them in.
_DRAIN_RATE = 200.0


class ManagedSink(Sink, Protocol):
    """A sink with the life cycle that the runtime drives."""

    in_flight: int

    @property
    def failures(self) -> Mapping[tuple[str, str], int]:
        """Messages that were not recorded, by topic and reason."""

    def takes_user(self, key: bytes) -> bool:
        """False while a user with this key could only be sent away again."""

    def ill_parts(self) -> list[tuple[str, str]]:
        """What takes nothing while Kafka as a whole is there: topics, each with the number of a partition or ""."""

    def start(self) -> None: ...
    async def close(self, timeout: float) -> None: ...


class Runtime:
    """One per process; ``attach_sink`` first, then ``start``, in the end ``drain`` and ``stop``."""

    def __init__(
        self,
        *,
        routes: Mapping[str, Route],
        failed_topic: str,
        limits: RuntimeLimits,
        connection_limits: ConnectionLimits,
        registry: Registry,
        positions: PositionStore,
        fleet: Fleet,
        desk: AdmissionDesk,
        samples_folder: Path | None = None,
        process_index: int = 0,
    ) -> None:
        self.routes = routes
        self.limits = limits
        self.registry = registry
        self.positions = positions
        self.fleet = fleet
        self.directory = fleet.directory
        self.desk = desk
        self.metrics = Metrics()
        self.metrics.requests_cut = BoundedHttpProtocol.cut
        self.outbound_max_size = limits.outbound_max_size
        self.is_draining = False
        self._failed_topic = failed_topic
        self._connection_limits = connection_limits
        self._shared = SharedSamples(samples_folder, process_index)
        self._waiting: list[Session] = []
        self._urgent: list[Session] = []
        self._ack_timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._loop_lag = 0.0
        self._swept_at = time.monotonic()
        self._looked_at = -math.inf
        self.carriers = Carriers(registry, positions)
        fleet.on_stream_claimed(self.carriers.heard)

    def attach_sink(self, sink: ManagedSink) -> None:
        """Completes the wiring: the sink's callbacks are methods of this runtime, so it is made after it."""
        self.sink = sink
        self.desk.takes_user = lambda user_id: sink.takes_user(user_id.encode())
        self.context = SessionContext(
            routes=self.routes,
            failed_topic=self._failed_topic,
            sink=sink,
            limits=self._connection_limits,
            schedule_ack=self.schedule_ack,
            on_abuse=self.fleet.on_abuse,
            refresh=self.refresh,
            current=self.carriers.current,
            on_restart=self.carriers.restarted,
        )

    def start(self) -> None:
        self.sink.start()
        self.fleet.start()
        self._tasks = [
            repeat("sweep", self._sweep_turn, _SWEEP_INTERVAL),
            repeat("positions", self.positions.flush, self.positions.interval),
        ]

    def problems(self) -> list[str]:
        """Why this process should get no new connections now; empty when it is ready."""
        problems = []
        if self.is_draining:
            problems.append("draining")
        if not self.sink.available:
            problems.append("kafka")
        if not self.directory.is_loaded:
            problems.append("database")
        return problems

    def ill_parts(self) -> list[str]:
        """What does not work for some although this process is ready for others, in words for an operator."""
        return [
            f"kafka topic {topic} partition {partition}" if partition else f"kafka topic {topic}"
            for topic, partition in self.sink.ill_parts()
        ]

    # --- Connections -------------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raises AdmissionRefused (503) while no connection can be served."""
        if self.is_draining:
            raise AdmissionRefused(503, "draining", "this process stops: connect again", retry_after=1)
        if not self.sink.available:
            raise AdmissionRefused(503, "backend_unavailable", "Kafka does not take messages now", retry_after=2)
        if not self.directory.is_loaded:
            raise AdmissionRefused(503, "identity_unavailable", "try again", retry_after=2)

    async def claim(self, admission: Admission) -> Claim | None:
        """The right to write the stream that the client has named; None when it has named none."""
        key = _stream_key(admission)
        return None if key is None else await self.carriers.claim(key)

    def open(self, admission: Admission, peer: ConnectionPeer, claim: Claim | None) -> Connection:
        """Registers an accepted connection in the place that ``admission`` reserved and welcomes its client.

        Whatever it raises, the place is given back and nothing of the connection is left.
        """
        try:
            connection, position_known = self._connection(admission, peer, claim)
            before = self.carriers.take(connection)
        except BaseException:
            self.give_up(admission)
            raise
        try:
            session, now_us = connection.session, time.time_ns() // 1000
            session.welcome(now_us, position_known=position_known, fence=connection.fence)
            if admission.has_unknown_names:
                reason = f"the query takes {', '.join(QUERY_NAMES)}: everything else in it is ignored"
                session.notice(NoticeCode.QUERY_UNKNOWN, reason, {})
            self.fleet.opened(connection, admission.access)
            self.carriers.settle(connection, before)
            if admission.form_name not in FORMS:
                session.end(CloseCode.UNSUPPORTED_PROTOCOL, f"offer one of: {', '.join(FORMS)}")
            elif self.is_draining:
                # Admitted before the drain began, which has its list of connections already.
                session.end(CloseCode.SERVICE_RESTART, "the gateway restarts", retry_after_ms=500, jitter_ms=1_000)
        except BaseException:
            self.close(connection, CloseCode.INTERNAL_ERROR)
            raise
        return connection

    def _connection(self, admission: Admission, peer: ConnectionPeer, claim: Claim | None) -> tuple[Connection, bool]:
        """A connection in the registry; whether it is known where its stream stands."""
        now, unix_now = time.monotonic(), time.time()
        policy, session_id = admission.policy, secrets.token_hex(8)
        key = _stream_key(admission)
        if key is not None and claim is not None:
            position, position_known = self.carriers.position(key, claim)
        else:
            # Nothing is kept of a stream that was not named: its messages must not pass for those of another one.
            position, position_known = StreamPosition(writer=f"~{session_id}"), False
        session = Session(
            self.context,
            session_id=session_id,
            policy=policy,
            bucket=admission.entry.bucket,
            conduct=admission.entry.conduct.of(admission.source, now),
            volume=admission.entry.company.volume,
            peer=peer,
            form=FORMS.get(admission.form_name) or FORMS[PROTOBUF],
            stream_id=admission.stream_id,
            stream_key=key,
            position=position,
            heard=admission.heard,
            account=admission.account if admission.is_named else "",
            is_bound=admission.is_bound,
        )
        expires_at = admission.claims.expires_at
        session.token_expires_at_ms = int(expires_at * 1000)
        connection = Connection(
            session=session,
            peer=peer,
            jti=admission.claims.jti,
            token_deadline=now + (expires_at - unix_now) + self.limits.token_grace,
            access_deadline=now + (admission.access.access_until - unix_now),
            stream=key,
            entry=admission.entry,
            api_key=admission.claims.api_key,
            username=admission.access.username,
            address=admission.address,
            account=admission.account if admission.is_named else "",
            source=admission.source,
            opened_at=unix_now,
            fence=claim.fence if claim is not None else 0,
        )
        return connection, position_known

    def give_up(self, admission: Admission) -> None:
        """The place that ``admission`` reserved is not needed."""
        admission.entry.release()
        self.fleet.released(admission.access.user_id, admission.access.company_id)

    def close(self, connection: Connection, code: int) -> None:
        """The connection is gone, for whichever reason."""
        connection.session.lost()
        self.registry.remove(connection, time.monotonic())
        self.fleet.closed(connection)
        # A client can send any of two thousand codes of its own.
        self.metrics.closes[code if code in _KNOWN_CODES else 0] += 1

    def refresh(self, session: Session, token: str) -> None:
        """Raises RefreshRefused; moves the deadline of the session's connection."""
        if not token:
            raise RefreshRefused("gateway.refresh needs the new token in its field token", fatal=True)
        try:
            claims = self.desk.verify(token)
        except AdmissionRefused as error:
            # An expired token is a slow client, anything else is no token of ours.
            raise RefreshRefused(error.detail, fatal=error.code != "token_expired") from None
        if (claims.user_id, claims.company_id) != (session.policy.user_id, session.policy.company_id):
            raise RefreshRefused("the token is another user's", fatal=True)
        connection = self.registry.connections[session.session_id]
        if claims.account and claims.account != connection.account:
            raise RefreshRefused(f"the token is for MT5 account {claims.account} alone: connect with it", fatal=False)
        if claims.api_key and connection.entry.api_keys.get(claims.api_key, 0.0) <= time.time():
            # Revoked, or so new that this process has not heard of it. The poll comes by itself as well.
            if time.monotonic() - self._looked_at >= _LOOK_PAUSE:
                self._looked_at = time.monotonic()
                self.directory.look_at_everything()
            raise RefreshRefused("the API key of this token is not known here: try again in a moment", fatal=False)
        self.registry.change_token(connection, claims.jti)
        connection.api_key = claims.api_key
        connection.token_deadline = time.monotonic() + (claims.expires_at - time.time()) + self.limits.token_grace
        session.token_expires_at_ms = int(claims.expires_at * 1000)

    # --- Delivery ----------------------------------------------------------------------------------------------------

    def on_delivered(self, batch: list[Receipt]) -> None:
        now = time.monotonic()
        latency = self.metrics.produce_latency
        counts, total = latency.counts, 0.0
        for session, sequence, received, route, _, size in batch:
            # One addition a bucket, without a call for each message.
            counts[bisect_left(LATENCY_BUCKETS, now - received)] += 1
            total += now - received
            try:
                if route is None:
                    session.kept(sequence)
                else:
                    route.acknowledged += 1
                    session.delivered(sequence, route.urgent, size)
            except Exception:
                # One session must not keep the reports from all others.
                log.exception("session_crashed", session_id=session.session_id)
        latency.total += total
        if self._urgent:
            urgent, self._urgent = self._urgent, []
            for session in urgent:
                self.carriers.current(session).flush_ack()

    def on_failed(self, batch: list[Receipt], reason: str) -> None:
        log.warning("messages_not_recorded", count=len(batch), reason=reason)
        for session, _sequence, _received, route, _, _ in batch:
            if route is not None:
                route.unrecorded += 1
            try:
                # The connection that carries the stream now has been told nothing of what it sent again.
                current = self.carriers.current(session)
                if current is not session:
                    current.end_unavailable(0)
                session.failed()
            except Exception:
                log.exception("session_crashed", session_id=session.session_id)

    def on_refused(self, batch: list[tuple[Receipt, MessageRefused]]) -> None:
        """Records that Kafka certainly does not have and never will, for a reason that concerns only them."""
        for (session, sequence, _received, route, _, _), error in batch:
            if route is not None:
                route.unrecorded += 1
            try:
                session.not_recorded(sequence, error, is_ordered=route is not None and route.urgent)
            except Exception:
                log.exception("session_crashed", session_id=session.session_id)

    def on_room(self) -> None:
        """The sink was full and has room again."""
        for connection in list(self.registry.connections.values()):
            connection.session.try_resume()

    def schedule_ack(self, session: Session, urgent: bool) -> None:
        if urgent:
            self._urgent.append(session)
        if not session.ack_waiting:
            session.ack_waiting = True
            self._waiting.append(session)
            if self._ack_timer is None:
                self._ack_timer = asyncio.get_running_loop().call_later(self.limits.ack_interval, self._flush_acks)

    def _flush_acks(self) -> None:
        self._ack_timer = None
        waiting, self._waiting = self._waiting, []
        for session in waiting:
            session.ack_waiting = False
            self.carriers.current(session).flush_ack()
            self.carriers.moved(session)

    # --- Time and change ---------------------------------------------------------------------------------------------

    async def _sweep_turn(self) -> None:
        now = time.monotonic()
        self._loop_lag = max(0.0, now - self._swept_at - _SWEEP_INTERVAL)
        self._swept_at = now
        self.sweep(now)
        self.fleet.judge()
        self.registry.forget_idle(now)
        self._shared.write(self.samples())

    def sweep(self, now: float) -> None:
        """Pings, and ends connections whose time or whose peer is over."""
        limits = self.limits
        for connection in list(self.registry.connections.values()):
            session = connection.session
            if session.closed:
                continue
            if now > connection.token_deadline:
                session.end(CloseCode.TOKEN_EXPIRED, "the token ran out: get a new one")
                continue
            if now > connection.access_deadline:
                session.end(CloseCode.PAYMENT_REQUIRED, REFUSALS["payment_required"][2])
                continue
            code = connection.peer.check(limits.ping_interval, limits.pong_timeout, limits.outbound_timeout)
            if code is not None:
                self.end_unresponsive(connection, code)

    def end_unresponsive(self, connection: Connection, code: CloseCode) -> None:
        reason = "the client does not read" if code is CloseCode.SLOW_CONSUMER else "no pong and no data"
        connection.session.end(code, reason, retry_after_ms=1_000, jitter_ms=2_000)

    # --- End ---------------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Lets every connection go, each with all its answers, spread so that nobody is stormed by reconnects."""
        self.is_draining = True
        deadline = time.monotonic() + self.limits.drain_timeout
        connections = list(self.registry.connections.values())
        random.shuffle(connections)
        spread = min(self.limits.drain_spread, self.limits.drain_timeout / 2, len(connections) / _DRAIN_RATE)
        log.info("drain_begins", connections=len(connections), spread_s=round(spread, 2))
        pause = spread / len(connections) if connections else 0.0
        jitter_ms = int(max(1.0, spread) * 1000)
        retiring = []
        for connection in connections:
            retiring.append(asyncio.ensure_future(self._retire(connection, deadline, jitter_ms)))
            await asyncio.sleep(pause)
        if retiring:
            await asyncio.wait(retiring)
        while self.registry.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        log.info("drain_ends", left=len(self.registry.connections), in_flight=self.sink.in_flight)

    async def _retire(self, connection: Connection, deadline: float, jitter_ms: int) -> None:
        session = connection.session
        session.stop_reading()
        while session.in_flight and not session.closed and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        session.flush_ack()
        session.end(CloseCode.SERVICE_RESTART, "the gateway restarts", retry_after_ms=500, jitter_ms=jitter_ms)

    async def stop(self) -> None:
        """Ends the background work; call it after ``drain``."""
        await self.sink.close(self.limits.drain_timeout)
        for task in self._tasks:
            task.cancel()
        # A flush that was under way puts back what it has not written.
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._flush_acks()
        await self.positions.close()
        await self.fleet.stop()
        self.directory.close()

    # --- Figures -----------------------------------------------------------------------------------------------------

    def samples(self) -> list[Sample]:
        """This process's counters as Prometheus samples."""
        gauges = {
            "gateway_connections": len(self.registry.connections),
            "gateway_in_flight_messages": self.sink.in_flight,
            "gateway_kafka_breaker_state": 0 if self.sink.available else 1,
            "gateway_loop_lag_seconds": self._loop_lag,
        }
        return samples_of(
            gauges, self.context.counts, self.routes, self.metrics, self.sink.ill_parts(), self.sink.failures
        )

    def exposition(self) -> bytes:
        """The Prometheus text of all processes behind this port."""
        return render(self._shared.read(self.samples()))


def _stream_key(admission: Admission) -> StreamKey | None:
    if not admission.stream_id:
        return None
    return admission.policy.user_id, admission.stream_id, admission.writer
