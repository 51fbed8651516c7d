"""What can still be told of a frame that cannot be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.gateway.v1 import envelope_pb2
from streaming.core.stream import SEQUENCE_LIMIT
from streaming.core.unread import read_sequence


@pytest.mark.parametrize(
    ("text", "sequence"),
    [
        ('{"message_type":"tick_data","sequence":2,"ticks":[{"symbol":"EURUSD","bid":1,1}]}', 2),
        ('{"ticks":[{"bid":1,1}],"sequence" : 17}', 17),
        ('{"sequence":"5","message_type":"tick_data"}', 5),
        ('{"sequence":5', 5),
        ('{"sequence":5.0,"ticks":[]}', 5),
        ('{"sequence":5.,', 5),
        ('{"sequence":5,"sequence":5', 5),
        # Nothing that is certain.
        ('{"sequence":5,"payload":{"sequence":6}', 0),
        ('{"comment":"\\"sequence\\":5", ', 0),
        ('{"sequence":5.5', 0),
        ('{"sequence":5.05', 0),
        ('{"sequence":5.0e3', 0),
        ('{"sequence":5e3', 0),
        ('{"sequence":-5', 0),
        ('{"sequence":true', 0),
        ('{"my_sequence":5', 0),
        ('{"sequence":9007199254740992', 0),
        ('{"sequence":99999999999999999999', 0),
        ("{", 0),
        ("", 0),
        ("[" * 60_000, 0),
        ('"sequence"' * 6_000, 0),
    ],
)
def test_sequence_is_read_out_of_broken_json_where_it_is_certain(text: str, sequence: int) -> None:
    assert read_sequence(text) == sequence


@given(sequence=st.integers(1, SEQUENCE_LIMIT), payload=st.binary(max_size=40), cut=st.integers(1, 30))
def test_sequence_is_read_out_of_an_envelope_that_breaks_behind_it(sequence: int, payload: bytes, cut: int) -> None:
    whole = envelope_pb2.MessageEnvelope(message_type="tick_data", payload=payload, sequence=sequence)
    data = whole.SerializeToString() + envelope_pb2.MessageEnvelope(session_id="s" * 40).SerializeToString()[:-cut]
    assert read_sequence(data) == sequence


@given(st.binary(max_size=200))
def test_any_bytes_give_a_sequence_in_range_or_none(data: bytes) -> None:
    assert 0 <= read_sequence(data) <= SEQUENCE_LIMIT
    assert 0 <= read_sequence(data.decode(errors="surrogateescape")) <= SEQUENCE_LIMIT


def test_endless_fields_are_not_walked_to_their_end() -> None:
    """Two bytes a field: a message of the largest size would have thirty thousand."""
    behind = envelope_pb2.MessageEnvelope(sequence=5).SerializeToString()
    assert read_sequence(b"\x38\x01" * 10 + behind) == 5
    assert read_sequence(b"\x38\x01" * 30_000 + behind) == 0
