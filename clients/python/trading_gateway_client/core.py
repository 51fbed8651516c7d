"""The client's rules, without sockets, clocks or tasks: what is sent when, and what an answer means. Pure.

Its caller gives it what happens (``offer``, ``connected``, ``answer``, ``ended``, ``tick``) with the seconds of one
monotonic clock, then sends ``frames``, tells ``settled`` and ``dropped`` onwards, closes the connection if
``close_reason`` is set, and comes back with ``tick`` at ``next_at``. The three lists are the caller's to empty.
"""

import heapq
import itertools
import logging
import math
import operator
from collections import deque

from google.protobuf.message import Message

from trading_gateway_client.errors import MessageTooLarge
from trading_gateway_client.forms import Control, Form
from trading_gateway_client.holds import FIRST_WAIT, REOFFER, RESEND, Hold, action_of_old
from trading_gateway_client.journal import TICKS, Entry, Journal
from trading_gateway_client.latest import Newest
from trading_gateway_client.outcomes import Outcomes
from trading_gateway_client.pace import Pace
from trading_gateway_client.pb import control_pb2, payloads_pb2

log = logging.getLogger("trading_gateway_client")

ACKNOWLEDGED, REFUSED, AGAIN, DROPPED, UNKNOWN = "acknowledged", "refused", "again", "dropped", "unknown"
MESSAGE_TOO_BIG = 1009
# Bytes, where the gateway has not told its own limit yet.
_MESSAGE_SIZE_LIMIT = 65_536
# Seconds until a journal is tried again that cannot be written.
_JOURNAL_WAIT = 1.0
# A type that no gateway knows: what only uses up a sequence.
_VOID = "void"
_number_of = operator.attrgetter("number")


class Core:
    """One stream over all its connections."""

    def __init__(self, journal: Journal, form: Form, *, reoffer: bool = True, latest_ticks: bool = False) -> None:
        """``reoffer``: whether what was refused for now is offered anew; ``latest_ticks``: of ticks the newest."""
        self.journal = journal
        self.outcomes = Outcomes(sent=len(journal))
        self.policy = control_pb2.Policy()
        self._size_limit = _MESSAGE_SIZE_LIMIT
        self.is_ready = False
        self.frames: list[bytes] = []
        # With the seconds from ``offer`` to the answer, 0.0 for what an earlier run has left.
        self.settled: list[tuple[Entry, float]] = []
        self.dropped: list[tuple[Entry, list[payloads_pb2.Tick]]] = []
        self.close_reason = ""
        self._form = form
        self._reoffers = reoffer
        self._newest = Newest() if latest_ticks and reoffer else None
        self._pace: Pace | None = None
        # Of ``owed``: what was not sent on this connection yet.
        self._resend: deque[Entry] = deque()
        self._acknowledged = 0
        self._refusals_from = 0
        # The largest sequence of ``owed`` whose message has an order to keep, 0 when there is none.
        self._last_ordered = max((entry.sequence for entry in journal.owed if entry.is_ordered), default=0)
        # Answered messages at the front of ``owed`` that wait for those behind them.
        self._stuck = 0
        self._holds = {True: Hold(), False: Hold()}
        # Up to this sequence one message goes at a time, so that the one that is too big is found.
        self._alone_upto = 0
        self._pump_at = math.inf
        self._leave_at = math.inf
        for entry in journal.owed:
            entry.is_doubtful = True
        if self._newest is not None:
            for entry in sorted((*journal.owed, *journal.ticks), key=lambda entry: entry.number):
                if entry.message_type == TICKS:
                    self._newest.note(entry.number, form.ticks_of(entry.frame))

    @property
    def next_at(self) -> float:
        return min(self._pump_at, self._leave_at)

    @property
    def heard(self) -> int | None:
        """What the gateway may be told at connect and in pings; None: nothing, so that it holds nothing back."""
        return self.journal.noted if self._reoffers else None

    # --- What happens ------------------------------------------------------------------------------------------------

    def offer(self, message_type: str, payload: Message, now: float, unix_ms: int) -> int:
        """Queues one message; its number. Raises MessageTooLarge, JournalFull and OSError, and queues nothing then."""
        journal = self.journal
        sequence = journal.expected_sequence
        frame = self._form.frame(
            message_type, payload, sequence=sequence, stream_id=journal.stream_id, timestamp=unix_ms
        )
        if len(frame) > self._size_limit:
            raise MessageTooLarge(f"{len(frame)} bytes; the gateway takes {self._size_limit}")
        entry = Entry(sequence, message_type, frame, now)
        journal.add(entry)
        if self._newest is not None and isinstance(payload, payloads_pb2.BatchTickData):
            self._newest.note(entry.number, payload)
        self.outcomes.sent += 1
        self._pump(now)
        return entry.number

    def connected(self, welcome: control_pb2.Welcome, now: float) -> None:
        """Settles what was answered while this client was away, then sends the rest again."""
        journal = self.journal
        self.outcomes.connects += 1
        self._apply(welcome.policy, now)
        reach = journal.next_sequence - 1
        told = welcome.last_acknowledged_sequence if welcome.position_known else 0
        self._acknowledged = min(told, reach)
        self._refusals_from = welcome.refusals_from if welcome.position_known else 0
        for entry in journal.owed:
            if entry.sequence > told:
                # Whatever was said of it, the gateway does not say it any more: it is judged anew.
                entry.earlier = (entry.outcome, entry.refusal) if entry.outcome else entry.earlier
                entry.outcome = entry.refusal = ""
            elif not entry.outcome and entry.sequence < self._refusals_from:
                entry.outcome = entry.refusal = UNKNOWN
        for refusal in welcome.refusals:
            for sequence in range(max(refusal.first, journal.heard + 1), min(refusal.last, reach) + 1):
                self._refuse(sequence, refusal.code, refusal.action, 0.0, now)
                entry = journal.owed[sequence - journal.owed[0].sequence]
                if entry.attempts == 1 and entry.offered_at:
                    # The answer to its only sending.
                    entry.is_doubtful = False
        if any(refusal.action == REOFFER for refusal in welcome.refusals) and self._reoffers:
            # The gateway holds ordered messages back until it is told that these were heard, whatever they are.
            self._holds[True].begin(0.0, now)
        # What was refused behind one that is still open is settled all the same.
        self._resend = deque(entry for entry in journal.owed if entry.sequence > told and not entry.outcome)
        self.is_ready = told <= reach
        self._advance(now)
        if told > reach:
            log.warning(
                "the gateway has the stream %s up to %d, its journal ends at %d: it begins anew as another incarnation",
                journal.stream_id, told, reach,
            )  # fmt: skip
            journal.begin_anew()
            self._last_ordered = self._acknowledged = self._stuck = 0
            self._resend.clear()
            self.close_reason = "the journal is older than the stream"

    def answer(self, answer: Control, now: float) -> None:
        """Takes what the gateway says of messages and limits; the rest is not for this core."""
        if isinstance(answer, control_pb2.Ack):
            self._acknowledged = max(self._acknowledged, min(answer.sequence, self.journal.next_sequence - 1))
            self._advance(now)
        elif isinstance(answer, control_pb2.Nack):
            self.outcomes.refusals[answer.code] += 1
            action = answer.action or action_of_old(answer)
            if action == RESEND:
                self._send_again(answer, now)
            elif answer.sequence:
                self._refuse(answer.sequence, answer.code, action, answer.retry_after_ms / 1000, now)
                self._advance(now)
        elif isinstance(answer, control_pb2.Policy):
            self._apply(answer, now)
            self._pump(now)

    def ended(self, code: int, now: float) -> None:
        """The connection is gone, with this close code; 1006 when it broke."""
        if code == MESSAGE_TOO_BIG and self.is_ready:
            self._seek_too_big()
        self.is_ready = False
        self.close_reason = ""
        self.frames.clear()
        self._pump_at = self._leave_at = math.inf
        for entry in self.journal.owed:
            entry.is_doubtful = entry.is_doubtful or (not entry.outcome and entry.attempts > 0)

    def tick(self, now: float) -> None:
        if now >= self._leave_at:
            self._leave_at = math.inf
            self.close_reason = "to send again what the gateway has not taken"
        elif now >= self._pump_at:
            self._pump(now)

    # --- Answers -----------------------------------------------------------------------------------------------------

    def _send_again(self, nack: control_pb2.Nack, now: float) -> None:
        """A sequence is only sent again from the front of a connection; one that is missing makes all others wait."""
        wait = 0.0 if nack.code == "sequence_gap" else max(nack.retry_after_ms / 1000, FIRST_WAIT)
        self._leave_at = min(self._leave_at, now + wait)
        self.tick(now)

    def _refuse(self, sequence: int, code: str, action: int, wait: float, now: float) -> None:
        """Notes the refusal of one sequence; it counts once all before it are answered."""
        owed = self.journal.owed
        if not owed or not owed[0].sequence <= sequence <= owed[-1].sequence:
            return
        entry = owed[sequence - owed[0].sequence]
        if code == "duplicate":
            # Recorded before; or refused, which the gateway does not know any more, though perhaps this client does.
            known = (ACKNOWLEDGED, "") if sequence >= self._refusals_from else (UNKNOWN, UNKNOWN)
            entry.outcome, entry.refusal = entry.earlier or known
            if entry.outcome == AGAIN:
                self._holds[entry.is_ordered].begin(wait, now)
            return
        entry.refusal = "too_large" if entry.is_void else code
        entry.outcome = REFUSED
        if action == REOFFER and self._reoffers and not entry.is_void:
            entry.outcome = AGAIN
            self._holds[entry.is_ordered].begin(wait, now)
            if code == "rate_limited" and self._pace is not None:
                self._pace.refused(now, wait)

    def _advance(self, now: float) -> None:
        """Settles what is answered without a hole.

        It stops before an ordered message that is to be offered anew while an ordered one behind it has no answer:
        until then the gateway must not be told that the refusal was heard, or it would take the later one first, here
        or on the next connection.
        """
        journal = self.journal
        acknowledged, answered, first_again, has_again = self._acknowledged, journal.heard, 0, False
        for entry in journal.owed:
            if entry.outcome == AGAIN:
                has_again = True
                if not first_again and entry.is_ordered:
                    first_again = entry.sequence
            elif not entry.outcome and entry.sequence > acknowledged:
                break
            answered = entry.sequence
        upto = first_again - 1 if first_again and answered < self._last_ordered else answered
        if upto > journal.heard:
            self._settle(upto, has_again, now)
        self._stuck = answered - upto
        self._pump(now)

    def _settle(self, upto: int, has_again: bool, now: float) -> None:
        again: list[Entry] = []
        if has_again:
            owed = itertools.takewhile(lambda entry: entry.sequence <= upto, self.journal.owed)
            again = [entry for entry in owed if entry.outcome == AGAIN and self._is_still_wanted(entry)]
        done = self.journal.settle(upto, again)
        for entry in again:
            entry.outcome, entry.earlier = "", None
            entry.reoffers += 1
        self.outcomes.reoffered += len(again)
        outcomes = self.outcomes
        for entry in done:
            if not entry.outcome or entry.outcome == ACKNOWLEDGED:
                entry.outcome, entry.refusal = ACKNOWLEDGED, ""
                outcomes.acknowledged += 1
                self._holds[entry.is_ordered].succeeded()
            elif entry.outcome == REFUSED:
                outcomes.refused += 1
            elif entry.outcome == DROPPED:
                outcomes.dropped += 1
            else:
                outcomes.unknown += 1
            self.settled.append((entry, now - entry.offered_at if entry.offered_at else 0.0))

    def _is_still_wanted(self, entry: Entry) -> bool:
        """Takes out of a refused batch the ticks that newer ones stand for."""
        if self._newest is None or entry.message_type != TICKS:
            return True
        newest, older = self._newest.split(entry, self._form.ticks_of(entry.frame))
        if older:
            self.dropped.append((entry, older))
        if not newest.ticks:
            entry.outcome = DROPPED
        elif older:
            self.journal.replace(entry, self._form.with_ticks(entry.frame, newest))
        return bool(newest.ticks)

    def _apply(self, policy: control_pb2.Policy, now: float) -> None:
        if self._pace is None:
            self._pace = Pace(policy.message_rate_limit, now)
        elif policy.message_rate_limit != self.policy.message_rate_limit:
            self._pace.change(policy.message_rate_limit)
        self.policy = policy
        self._size_limit = policy.message_size_limit or _MESSAGE_SIZE_LIMIT

    # --- Sending -----------------------------------------------------------------------------------------------------

    def _pump(self, now: float) -> None:
        """Sends what may be sent now: the connection is ready, the window open, the plan's rate kept."""
        pace = self._pace
        if not self.is_ready or pace is None or self.close_reason:
            return
        self._pump_at = math.inf
        journal, resend = self.journal, self._resend
        window = 1 if journal.heard < self._alone_upto else self.policy.in_flight_limit or 1
        while resend and (resend[0].outcome or resend[0].sequence <= self._acknowledged):
            resend.popleft()
        while resend and len(journal.owed) - len(resend) - self._stuck < window:
            entry = resend[0]
            if self._must_wait(pace, now):
                return
            resend.popleft()
            self.outcomes.resent += entry.attempts > 0
            entry.attempts += 1
            self.frames.append(entry.frame)
        room = window + self._stuck - len(journal.owed)
        if resend or room <= 0 or not (journal.ordered or journal.ticks):
            return
        batch = self._next_batch(room, pace, now)
        if not batch:
            return
        try:
            journal.assign(batch)
        except OSError as error:
            log.warning("nothing is sent while the journal cannot be written: %s", error)
            self._pump_at = now + _JOURNAL_WAIT
            return
        frames = self.frames
        for entry in batch:
            if entry.message_type != TICKS:
                self._last_ordered = entry.sequence
            entry.attempts += 1
            frames.append(entry.frame)

    def _must_wait(self, pace: Pace, now: float) -> bool:
        wait = pace.take(now)
        if wait:
            self._pump_at = now + wait
        return wait > 0.0

    def _next_batch(self, room: int, pace: Pace, now: float) -> list[Entry]:
        """The oldest messages of the lanes that are open, framed under the next sequences."""
        journal = self.journal
        batch: list[Entry] = []
        ordered = journal.ordered if journal.ordered and self._is_open(True, now) else ()
        ticks = journal.ticks if journal.ticks and self._is_open(False, now) else ()
        waiting = heapq.merge(ordered, ticks, key=_number_of) if ordered and ticks else ordered or ticks
        sequence = journal.next_sequence
        for entry in waiting:
            if self._must_wait(pace, now):
                break
            if entry.sequence != sequence or len(entry.frame) > self._size_limit:
                self._frame(entry, sequence)
            batch.append(entry)
            sequence += 1
            if len(batch) == room:
                break
        return batch

    def _is_open(self, is_ordered: bool, now: float) -> bool:
        """Whether something new may go out of a lane; ends its hold when its time has come."""
        hold = self._holds[is_ordered]
        if not hold.is_active:
            return True
        if now < hold.until:
            self._pump_at = min(self._pump_at, hold.until)
            return False
        if is_ordered:
            if any(entry.outcome == AGAIN and entry.is_ordered for entry in self.journal.owed):
                # Whatever follows a refused one is to be answered first.
                return False
            if self.journal.noted < self.journal.heard:
                self._pump_at = min(self._pump_at, now + _JOURNAL_WAIT)
                return False
            ping = control_pb2.Ping(heard_sequence=self.journal.heard)
            self.frames.append(self._form.frame("gateway.ping", ping))
        hold.end()
        return True

    def _frame(self, entry: Entry, sequence: int) -> None:
        """Makes an entry ready for its sequence."""
        if len(entry.frame) > self._size_limit and not entry.is_void:
            self._make_void(entry)
        if entry.sequence != sequence:
            frame = self._form.reframed(entry.frame, sequence)
            self.journal.size += len(frame) - len(entry.frame)
            entry.frame, entry.sequence = frame, sequence

    # --- Messages that the gateway cannot take ------------------------------------------------------------------------

    def _seek_too_big(self) -> None:
        """One of the messages on the wire was too big: a single one is known, of several each goes alone now."""
        unsent = self._resend[0].sequence if self._resend else self.journal.next_sequence
        suspects = [
            entry
            for entry in self.journal.owed
            if self._acknowledged < entry.sequence < unsent and not entry.outcome and not entry.is_void
        ]
        if len(suspects) == 1:
            self._make_void(suspects[0])
        elif suspects:
            self._alone_upto = suspects[-1].sequence

    def _make_void(self, entry: Entry) -> None:
        """Its sequence is to be used up, or the stream would have a hole; the gateway refuses what stands for it."""
        log.warning("message %d is larger than the gateway takes", entry.number)
        entry.is_void = True
        void = self._form.frame(_VOID, control_pb2.Ping(), sequence=entry.sequence, stream_id=self.journal.stream_id)
        self.journal.replace(entry, void)
