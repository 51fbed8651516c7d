"""What waits for a peer that does not read. Room: streaming.wire.

A transport keeps each write apart, at nearly a kilobyte beside its bytes, and takes as long to drop them: a megabyte of
short answers would be fifty. Here they wait together and are written as one.
"""

# Bytes that a frame takes in a list beside its own.
_OVERHEAD = 48


class Outbox:
    """Frames in their order; ``size`` in bytes, with what keeping them takes."""

    __slots__ = ("_frames", "size")

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self.size = 0

    def put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self.size += len(frame) + _OVERHEAD

    def take(self) -> bytes:
        """All of it, at once; it is empty then."""
        frames, self._frames, self.size = self._frames, [], 0
        return b"".join(frames)
