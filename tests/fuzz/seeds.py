"""The named part of the corpus: ``python -m tests.fuzz.seeds`` writes it anew.

Inputs as tests.fuzz.frames reads them; those it found by itself lie beside them as ``found-*.bin``.
"""

from collections.abc import Iterator

from streaming.wire.frames import BINARY, CLOSE, PING, PONG, TEXT
from tests.fuzz.frames import CORPUS
from tests.support.frames import CONTINUATION, NO_MASK, client_frame

# Messages of 125, 300 and 1,000 bytes in up to eight fragments.
_SMALL, _MIDDLE, _LARGE = 0x3A, 0x3C, 0x3D
# One byte at a time; one cut; small and large pieces in turn, halted by each message; changing pieces, lazily.
_WAYS = (bytes((0xF0, 0, 0)), bytes((0x11, 0, 9)), bytes((0x26, 2, 40)), bytes((0x3B, 7, 77)))


def _close(code: int, reason: bytes = b"") -> bytes:
    return client_frame(CLOSE, code.to_bytes(2, "big") + reason)


def _fragments(opcode: int, *parts: bytes) -> bytes:
    return b"".join(
        client_frame(CONTINUATION if number else opcode, part, final=number == len(parts) - 1)
        for number, part in enumerate(parts)
    )


def _valid() -> Iterator[tuple[str, int, bytes]]:
    for size in (0, 1, 125):
        yield f"valid-binary-{size}", _SMALL, client_frame(BINARY, bytes(size))
        yield f"valid-text-{size}", _SMALL, client_frame(TEXT, b"t" * size)
    for size in (126, 300):
        yield f"valid-binary-{size}", _MIDDLE, client_frame(BINARY, b"b" * size)
    yield "valid-binary-1000", _LARGE, client_frame(BINARY, bytes(range(250)) * 4)
    yield "valid-text-of-every-width", _SMALL, client_frame(TEXT, "aé€\ud7ff\ue000\U00010000\U0010ffff".encode())
    yield "valid-no-mask-key", _SMALL, client_frame(TEXT, b"plain", key=NO_MASK)
    yield (
        "valid-length-wider-than-needed",
        _SMALL,
        client_frame(BINARY, b"wide", width=2) + client_frame(TEXT, b"wider", width=8),
    )
    yield "valid-messages", _SMALL, b"".join(client_frame(TEXT, str(number).encode()) for number in range(20))
    yield "valid-fragments-binary", _SMALL, _fragments(BINARY, b"\xff", b"", b"\xfe\xfd")
    yield "valid-fragments-text", _SMALL, _fragments(TEXT, b"one ", b"two ", b"three")
    yield "valid-fragments-empty", _SMALL, _fragments(TEXT, b"", b"", b"")
    yield "valid-fragments-split-character", _SMALL, _fragments(TEXT, *(bytes((part,)) for part in "€😀".encode()))
    yield "valid-fragments-at-their-limit", _SMALL, _fragments(BINARY, *[b"x"] * 8)
    yield "valid-fragments-at-the-size", _MIDDLE, _fragments(BINARY, b"x" * 299, b"y")
    yield (
        "valid-control-between-fragments",
        _SMALL,
        client_frame(TEXT, b"\xe2", final=False)
        + client_frame(PING, b"here?")
        + client_frame(CONTINUATION, b"\x82", final=False)
        + client_frame(PONG, b"")
        + client_frame(CONTINUATION, b"\xac")
        + client_frame(BINARY, b"next"),
    )
    for size in (0, 125):
        yield f"valid-ping-{size}", _SMALL, client_frame(PING, b"p" * size)
    yield "valid-pong-125", _SMALL, client_frame(PONG, b"p" * 125)
    yield "valid-close-empty", _SMALL, client_frame(BINARY, b"last") + client_frame(CLOSE)
    for code in (1000, 1014, 3000, 4999):
        yield f"valid-close-{code}", _SMALL, _close(code)
    yield "valid-close-with-reason", _SMALL, _close(1000, "goodbye €".encode()) + client_frame(BINARY, b"too late")
    yield "valid-close-inside-a-message", _SMALL, client_frame(TEXT, b"never", final=False) + _close(1001)
    yield "valid-close-125", _SMALL, _close(1000, b"r" * 123)
    yield (
        "valid-large-ping-late-in-a-message",
        _SMALL,
        client_frame(BINARY, b"x" * 120, final=False) + client_frame(PING, b"p" * 60),
    )


def _violations() -> Iterator[tuple[str, int, bytes]]:
    for bit in (0x40, 0x20, 0x10, 0x70):
        yield f"violation-reserved-bits-{bit:02x}", _SMALL, client_frame(TEXT, b"x", reserved=bit)
    for opcode in (3, 7, 11, 15):
        yield f"violation-opcode-{opcode}", _SMALL, client_frame(opcode, b"x")
    for opcode in (BINARY, TEXT, PING, CLOSE):
        yield f"violation-no-mask-{opcode}", _SMALL, client_frame(opcode, b"ab", key=None)
    for opcode in (PING, PONG, CLOSE):
        yield f"violation-control-126-{opcode}", _MIDDLE, client_frame(opcode, b"x" * 126)
        yield f"violation-control-fragment-{opcode}", _SMALL, client_frame(opcode, b"", final=False)
    yield "violation-continuation-first", _SMALL, client_frame(CONTINUATION, b"x")
    yield "violation-continuation-after-the-last", _SMALL, _fragments(BINARY, b"a", b"b") + client_frame(CONTINUATION)
    for opcode in (TEXT, BINARY):
        yield (
            f"violation-beginning-inside-{opcode}",
            _SMALL,
            client_frame(TEXT, b"a", final=False) + client_frame(opcode),
        )
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535):
        yield f"violation-close-{code}", _SMALL, _close(code)
    yield "violation-close-1-byte", _SMALL, client_frame(CLOSE, b"\x03")
    yield "violation-close-reason", _SMALL, _close(1000, b"\xff")
    yield "violation-close-reason-cut", _SMALL, _close(1000, b"\xe2\x82")
    yield "violation-close-code-and-reason", _SMALL, _close(1005, b"\xff")
    for name, text in {
        "stray": b"a\x80",
        "overlong": b"\xc0\x80",
        "surrogate": b"\xed\xa0\x80",
        "too-high": b"\xf4\x90\x80\x80",
        "cut": b"a\xe2\x82",
    }.items():
        yield f"violation-text-{name}", _SMALL, client_frame(TEXT, text)
        yield f"violation-text-{name}-in-fragments", _SMALL, _fragments(TEXT, *(bytes((part,)) for part in text))
    yield "violation-text-cut-before-an-empty-end", _SMALL, _fragments(TEXT, b"\xf0\x9f", b"")
    yield "violation-message-126", _SMALL, client_frame(BINARY, bytes(126))
    yield "violation-message-301", _MIDDLE, client_frame(BINARY, bytes(301))
    yield "violation-fragments-126", _SMALL, _fragments(BINARY, bytes(100), bytes(26))
    yield "violation-fragments-9", _SMALL, _fragments(BINARY, *[b""] * 9)
    for name, size in {"2-63-less-1": (1 << 63) - 1, "2-63": 1 << 63, "2-64-less-1": (1 << 64) - 1}.items():
        yield f"violation-length-{name}", _LARGE, client_frame(BINARY, b"", size=size)
        yield f"violation-length-{name}-of-a-ping", _LARGE, client_frame(PING, b"", size=size)


def _unfinished() -> Iterator[tuple[str, int, bytes]]:
    frame = client_frame(BINARY, b"x" * 300, width=8)
    for size in (0, 1, 2, 9, 10, 13, 14, 313):
        yield f"unfinished-{size}", _MIDDLE, frame[:size]
    yield "unfinished-message", _SMALL, client_frame(TEXT, b"begun", final=False)
    yield "unfinished-character", _SMALL, client_frame(TEXT, b"\xf0\x9f", final=False)


def seeds() -> dict[str, bytes]:
    """By name; each takes another way to cut its stream than the one before."""
    found: dict[str, bytes] = {}
    for part in (_valid(), _violations(), _unfinished()):
        for name, limits, stream in part:
            found[name] = bytes((limits,)) + _WAYS[len(found) % len(_WAYS)] + stream
    return found


def main() -> None:
    CORPUS.mkdir(exist_ok=True)
    for name, data in seeds().items():
        (CORPUS / f"{name}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
