"""The rules of a stream against a slow model of them: one entry for each sequence, and nothing else."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streaming.core.codes import ACTIONS, NackCode
from streaming.core.refused import Refusal
from streaming.core.stream import Arrival, StreamPosition

RATE = Refusal(NackCode.RATE_LIMITED, ACTIONS[NackCode.RATE_LIMITED])
# What may be known of a sequence.
RECEIVED, RECORDED, REFUSED, SKIPPED = "received", "recorded", "refused", "skipped"
SETTLED = (RECORDED, REFUSED, SKIPPED)
NEAR = st.integers(-6, 6)


class StreamMachine(RuleBasedStateMachine):
    """Connections come and go, sequences arrive, are settled, fail, are heard of; a process is killed and another one
    reads what was written."""

    @initialize(start=st.integers(0, 3))
    def begin(self, start: int) -> None:
        self.position = StreamPosition(start)
        # All below the first one here are settled, and nothing more is known of them.
        self.fate: dict[int, str] = dict.fromkeys(range(1, start + 1), SKIPPED)
        self.heard = 0
        self.given_up: set[int] = set()

    def _acknowledged(self) -> int:
        sequence = 0
        while self.fate.get(sequence + 1) in SETTLED:
            sequence += 1
        return sequence

    def _expected(self) -> int:
        """Behind all that is received, but for what was settled ahead and must still be reached."""
        sequence = self._acknowledged() + 1
        while sequence in self.fate:
            sequence += 1
        return sequence

    @rule(offset=NEAR, first=st.booleans(), unread=st.integers(0, 2))
    def message_comes(self, offset: int, first: bool, unread: int) -> None:
        self.arrives(offset, first, unread)

    def arrives(self, offset: int, first: bool, unread: int) -> None:
        expected, acknowledged = self._expected(), self._acknowledged()
        sequence = max(1, expected + offset)
        missing = [s for s in range(expected, sequence) if s not in self.fate]
        arrival = self.position.arrive(sequence, first=first, unread=unread)
        fate = self.fate.get(sequence)
        if sequence == expected:
            assert arrival is Arrival.NEXT
            self.fate[sequence] = RECEIVED
        elif first and sequence <= acknowledged and sequence <= 1 + unread:
            assert arrival is Arrival.RESTART
        elif fate == REFUSED and sequence > self.heard:
            assert arrival is Arrival.REFUSED
        elif fate == RECEIVED:
            assert arrival is Arrival.PENDING
        elif fate is not None and not (fate == SKIPPED and sequence > expected):
            assert arrival is Arrival.DUPLICATE
        elif len(missing) <= unread:
            assert arrival is Arrival.EXPLAINED
            assert self.position.pass_over(sequence) == missing
            self.fate.update(dict.fromkeys([*missing, sequence], RECEIVED))
        elif first:
            assert arrival is Arrival.JUMP
            read = missing[len(missing) - unread :]
            assert self.position.jump(sequence, unread=unread) == read
            self.fate.update(dict.fromkeys(missing, SKIPPED))
            self.fate.update(dict.fromkeys(read, RECEIVED))
            self.fate[sequence] = RECEIVED
        else:
            assert arrival is Arrival.GAP

    @rule(count=st.integers(1, 5))
    def messages_come_in_order(self, count: int) -> None:
        for _ in range(count):
            self.arrives(0, False, 0)

    @rule(data=st.data(), count=st.integers(1, 4))
    def reports_come(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            received = sorted(s for s, fate in self.fate.items() if fate == RECEIVED)
            if not received:
                return
            sequence = data.draw(st.sampled_from(received))
            self.fate[sequence] = data.draw(st.sampled_from([RECORDED, REFUSED]))
            if self.fate[sequence] == REFUSED:
                self.position.refuse(sequence, RATE)
            else:
                self.position.settle(sequence)

    @rule()
    def kafka_fails(self) -> None:
        owed = sorted(s for s, fate in self.fate.items() if fate == RECEIVED)
        assert self.position.unsettled() == owed
        self.position.rewind()
        for sequence in owed:
            del self.fate[sequence]
        self.given_up.update(owed)

    @rule(data=st.data())
    def report_comes_after_all(self, data: st.DataObject) -> None:
        """Of another topic than the one that failed."""
        if self.given_up:
            sequence = data.draw(st.sampled_from(sorted(self.given_up)))
            self.position.settle(sequence)
            if self.fate.get(sequence) not in SETTLED:
                self.fate[sequence] = RECORDED

    @rule(upto=st.integers(0, 30))
    def client_hears(self, upto: int) -> None:
        self.position.forget(upto)
        self.heard = max(self.heard, min(upto, self._acknowledged()))

    @rule(ahead=st.integers(0, 4))
    def client_comes_back_and_has_heard(self, ahead: int) -> None:
        upto = self._acknowledged() + ahead
        self.position.hear(upto)
        self.fate.update({s: RECORDED for s in range(1, upto + 1) if self.fate.get(s) not in SETTLED})
        self.heard = max(self.heard, upto)

    @rule()
    def process_is_killed(self) -> None:
        self.position = StreamPosition.from_text(self.position.to_text())
        self.given_up = set()
        acknowledged = self._acknowledged()
        for sequence, fate in list(self.fate.items()):
            # Only the position and the refusals were written.
            if sequence > acknowledged and fate != REFUSED:
                del self.fate[sequence]

    @invariant()
    def everything_is_accounted_for(self) -> None:
        if not hasattr(self, "position"):
            return
        position = self.position
        assert position.acknowledged == self._acknowledged()
        assert position.expected == self._expected()
        refused = sorted(s for s, fate in self.fate.items() if fate == REFUSED and s > self.heard)
        assert sorted(position.refused) == refused
        assert [s for run in position.refused.runs() for s in range(run.first, run.last + 1)] == refused


StreamMachine.TestCase.settings = settings(max_examples=800, stateful_step_count=30, deadline=None)
TestStream = StreamMachine.TestCase
