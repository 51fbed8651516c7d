"""Frames of a client as bytes, valid or with exactly the fault asked for, and a reader whose events are kept."""

from websockets.utils import apply_mask

from streaming.wire.frames import FrameReader

Event = tuple[bytes | str | int, ...]

CONTINUATION = 0x0
NO_MASK = bytes(4)


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    reserved: int = 0,
    key: bytes | None = b"\x37\xfa\x21\x3d",
    size: int | None = None,
    width: int = 0,
) -> bytes:
    """``key`` None: not masked. ``size``: what the head says instead of the truth. ``width``: bytes of the extended
    length, 2 or 8; the fewest that hold it when they are not given or too few."""
    declared = len(payload) if size is None else size
    masked = 0 if key is None else 0x80
    first = (0x80 if final else 0) | reserved | opcode
    if (not width and declared > 125) or (width == 2 and declared > 65_535):
        width = 2 if declared < 65_536 else 8
    if width:
        head = bytes((first, masked | (126 if width == 2 else 127))) + declared.to_bytes(width, "big")
    else:
        head = bytes((first, masked | declared))
    if key is None:
        return head + payload
    if key == NO_MASK:
        return head + key + payload
    return head + key + apply_mask(payload, key)


class RecordingTaker:
    """Writes down what its reader tells; with ``halts`` it stops the reader after each message."""

    def __init__(self, *, message_size_limit: int, fragment_limit: int, halts: bool = False) -> None:
        self.events: list[Event] = []
        self.halts = halts
        self.reader = FrameReader(
            self, self.take_message, message_size_limit=message_size_limit, fragment_limit=fragment_limit
        )

    def take_message(self, data: bytes | str) -> None:
        self.events.append(("message", data))
        if self.halts:
            self.reader.halted = True

    def take_invalid_text(self, data: bytes) -> None:
        self.events.append(("invalid text", data))

    def take_ping(self, payload: bytes) -> None:
        self.events.append(("ping", payload))

    def take_pong(self) -> None:
        self.events.append(("pong",))

    def take_close(self, code: int, reason: str, payload: bytes) -> None:
        self.events.append(("close", code, reason, payload))
