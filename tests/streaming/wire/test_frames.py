"""The reader of frames: what it delivers, what it refuses and with which code, at each limit and one above."""

import pytest

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
    encode_close,
    encode_frame,
)
from tests.support.frames import CONTINUATION, NO_MASK, RecordingTaker, client_frame

_ALL = 1 << 30
_TEXT_OF_EVERY_WIDTH = "aé€\ud7ff\ue000\U00010000\U0010ffff"
_BROKEN_TEXTS = {
    "a stray continuation byte": b"a\x80",
    "a byte that never occurs": b"\xff",
    "an overlong form": b"\xc0\x80",
    "an overlong form of three bytes": b"\xe0\x80\x80",
    "a surrogate": b"\xed\xa0\x80",
    "above the last code point": b"\xf4\x90\x80\x80",
    "an end inside of a character": b"tick \xe2\x82",
}


class Client(RecordingTaker):
    """A reader with limits, and all that came out of it."""

    def __init__(self, *, message_size_limit: int = 1_000, fragment_limit: int = 8, halts: bool = False) -> None:
        super().__init__(message_size_limit=message_size_limit, fragment_limit=fragment_limit, halts=halts)

    def send(self, *pieces: bytes) -> "Client":
        for piece in pieces:
            self.reader.feed(piece)
            self.reader.run(_ALL)
        return self

    @property
    def messages(self) -> list[object]:
        return [event[1] for event in self.events if event[0] == "message"]


def _fragments(opcode: int, *parts: bytes) -> list[bytes]:
    return [
        client_frame(CONTINUATION if number else opcode, part, final=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]


def _close(code: int, reason: bytes = b"") -> bytes:
    return client_frame(CLOSE, code.to_bytes(2, "big") + reason)


def _assert_refused(client: Client, *pieces: bytes, code: int) -> FrameError:
    with pytest.raises(FrameError) as raised:
        client.send(*pieces)
    assert raised.value.code == code
    assert raised.value.reason == str(raised.value)
    assert raised.value.retryable is False
    return raised.value


# --- Whole messages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_reader_delivers_a_whole_binary_message_of_each_form_of_length(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert Client(message_size_limit=65_536).send(client_frame(BINARY, payload)).messages == [payload]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_reader_delivers_a_whole_text_of_each_form_of_length(size: int) -> None:
    assert Client(message_size_limit=65_536).send(client_frame(TEXT, b"t" * size)).messages == ["t" * size]


def test_reader_delivers_text_of_characters_of_every_width() -> None:
    client = Client().send(client_frame(TEXT, _TEXT_OF_EVERY_WIDTH.encode()))
    assert client.messages == [_TEXT_OF_EVERY_WIDTH]


def test_reader_takes_a_byte_order_mark_as_part_of_the_text() -> None:
    assert Client().send(client_frame(TEXT, b"\xef\xbb\xbfa")).messages == ["\ufeffa"]


@pytest.mark.parametrize("key", [NO_MASK, b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"])
@pytest.mark.parametrize("size", [3, 4, 5, 17])
def test_reader_takes_off_any_mask(key: bytes, size: int) -> None:
    payload = bytes(range(size))
    assert Client().send(client_frame(BINARY, payload, key=key)).messages == [payload]


@pytest.mark.parametrize("width", [2, 8])
def test_reader_takes_a_length_that_is_wider_than_needed(width: int) -> None:
    client = Client().send(client_frame(BINARY, b"wide", width=width), client_frame(PING, b"too", width=width))
    assert client.events == [("message", b"wide"), ("ping", b"too")]


def test_reader_delivers_many_messages_of_one_chunk_in_their_order() -> None:
    stream = b"".join(client_frame(BINARY, bytes((number,))) for number in range(200))
    assert Client().send(stream).messages == [bytes((number,)) for number in range(200)]


# --- Chunks ----------------------------------------------------------------------------------------------------------


def _mixed_stream() -> bytes:
    begin, middle, end = _fragments(TEXT, b"\xe2", b"\x82", b"\xac")
    return b"".join(
        (
            client_frame(TEXT, "é first".encode()),
            client_frame(BINARY, bytes(130)),
            begin,
            client_frame(PING, b"here?"),
            middle,
            client_frame(PONG),
            end,
            client_frame(BINARY, b"wide", width=8),
            _close(1000, "goodbye €".encode()),
        )
    )


_MIXED_EVENTS = [
    ("message", "é first"),
    ("message", bytes(130)),
    ("ping", b"here?"),
    ("pong",),
    ("message", "€"),
    ("message", b"wide"),
    ("close", 1000, "goodbye €", b"\x03\xe8goodbye \xe2\x82\xac"),
]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 64, _ALL])
def test_reader_gives_the_same_events_for_chunks_of_any_size(step: int) -> None:
    stream = _mixed_stream()
    client = Client().send(*(stream[start : start + step] for start in range(0, len(stream), step)))
    assert client.events == _MIXED_EVENTS


def test_reader_gives_the_same_events_for_every_two_chunks() -> None:
    stream = _mixed_stream()
    for cut in range(len(stream) + 1):
        assert Client().send(stream[:cut], stream[cut:]).events == _MIXED_EVENTS, f"cut at {cut}"


def test_reader_gives_the_same_events_for_every_three_chunks() -> None:
    stream = client_frame(BINARY, bytes(126)) + client_frame(TEXT, b"a", final=False) + client_frame(CONTINUATION, b"b")
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            client = Client().send(stream[:first], stream[first:second], stream[second:])
            assert client.messages == [bytes(126), "ab"], f"cut at {first} and {second}"


def test_reader_ignores_an_empty_chunk() -> None:
    frame = client_frame(TEXT, b"whole")
    assert Client().send(b"", frame[:3], b"", frame[3:], b"").messages == ["whole"]


def test_reader_reads_chunks_that_came_before_it_ran() -> None:
    client = Client()
    frame = client_frame(TEXT, b"whole")
    for piece in (frame, frame[:1], frame[1:], frame[:8], frame[8:] + frame):
        client.reader.feed(piece)
    assert client.reader.run(_ALL) is False
    assert client.messages == ["whole"] * 4


def test_reader_delivers_nothing_of_a_frame_before_its_last_byte() -> None:
    frame = client_frame(BINARY, bytes(300))
    client = Client().send(*(frame[at : at + 1] for at in range(len(frame) - 1)))
    assert client.events == []
    assert client.send(frame[-1:]).messages == [bytes(300)]


# --- Fragments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opcode", "message"), [(BINARY, b"one two"), (TEXT, "one two")])
def test_reader_joins_fragments(opcode: int, message: bytes | str) -> None:
    client = Client().send(*_fragments(opcode, b"one", b" ", b"two"), *_fragments(opcode, b"", b"", b"one two"))
    assert client.messages == [message, message]


def test_reader_takes_control_frames_between_fragments_at_once() -> None:
    begin, middle, end = _fragments(BINARY, b"a", b"b", b"c")
    client = Client().send(begin, client_frame(PING, b"1"), middle, client_frame(PONG, b"2"), client_frame(PING), end)
    assert client.events == [("ping", b"1"), ("pong",), ("ping", b""), ("message", b"abc")]


def test_reader_takes_a_close_frame_between_fragments() -> None:
    client = Client().send(_fragments(TEXT, b"never", b"")[0], _close(1001))
    assert client.events == [("close", 1001, "", b"\x03\xe9")]


def test_reader_joins_a_character_that_is_split_over_fragments() -> None:
    parts = [bytes((byte,)) for byte in "€😀".encode()]
    assert Client().send(*_fragments(TEXT, *parts)).messages == ["€😀"]


def test_reader_starts_the_counts_anew_with_each_message() -> None:
    client = Client(message_size_limit=8, fragment_limit=2)
    for _ in range(3):
        client.send(*_fragments(BINARY, b"1234", b"5678"))
    client.send(client_frame(BINARY, b"12345678"))
    assert client.messages == [b"12345678"] * 4


# --- Limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 125, 126, 1_000, 65_535, 65_536])
@pytest.mark.parametrize("opcode", [BINARY, TEXT])
def test_message_of_the_limit_passes_and_one_byte_more_is_too_big(limit: int, opcode: int) -> None:
    client = Client(message_size_limit=limit).send(client_frame(opcode, b"m" * limit))
    assert len(client.messages) == 1
    _assert_refused(client, client_frame(opcode, b"m" * (limit + 1)), code=TOO_BIG)
    assert len(client.events) == 1


def test_fragments_of_the_limit_pass_and_one_byte_more_is_too_big() -> None:
    client = Client(message_size_limit=100).send(*_fragments(BINARY, bytes(60), bytes(39), b"x"))
    assert client.messages == [bytes(99) + b"x"]
    begin, middle, end = _fragments(BINARY, bytes(60), bytes(40), b"x")
    client.send(begin, middle)
    _assert_refused(client, end, code=TOO_BIG)
    assert len(client.events) == 1


def test_first_fragment_above_the_limit_is_too_big() -> None:
    _assert_refused(Client(message_size_limit=10), client_frame(TEXT, bytes(11), final=False), code=TOO_BIG)


def test_large_control_frame_passes_when_little_of_the_message_is_left() -> None:
    client = Client(message_size_limit=200).send(
        client_frame(BINARY, bytes(200), final=False), client_frame(PING, bytes(125)), client_frame(CONTINUATION)
    )
    assert client.events == [("ping", bytes(125)), ("message", bytes(200))]


def test_message_is_refused_as_too_big_before_any_of_it_came() -> None:
    head = client_frame(BINARY, bytes(1_001))[:4]
    client = Client().send(head[:3])
    _assert_refused(client, head[3:], code=TOO_BIG)


@pytest.mark.parametrize("size", [(1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("opcode", [BINARY, TEXT, PING, CLOSE])
def test_greatest_lengths_are_too_big(size: int, opcode: int) -> None:
    client = Client(message_size_limit=1 << 62)
    _assert_refused(client, client_frame(opcode, size=size), code=TOO_BIG)


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
def test_message_of_the_most_fragments_passes_and_one_more_is_abuse(opcode: int) -> None:
    client = Client(fragment_limit=4).send(*_fragments(opcode, *[b"x"] * 4))
    assert len(client.messages) == 1
    begin, *others = _fragments(opcode, *[b""] * 5)
    client.send(begin, *others[:3])
    _assert_refused(client, others[3], code=ABUSE)
    assert len(client.events) == 1


def test_control_frames_are_no_fragments() -> None:
    begin, end = _fragments(BINARY, b"a", b"b")
    client = Client(fragment_limit=2).send(begin, *[client_frame(PING)] * 10, end)
    assert client.messages == [b"ab"]


# --- Violations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0x40, 0x20, 0x10, 0x50, 0x70])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
def test_reserved_bits_are_refused(bits: int, opcode: int) -> None:
    _assert_refused(Client(), client_frame(opcode, reserved=bits), code=PROTOCOL_ERROR)


def test_reserved_bits_on_a_continuation_are_refused() -> None:
    client = Client().send(client_frame(TEXT, b"a", final=False))
    _assert_refused(client, client_frame(CONTINUATION, b"b", reserved=0x40), code=PROTOCOL_ERROR)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("final", [True, False])
def test_reserved_opcodes_are_refused(opcode: int, final: bool) -> None:
    _assert_refused(Client(), client_frame(opcode, b"x", final=final), code=PROTOCOL_ERROR)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
@pytest.mark.parametrize("size", [0, 2, 126])
def test_frames_without_a_mask_are_refused(opcode: int, size: int) -> None:
    _assert_refused(Client(), client_frame(opcode, bytes(size), key=None), code=PROTOCOL_ERROR)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_control_frame_of_126_bytes_is_refused_with_its_head(opcode: int) -> None:
    payload = b"\x03\xe8" + b"x" * 123
    assert len(Client().send(client_frame(opcode, payload)).events) == 1
    _assert_refused(Client(), client_frame(opcode, payload + b"x")[:4], code=PROTOCOL_ERROR)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_control_frame_in_fragments_is_refused(opcode: int) -> None:
    _assert_refused(Client(), client_frame(opcode, final=False), code=PROTOCOL_ERROR)


@pytest.mark.parametrize("final", [True, False])
def test_continuation_without_a_beginning_is_refused(final: bool) -> None:
    _assert_refused(Client(), client_frame(CONTINUATION, b"x", final=final), code=PROTOCOL_ERROR)
    client = Client().send(*_fragments(BINARY, b"a", b"b"))
    _assert_refused(client, client_frame(CONTINUATION, b"x", final=final), code=PROTOCOL_ERROR)
    assert client.messages == [b"ab"]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("final", [True, False])
def test_beginning_inside_of_a_message_is_refused(opcode: int, final: bool) -> None:
    client = Client().send(client_frame(TEXT, b"a", final=False))
    _assert_refused(client, client_frame(opcode, b"b", final=final), code=PROTOCOL_ERROR)
    assert client.events == []


def test_messages_before_a_violation_in_the_same_chunk_are_delivered() -> None:
    client = Client()
    stream = client_frame(BINARY, b"good") + client_frame(BINARY, b"bad", reserved=0x40) + client_frame(BINARY, b"late")
    _assert_refused(client, stream, code=PROTOCOL_ERROR)
    assert client.events == [("message", b"good")]


# --- Text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", _BROKEN_TEXTS.values(), ids=_BROKEN_TEXTS)
def test_whole_text_that_is_not_utf8_is_told_and_refused(text: bytes) -> None:
    client = Client()
    _assert_refused(client, client_frame(TEXT, text), code=INVALID_DATA)
    assert client.events == [("invalid text", text)]


@pytest.mark.parametrize("text", _BROKEN_TEXTS.values(), ids=_BROKEN_TEXTS)
def test_text_that_is_not_utf8_is_refused_over_any_two_fragments(text: bytes) -> None:
    for cut in range(len(text) + 1):
        client = Client()
        _assert_refused(client, *_fragments(TEXT, text[:cut], text[cut:]), code=INVALID_DATA)
        assert [event[0] for event in client.events] == ["invalid text"], f"cut at {cut}"


def test_text_is_refused_with_the_fragment_that_breaks_it() -> None:
    client = Client().send(client_frame(TEXT, b"ok \xf4", final=False))
    _assert_refused(client, client_frame(CONTINUATION, b"\x90", final=False), code=INVALID_DATA)
    assert client.events == [("invalid text", b"ok \xf4\x90")]


@pytest.mark.parametrize("end", [b"", b"a"])
def test_fragments_that_end_inside_of_a_character_are_refused(end: bytes) -> None:
    client = Client()
    _assert_refused(client, *_fragments(TEXT, b"\xf0\x9f\x98", end), code=INVALID_DATA)
    assert client.events == [("invalid text", b"\xf0\x9f\x98" + end)]


def test_binary_fragments_need_not_be_text() -> None:
    assert Client().send(*_fragments(BINARY, b"\xff", b"\xc0")).messages == [b"\xff\xc0"]


def test_text_after_a_message_in_fragments_begins_anew() -> None:
    client = Client().send(*_fragments(BINARY, b"\xe2", b"\x82"))
    _assert_refused(client, *_fragments(TEXT, b"\xac", b""), code=INVALID_DATA)


# --- Control frames --------------------------------------------------------------------------------------------------


def test_client_closes_without_a_code() -> None:
    assert Client().send(client_frame(CLOSE)).events == [("close", 1005, "", b"")]


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4508, 4999], ids=lambda code: str(code)
)
def test_client_closes_with_a_code_that_exists(code: int) -> None:
    client = Client().send(_close(code, "why €".encode()))
    assert client.events == [("close", code, "why €", code.to_bytes(2, "big") + "why €".encode())]


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535])
def test_close_code_that_does_not_exist_is_refused(code: int) -> None:
    client = Client()
    _assert_refused(client, _close(code, b"why"), code=PROTOCOL_ERROR)
    assert client.events == []


def test_close_frame_of_one_byte_is_refused() -> None:
    _assert_refused(Client(), client_frame(CLOSE, b"\x03"), code=PROTOCOL_ERROR)


@pytest.mark.parametrize("reason", _BROKEN_TEXTS.values(), ids=_BROKEN_TEXTS)
def test_close_reason_that_is_not_utf8_is_refused(reason: bytes) -> None:
    client = Client()
    _assert_refused(client, _close(1000, reason), code=INVALID_DATA)
    assert client.events == []


@pytest.mark.parametrize("late", [b"\x82", client_frame(BINARY, b"late"), b"\xff" * 40])
def test_reader_reads_nothing_behind_a_close_frame(late: bytes) -> None:
    client = Client().send(_close(1000) + late, late, late)
    assert client.events == [("close", 1000, "", b"\x03\xe8")]
    assert client.reader.halted


# --- Turns and halts -------------------------------------------------------------------------------------------------


def test_run_reads_no_more_frames_than_its_limit() -> None:
    client = Client()
    client.reader.feed(b"".join(client_frame(BINARY, bytes((number,))) for number in range(5)))
    assert client.reader.run(2) is True
    assert client.messages == [b"\0", b"\1"]
    assert client.reader.run(2) is True
    assert client.reader.run(2) is False
    assert client.messages == [bytes((number,)) for number in range(5)]


def test_run_counts_fragments_and_control_frames_as_frames() -> None:
    client = Client()
    begin, end = _fragments(TEXT, b"a", b"b")
    client.reader.feed(begin + client_frame(PING) + end)
    assert client.reader.run(1) is True
    assert client.events == []
    assert client.reader.run(1) is True
    assert client.events == [("ping", b"")]
    assert client.reader.run(1) is False
    assert client.messages == ["ab"]


def test_run_of_exactly_what_is_there_has_nothing_more() -> None:
    client = Client()
    client.reader.feed(client_frame(BINARY, b"a") * 3)
    assert client.reader.run(3) is False


def test_run_without_a_frame_to_read_has_nothing_more() -> None:
    client = Client()
    assert client.reader.run(1) is False
    client.reader.feed(b"\x82")
    assert client.reader.run(1) is False


def test_chunk_that_comes_between_runs_is_read_after_what_is_left() -> None:
    client = Client()
    frame = client_frame(BINARY, b"1")
    client.reader.feed(frame + frame + client_frame(BINARY, b"2")[:4])
    assert client.reader.run(1) is True
    client.reader.feed(client_frame(BINARY, b"2")[4:] + client_frame(BINARY, b"3"))
    assert client.reader.run(_ALL) is False
    assert client.messages == [b"1", b"1", b"2", b"3"]


def test_halted_reader_stops_behind_the_message_and_goes_on_where_it_stopped() -> None:
    client = Client(halts=True)
    client.reader.feed(client_frame(TEXT, b"1") + client_frame(TEXT, b"2") + client_frame(TEXT, b"3")[:5])
    assert client.reader.run(_ALL) is True
    assert client.messages == ["1"]
    assert client.reader.run(_ALL) is True
    assert client.messages == ["1"]
    client.reader.feed(client_frame(TEXT, b"3")[5:])
    for count in (2, 3):
        client.reader.halted = False
        client.reader.run(_ALL)
        assert len(client.messages) == count
    assert client.messages == ["1", "2", "3"]


def test_reader_halted_inside_of_a_message_joins_its_fragments_later() -> None:
    client = Client()
    begin, end = _fragments(TEXT, b"\xe2\x82", b"\xac")
    client.send(begin)
    client.reader.halted = True
    client.send(end[:3], end[3:])
    assert client.events == []
    client.reader.halted = False
    client.reader.run(_ALL)
    assert client.messages == ["€"]


def test_messages_go_to_the_one_who_takes_them_at_the_time() -> None:
    client = Client()
    later: list[bytes | str] = []
    client.reader.feed(client_frame(TEXT, b"1") + client_frame(TEXT, b"2"))
    client.reader.run(1)
    client.reader.deliver = later.append
    client.reader.run(1)
    assert (client.messages, later) == (["1"], ["2"])


def test_what_the_application_raises_comes_out_of_the_run() -> None:
    def crash(_data: bytes | str) -> None:
        raise ValueError("broken")

    client = Client()
    client.reader.deliver = crash
    with pytest.raises(ValueError, match="broken"):
        client.send(client_frame(TEXT, b"1"))


# --- Frames of the server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_server_writes_the_shortest_form_of_each_length(size: int, head: bytes) -> None:
    assert encode_frame(BINARY, bytes(size)) == head + bytes(size)


@pytest.mark.parametrize(("opcode", "first"), [(TEXT, 0x81), (CLOSE, 0x88), (PING, 0x89), (PONG, 0x8A)])
def test_server_writes_whole_frames_of_each_kind(opcode: int, first: int) -> None:
    assert encode_frame(opcode, b"x") == bytes((first, 1)) + b"x"


def test_server_closes_with_a_code_and_a_reason() -> None:
    assert encode_close(1000, "") == b"\x88\x02\x03\xe8"
    assert encode_close(4508, "é") == b"\x88\x04\x11\x9c\xc3\xa9"


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("r" * 123, "r" * 123),
        ("r" * 124, "r" * 123),
        ("r" * 5_000, "r" * 123),
        ("r" * 121 + "é", "r" * 121 + "é"),
        ("r" * 122 + "é", "r" * 122),
        ("r" * 120 + "€", "r" * 120 + "€"),
        ("r" * 121 + "€", "r" * 121),
        ("r" * 122 + "€", "r" * 122),
        ("r" * 120 + "😀", "r" * 120),
        ("😀" * 40, "😀" * 30),
    ],
)
def test_server_cuts_a_long_reason_between_characters(reason: str, kept: str) -> None:
    payload = b"\x03\xe8" + kept.encode()
    assert encode_close(1000, reason) == bytes((0x88, len(payload))) + payload
