"""Answers that wait for a peer that does not read."""

from streaming.wire.outbox import Outbox


def test_frames_come_out_in_their_order_and_once() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.put(b"%d" % number)
    assert outbox.take() == b"012"
    assert (outbox.size, outbox.take()) == (0, b"")


def test_many_small_frames_count_for_more_than_their_bytes() -> None:
    outbox = Outbox()
    for _ in range(1_000):
        outbox.put(b"x" * 16)
    assert outbox.size > 3 * 16 * 1_000
