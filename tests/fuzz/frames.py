"""Fuzzes the reader of frames, without a network: ``python -m tests.fuzz.frames --executions N``.

An input is four bytes that choose limits and chunks (``Case``), then what a client sends. ``run_one`` holds the
reader to its own promises, ``compare_one`` to what the websockets library makes of the same bytes.
"""

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from streaming.wire.frames import (
    ABUSE,
    BINARY,
    CLOSE,
    INVALID_DATA,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    FrameError,
    FrameReader,
)
from tests.support.frames import CONTINUATION, NO_MASK, Event, RecordingTaker, client_frame

CORPUS = Path(__file__).parent / "corpus"
CODES = frozenset({PROTOCOL_ERROR, INVALID_DATA, TOO_BIG, ABUSE})
# Bytes; larger inputs are run but not kept.
KEPT_MAX_SIZE = 4_000
_HEAD_SIZE = 4
_MESSAGE_LIMITS = (1, 16, 125, 126, 300, 1_000, 1_000, 70_000)
# The largest head, and a control frame that waits for its end inside of a message at its limit.
_HELD_BESIDE = 14 + 125
_NO_TURN_LIMIT = 1 << 40
_CONTROL = ("ping", "pong", "close")

# What came out, in order: its kind, then all that is known of it.


@dataclass(frozen=True, slots=True)
class Case:
    """The first four bytes of an input."""

    message_limit: int
    fragment_limit: int
    # Frames a run.
    turn: int
    # The reader is halted by every message and continued by the next run.
    halts: bool
    # One run for each chunk, although more may be there.
    is_lazy: bool
    way: int
    first: int
    second: int

    @classmethod
    def of(cls, data: bytes) -> "Case":
        limits, run, first, second = data[:_HEAD_SIZE].ljust(_HEAD_SIZE, b"\0")
        return cls(
            message_limit=_MESSAGE_LIMITS[limits & 7],
            fragment_limit=1 + (limits >> 3 & 7),
            turn=1 + (run >> 4),
            halts=bool(run & 4),
            is_lazy=bool(run & 8),
            way=run & 3,
            first=first,
            second=second,
        )

    def chunks(self, stream: bytes) -> Iterator[bytes]:
        """The stream in pieces: all of one size, two, of two sizes in turn, or of changing sizes."""
        size, position, first, second = len(stream), 0, self.first, self.second
        if self.way == 0:
            step = 1 + first % 16
            for position in range(0, size, step):
                yield stream[position : position + step]
        elif self.way == 1:
            cut = (first << 8 | second) % (size + 1)
            yield stream[:cut]
            yield stream[cut:]
        elif self.way == 2:
            step, other = 1 + first % 8, 1 + second
            while position < size:
                yield stream[position : position + step]
                position += step
                step, other = other, step
        else:
            state = first << 8 | second
            while position < size:
                state = state * 75 % 65_537
                step = 1 + state % 48
                yield stream[position : position + step]
                position += step


class Taker(RecordingTaker):
    """Reads a case."""

    def __init__(self, case: Case, *, halts: bool = False) -> None:
        super().__init__(message_size_limit=case.message_limit, fragment_limit=case.fragment_limit, halts=halts)
        # The number of events up to the close frame of the client.
        self.closed_at: int | None = None

    def take_close(self, code: int, reason: str, payload: bytes) -> None:
        super().take_close(code, reason, payload)
        self.closed_at = len(self.events)

    def feed(self, data: bytes) -> FrameError | None:
        """Reads all of it."""
        try:
            self.reader.feed(data)
            self.reader.run(_NO_TURN_LIMIT)
        except FrameError as error:
            return error
        return None


@dataclass(frozen=True, slots=True)
class Outcome:
    events: list[Event]
    error: FrameError | None
    is_closed: bool
    # The bytes of a frame and the message that wait for their rest.
    tail: bytes
    parts: tuple[bytes, ...] | None


def _outcome(taker: Taker, error: FrameError | None) -> Outcome:
    """Also checks the end of a reading."""
    events, reader = taker.events, taker.reader
    if error is not None:
        assert taker.closed_at is None, "an error after the close frame"
        assert error.code in CODES, f"failed with {error.code}"
        assert (error.code == INVALID_DATA) or not events or events[-1][0] != "invalid text"
        return Outcome(events, error, False, b"", None)
    assert not events or events[-1][0] != "invalid text", "text that is not UTF-8 was accepted"
    if taker.closed_at is not None:
        reader.feed(b"\x82\x80\0\0\0\0\x89\x80\0\0\0\0")
        reader.run(8)
        assert taker.closed_at == len(events), "something was delivered after the close frame"
        return Outcome(events, None, True, b"", None)
    return Outcome(events, None, False, bytes(reader._tail or b""), tuple(reader._parts) if reader._parts else None)


def _read_whole(case: Case, stream: bytes) -> Outcome:
    taker = Taker(case)
    return _outcome(taker, taker.feed(stream))


def _check_held(reader: FrameReader, case: Case, unread: int) -> None:
    """Of ``unread`` bytes that came since the reader said that it has nothing left to read."""
    size = len(reader._data) - reader._position
    if reader._tail is not None:
        size += len(reader._tail)
    parts = reader._parts
    if parts is not None:
        assert len(parts) <= case.fragment_limit, "more fragments held than allowed"
        size += sum(map(len, parts))
    bound = case.message_limit + _HELD_BESIDE + unread
    assert size <= bound, "more held than the limit and the chunks at hand"
    # What has been read of a chunk is let go with the last of it.
    assert reader._position < bound, "more held of what has been read than the chunks at hand"


def _read_chunks(case: Case, stream: bytes) -> Outcome:
    taker = Taker(case, halts=case.halts)
    reader, events, turn = taker.reader, taker.events, case.turn
    unread = 0
    try:
        for chunk in case.chunks(stream):
            reader.feed(chunk)
            unread += len(chunk)
            _check_held(reader, case, unread)
            more = True
            while more:
                before = len(events)
                if taker.closed_at is None:
                    reader.halted = False
                more = reader.run(turn)
                assert len(events) - before <= turn, "more frames read than one run may"
                _check_held(reader, case, unread)
                if not more:
                    unread = 0
                elif case.is_lazy or taker.closed_at is not None:
                    break
        while taker.closed_at is None and unread:
            reader.halted = False
            if not reader.run(turn):
                break
    except FrameError as error:
        return _outcome(taker, error)
    return _outcome(taker, None)


def examine(data: bytes) -> Outcome:
    """``run_one`` with what came out of it."""
    case, stream = Case.of(data), data[_HEAD_SIZE:]
    whole, chunked = _read_whole(case, stream), _read_chunks(case, stream)
    assert whole.events == chunked.events, "the events depend on the chunks"
    first, second = whole.error, chunked.error
    assert (first and (first.code, first.reason)) == (second and (second.code, second.reason)), (
        "the error depends on the chunks"
    )
    assert whole.is_closed == chunked.is_closed
    assert (whole.tail, whole.parts) == (chunked.tail, chunked.parts), "what is left depends on the chunks"
    return whole


def run_one(data: bytes) -> None:
    """Raises AssertionError, or whatever the reader lets out that is no FrameError."""
    examine(data)


# --- Against websockets ----------------------------------------------------------------------------------------------


class _PeerFailure(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _is_begun_utf8(data: bytes, *, is_last: bool) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        # The incremental decoder of Python waits for the third byte of a surrogate before it refuses it.
        is_surrogate = len(data) == error.start + 2 and data[-2] == 0xED and 0xA0 <= data[-1] <= 0xBF
        return not is_last and (is_surrogate or error.reason == "unexpected end of data")
    return True


def _peer_events(frames: Iterable[Frame], fragment_limit: int, events: list[Event]) -> None:
    """Messages from the frames of the peer, which checks neither text nor the number of fragments."""
    parts: list[bytes] = []
    is_text = False
    for frame in frames:
        payload = bytes(frame.data)
        if frame.opcode is Opcode.PING:
            events.append(("ping", payload))
        elif frame.opcode is Opcode.PONG:
            events.append(("pong",))
        elif frame.opcode is Opcode.CLOSE:
            close = Close.parse(payload)
            events.append(("close", int(close.code), close.reason, payload))
        else:
            is_text = frame.opcode is Opcode.TEXT if frame.opcode is not Opcode.CONT else is_text
            parts.append(payload)
            is_whole = frame.fin and frame.opcode is not Opcode.CONT
            if len(parts) > fragment_limit and not is_whole:
                raise _PeerFailure(ABUSE)
            message = b"".join(parts)
            if is_text and not _is_begun_utf8(message, is_last=frame.fin):
                events.append(("invalid text", message))
                raise _PeerFailure(INVALID_DATA)
            if frame.fin:
                events.append(("message", message.decode() if is_text else message))
                parts = []


class _Peer:
    """websockets on a connection after its handshake."""

    def __init__(self, case: Case, stream: bytes) -> None:
        self.protocol = ServerProtocol(state=OPEN, max_size=case.message_limit)
        if stream:
            self.protocol.receive_data(stream)
        self.events: list[Event] = []
        self.code: int | None = None
        try:
            _peer_events(
                [event for event in self.protocol.events_received() if isinstance(event, Frame)],
                case.fragment_limit,
                self.events,
            )
        except _PeerFailure as failure:
            self.code = failure.code
            return
        received = self.protocol.close_rcvd
        if isinstance(self.protocol.parser_exc, ProtocolError) and received is not None:
            # It refuses a close frame inside of a message; a control frame may stand there (RFC 6455, 5.4 and 5.5).
            self.events.append(("close", int(received.code), received.reason))
        else:
            self.code = self.failed_code()

    def failed_code(self) -> int | None:
        protocol = self.protocol
        if protocol.parser_exc is None:
            return None
        assert protocol.close_sent is not None
        return int(protocol.close_sent.code)

    @property
    def is_closed(self) -> bool:
        return bool(self.events) and self.events[-1][0] == "close"

    def room_refused(self, limit: int) -> bool:
        """Whether it failed a frame that fits a message but not the rest of the one at hand."""
        error = self.protocol.parser_exc
        return (
            self.code == TOO_BIG
            and isinstance(error, PayloadTooBig)
            and self.protocol.current_size is not None
            and error.size is not None
            and error.size <= limit
        )


def compare_one(data: bytes) -> None:
    """Raises AssertionError where the reader and websockets differ, but for what is known:

    - a close frame inside of a message, which websockets refuses;
    - a control frame inside of a message that is larger than what is left of the limit: too big for websockets;
    - a close frame with a wrong code and a reason that is not UTF-8 has both faults, either may be named;
    - one may fail a frame before all of it is there and the other only then.
    """
    case, stream = Case.of(data), data[_HEAD_SIZE:]
    taker = Taker(case)
    error = taker.feed(stream)
    peer = _Peer(case, stream)
    rest = bytes(_HELD_BESIDE + case.message_limit)
    is_refused_for_room = peer.room_refused(case.message_limit)
    if error is None and peer.code is not None and taker.closed_at is None:
        error = taker.feed(rest)
    elif error is not None and peer.code is None and not peer.is_closed:
        peer.protocol.receive_data(rest)
        peer.code = peer.failed_code()
    count = len(peer.events)
    ours = [event[:3] for event in taker.events]
    theirs = [event[:3] for event in peer.events]
    assert ours[:count] == theirs, f"other events: {ours!r} against {theirs!r}"
    if is_refused_for_room and (error is None or error.code != TOO_BIG or len(ours) > count):
        is_control = ours[count][0] in _CONTROL if len(ours) > count else error is not None
        assert is_control, "websockets found it too big"
        return
    assert len(ours) == count, f"more events: {ours[count:]!r}"
    code = None if error is None else error.code
    if code == PROTOCOL_ERROR and peer.code == INVALID_DATA:
        assert error is not None
        assert error.reason == "a close code that does not exist"
        return
    assert code == peer.code, f"failed with {code} against {peer.code}"


# --- Inputs ----------------------------------------------------------------------------------------------------------

_TEXTS = ("", "a", "tick", "é", "€", "\ud7ff", "\ue000", "\U00010000", "\U0010ffff", "日本", '{"bid": 1.08}', "\0")
_BROKEN_TEXTS = (
    b"\x80", b"\xff", b"\xc0\x80", b"\xc3", b"\xe2\x82", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xed\xbf\xbf",
    b"\xf0\x9f\x98", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"a\xe2\x28\xa1",
)  # fmt: skip
_CLOSE_CODES = (
    0, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 1016,
    2999, 3000, 3999, 4000, 4508, 4999, 5000, 65_535,
)  # fmt: skip
_EDGES = (0, 1, 2, 124, 125, 126, 127, 200)
_BYTES = (0x00, 0x01, 0x7F, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0xFE, 0xFF)


def _size(generator: random.Random, limit: int) -> int:
    roll = generator.random()
    if roll < 0.8:
        return int(roll * roll * 40)
    if roll < 0.93:
        return generator.choice(_EDGES)
    if limit <= 1_000:
        return max(0, limit + generator.randrange(-2, 3))
    return 65_534 + generator.randrange(4) if roll > 0.9995 else generator.randrange(400)


def _text(generator: random.Random, size: int) -> bytes:
    text = b""
    while len(text) < size:
        text += generator.choice(_TEXTS).encode() or b"."
    if generator.random() < 0.12:
        cut = generator.randrange(len(text) + 1)
        text = text[:cut] + generator.choice(_BROKEN_TEXTS) + text[cut:]
    return text


def _key(generator: random.Random) -> bytes:
    return NO_MASK if generator.random() < 0.6 else generator.randbytes(4)


def _control(generator: random.Random) -> bytes:
    roll = generator.random()
    if roll < 0.75:
        opcode = PING if roll < 0.4 else PONG
        size = generator.choice(_EDGES) if roll < 0.05 else int(roll * 12)
        return client_frame(opcode, generator.randbytes(size), key=_key(generator))
    if roll < 0.8:
        return client_frame(CLOSE, generator.randbytes(generator.randrange(4)), key=_key(generator))
    reason = _text(generator, generator.choice((0, 0, 3, 12, 118)))
    return client_frame(CLOSE, generator.choice(_CLOSE_CODES).to_bytes(2, "big") + reason, key=_key(generator))


def _faulty(generator: random.Random, payload: bytes) -> bytes:
    """A frame with one or two faults in its head, or with a length that takes more bytes than it needs."""
    kind = generator.randrange(6)
    opcode = generator.choice((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
    if kind == 0:
        return client_frame(opcode, payload, reserved=generator.randrange(1, 8) << 4)
    if kind == 1:
        return client_frame(generator.randrange(16), payload)
    if kind == 2:
        return client_frame(opcode, payload, key=None)
    if kind == 3:
        return client_frame(opcode, payload, final=generator.random() < 0.5)
    if kind == 4:
        return client_frame(opcode, payload, width=generator.choice((2, 8)))
    size = generator.choice((0, 125, 126, 65_535, 65_536, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1))
    return client_frame(opcode, payload, size=size)


def _stream(generator: random.Random, limit: int) -> bytes:
    """A client that keeps the rules but for a faulty frame now and then."""
    frames: list[bytes] = []
    for _ in range(1 + int(generator.random() * 5)):
        roll = generator.random()
        if roll < 0.25:
            frames.append(_control(generator))
            continue
        size = _size(generator, limit)
        if roll < 0.31:
            frames.append(_faulty(generator, generator.randbytes(size)))
            continue
        opcode = TEXT if roll < 0.7 else BINARY
        payload = _text(generator, size) if opcode == TEXT else generator.randbytes(size)
        count = 1 if generator.random() < 0.5 else generator.randrange(2, 6) if roll < 0.95 else generator.randrange(10)
        cuts = sorted(generator.randrange(len(payload) + 1) for _ in range(count - 1))
        edges = [0, *cuts, len(payload)]
        for number in range(len(edges) - 1):
            part = payload[edges[number] : edges[number + 1]]
            is_final = number == len(edges) - 2
            frames.append(
                client_frame(opcode if not number else CONTINUATION, part, final=is_final, key=_key(generator))
            )
            if not is_final and generator.random() < 0.2:
                frames.append(_control(generator))
    return b"".join(frames)


def mutate(generator: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to four random changes."""
    for _ in range(1 + int(generator.random() ** 2 * 4)):
        size = len(data)
        position = int(generator.random() * size)
        kind = int(generator.random() * 8)
        if kind == 0 and size:
            data = data[:position] + bytes((data[position] ^ 1 << generator.randrange(8),)) + data[position + 1 :]
        elif kind == 1 and size:
            data = data[:position] + bytes((generator.choice(_BYTES),)) + data[position + 1 :]
        elif kind == 2:
            data = data[:position]
        elif kind == 3:
            data = data[:position] + generator.randbytes(1 + int(generator.random() * 4)) + data[position:]
        elif kind == 4:
            data = data[: position + 1 + int(generator.random() * 12)] + data[position:]
        elif kind == 5:
            data = data[:position] + data[position + 1 + int(generator.random() * 8) :]
        elif kind == 6 and size:
            # Often a length.
            changed = (data[position] + generator.choice((-1, 1, 2, 126))) % 256
            data = data[:position] + bytes((changed,)) + data[position + 1 :]
        elif others:
            other = generator.choice(others)
            data = data[:position] + other[int(generator.random() * len(other)) :]
    return data


def generate(generator: random.Random, pool: Sequence[bytes] = ()) -> bytes:
    """An input: built from frames, changed from one of ``pool``, or noise."""
    roll = generator.random()
    if roll < 0.05:
        return generator.randbytes(generator.randrange(80))
    head = generator.randbytes(_HEAD_SIZE)
    if roll < 0.4 and pool:
        data = mutate(generator, generator.choice(pool), pool)
        return head + data[_HEAD_SIZE:] if generator.random() < 0.3 else data
    stream = _stream(generator, _MESSAGE_LIMITS[head[0] & 7])
    return head + (stream if roll < 0.65 else mutate(generator, stream))


# --- The run ---------------------------------------------------------------------------------------------------------


def features(data: bytes, outcome: Outcome) -> set[tuple[object, ...]]:
    """What is worth keeping an input for: which event follows which, the end, and what is left."""
    case = Case.of(data)
    found: set[tuple[object, ...]] = set()
    last: tuple[object, ...] = ("begin",)
    for event in outcome.events:
        content = event[1] if len(event) > 1 else b""
        kind = (
            event[0],
            content if isinstance(content, int) else (type(content).__name__, min(len(content).bit_length(), 8)),
        )
        found.add((last, kind))
        last = kind
    error = outcome.error
    end: tuple[object, ...] = ("open", outcome.is_closed)
    if error is not None:
        end = (error.code, "".join(letter for letter in error.reason if not letter.isdigit()))
    found.add((last[0], end, case.way, case.halts, case.is_lazy))
    found.add((end, len(outcome.tail).bit_length(), None if outcome.parts is None else len(outcome.parts)))
    return found


@dataclass
class Report:
    executions: int = 0
    compared: int = 0
    seconds: float = 0.0
    findings: list[tuple[bytes, str]] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)

    @property
    def line(self) -> str:
        rate = self.executions / self.seconds if self.seconds else 0.0
        return (
            f"{self.executions:,} executions, {self.compared:,} of them compared, in {self.seconds:,.1f} s: "
            f"{rate:,.0f} a second, {len(self.findings)} findings, {len(self.kept)} new inputs"
        )


def corpus() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))]


def fuzz(executions: int, *, seed: int, compare_every: int, show_every: int = 0) -> Report:
    """``compare_every``: which part of the inputs is compared as well, 0 for none."""
    generator, report = random.Random(seed), Report()
    pool = corpus()
    seen: set[tuple[object, ...]] = set()
    for data in pool:
        seen |= features(data, examine(data))
    begun = time.perf_counter()
    for number in range(1, executions + 1):
        data = generate(generator, pool)
        try:
            found = features(data, examine(data))
            if compare_every and number % compare_every == 0:
                report.compared += 1
                compare_one(data)
        except Exception as error:
            report.findings.append((data, f"{type(error).__name__}: {error}"))
            sys.stderr.write(f"finding: {report.findings[-1][1]}\n  {data.hex()}\n")
        else:
            if not found <= seen and len(data) <= KEPT_MAX_SIZE:
                seen |= found
                pool.append(data)
                report.kept.append(data)
        if number == executions or (show_every and number % show_every == 0):
            report.executions, report.seconds = number, time.perf_counter() - begun
            if number < executions:
                sys.stdout.write(report.line + "\n")
                sys.stdout.flush()
    return report


def write_inputs(folder: Path, prefix: str, inputs: Iterable[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / f"{prefix}-{hashlib.sha256(data).hexdigest()[:12]}.bin").write_bytes(data)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.frames", description=__doc__)
    parser.add_argument("--executions", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compare-every", type=int, default=20, metavar="K", help="0 compares nothing (default: 20)")
    parser.add_argument("--show-every", type=int, default=200_000, metavar="N", help="a line each N executions")
    parser.add_argument(
        "--keep", type=Path, default=Path(".cache/fuzz/frames"), help="folder for new inputs (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    report = fuzz(
        options.executions,
        seed=options.seed,
        compare_every=options.compare_every,
        show_every=options.show_every,
    )
    write_inputs(options.keep, "found", report.kept)
    write_inputs(options.keep, "finding", (data for data, _ in report.findings))
    sys.stdout.write(f"{report.line} (kept in {options.keep})\n")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
