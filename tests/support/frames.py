"""Frames of a client as bytes, valid or with exactly the fault that is asked for."""

from websockets.utils import apply_mask

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
