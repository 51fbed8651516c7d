"""Temporary bans: whose connections are ended and refused until a time. Room: streaming.

A first ban is for the source that earned it, an MT5 account or else an API key, so that one bad terminal does not
silence the user's others; the next one within a day, of whichever source, is for the whole user. A ban is held in four
places, so that no single loss lets anybody in: the memory of the process that set it, Redis (all others within
milliseconds), the database (whoever asks for the user's access), and that of every process that heard of it. Lifting is
an operator's act in the database; it makes void every ban that began before it.
"""

import asyncio
import random
import time
from dataclasses import dataclass

import msgspec
import structlog
from redis.asyncio import Redis

from events.broadcast import CHANNEL
from streaming.access import AccessDirectory, AccessUnavailable
from streaming.cluster.link import Link
from streaming.core.breaker import Verdict, ban_seconds
from streaming.core.codes import CloseCode
from tenants import access as tenants_access
from tenants.access import Actor, NotVisible, TerminalAccess, ban_source, earned_by

log = structlog.get_logger(__name__)
_ACTOR = Actor.system("gateway")
# Adds a note to those of the user, which live as long as the longest of them.
_PUT = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"""
# Deletes the note that was read, and no newer one.
_FORGET = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
"""
_ABUSE = {
    Verdict.ERRORS.value: (CloseCode.BANNED_TEMPORARILY, "most messages of the last minute were invalid"),
    Verdict.FLOODING.value: (CloseCode.RATE_ABUSE, "far more messages than the plan allows, for too long"),
    "operator": (CloseCode.BANNED_TEMPORARILY, "banned by an operator"),
}


@dataclass(frozen=True, slots=True)
class Blame:
    """Where the messages came from that a ban is for; "" what is not known."""

    account: str = ""
    # Its id.
    api_key: str = ""
    session_id: str = ""

    @property
    def source(self) -> str:
        return ban_source(self.account, self.api_key)


class BanNote(msgspec.Struct, kw_only=True):
    """Times in Unix seconds. ``source``: None for the whole user; ``is_written``: the database has it."""

    reason: str
    starts_at: float
    until: float
    repeat: int = 1
    source: str | None = None
    account: str = ""
    api_key: str = ""
    session_id: str = ""
    # Who that is, in words.
    earned_by: str = ""
    is_written: bool = False

    @property
    def code(self) -> CloseCode:
        return _ABUSE.get(self.reason, _ABUSE["operator"])[0]

    @property
    def text(self) -> str:
        """Why, whose doing it was, and how far it goes."""
        why = _ABUSE.get(self.reason, _ABUSE["operator"])[1]
        if not self.earned_by:
            return why
        whom = "all of the user's" if self.source is None else "its"
        return f"{why}: from {self.earned_by}; {whom} connections are kept out until then"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(BanNote).decode


def read_note(message: object) -> BanNote:
    """What another process tells of a ban; raises ValueError. One of a version that knew no sources is for all."""
    return msgspec.convert(message, BanNote)


class Bans:
    """All that this process knows of."""

    def __init__(self, link: Link, directory: AccessDirectory) -> None:
        self._link = link
        self._directory = directory
        # User id -> source, or None for the whole user -> the ban.
        self._notes: dict[str, dict[str | None, BanNote]] = {}
        self._writing = asyncio.Lock()
        self._is_down = False

    def set(self, user_id: str, verdict: Verdict, earlier: int, blame: Blame | None = None) -> BanNote:
        """A new ban, from now on. ``earlier``: how many there were within a day; ``blame``: None where no single source
        has earned it."""
        now = time.time()
        known = self._notes.get(user_id, {})
        repeat = max(earlier, *(note.repeat for note in known.values()), 0) + 1
        note = BanNote(
            reason=verdict.value,
            starts_at=now,
            until=now + ban_seconds(repeat, random.random()),
            repeat=repeat,
            # It goes on, with the same source or with another one.
            source=blame.source if blame is not None and repeat == 1 else None,
        )
        if blame is not None:
            note.account, note.api_key, note.session_id = blame.account, blame.api_key, blame.session_id
            key = f"number {blame.api_key}" if blame.api_key else ""
            note.earned_by = earned_by(blame.account, key, blame.session_id)
        self._keep(user_id, note)
        return note

    def heard(self, user_id: str, note: BanNote) -> None:
        """Another process has set one, and writes it down."""
        known = self._notes.get(user_id, {}).get(note.source)
        if known is None or known.until < note.until:
            note.is_written = True
            self._keep(user_id, note)

    def _keep(self, user_id: str, note: BanNote) -> None:
        self._notes.setdefault(user_id, {})[note.source] = note

    def lift(self, user_id: str, lifted_at: float) -> None:
        """An operator lets the user in: no ban that began before that stands."""
        notes = self._notes.get(user_id, {})
        for source in [source for source, note in notes.items() if note.starts_at <= lifted_at]:
            del notes[source]
        if not notes:
            self._notes.pop(user_id, None)

    def standing(self, access: TerminalAccess, source: str) -> BanNote | None:
        """What keeps a connection of this source out now, as far as is known here: the ban that lasts longest."""
        self.lift(access.user_id, access.lifted_at)
        own = self._notes.get(access.user_id, {})
        found = [note for name, note in own.items() if name is None or name == source]
        of_source = [row for row in access.source_bans if row.source == source]
        found += [_note(row.reason, row.until, row.source, row.earned_by) for row in of_source]
        if access.banned_until:
            found.append(_note(access.ban_reason, access.banned_until, None, access.ban_earned_by))
        longest = max(found, key=lambda note: note.until, default=None)
        return longest if longest is not None and longest.until > time.time() else None

    async def shared_standing(self, access: TerminalAccess, source: str) -> BanNote | None:
        """As ``standing``, with what Redis has; None also when it cannot be asked."""

        async def question(redis: Redis) -> list[bytes | str]:
            return list(await redis.hvals(_key(access.user_id)))

        values = await self._link.ask(question)
        if not values:
            return None
        for value in values:
            note = _decode(value)
            if note.starts_at > access.lifted_at:
                self.heard(access.user_id, note)
        return self.standing(access, source)

    async def publish(self, user_id: str, note: BanNote) -> None:
        """Tells all other processes at once."""
        value = _encode(note)
        news = msgspec.json.encode({**msgspec.to_builtins(note), "kind": "ban", "user_id": user_id})
        left_ms = max(1, int((note.until - time.time()) * 1000))

        async def question(redis: Redis) -> bool:
            pipe = redis.pipeline(transaction=False)
            pipe.eval(_PUT, 1, _key(user_id), _field(note.source), value, left_ms)
            pipe.publish(CHANNEL, news)
            await pipe.execute()
            return True

        await self._link.ask(question)

    async def lift_shared(self, user_id: str, lifted_at: float) -> None:
        """Takes out of Redis what ``lift`` takes out here: the database may know of no ban that was lifted."""

        async def question(redis: Redis) -> bool:
            values = await redis.hgetall(_key(user_id))
            for field, value in values.items():
                if _decode(value).starts_at <= lifted_at:
                    await redis.eval(_FORGET, 1, _key(user_id), field, value)
            return True

        await self._link.ask(question)

    async def write_down(self) -> None:
        """Brings into the database what it does not have yet; again at the next turn when it is away."""
        # One at a time: a ban that two wrote would count as two, and the next one would be twice as long.
        async with self._writing:
            await self._write_down()

    async def _write_down(self) -> None:
        now = time.time()
        for user_id, notes in list(self._notes.items()):
            for source, note in list(notes.items()):
                if note.until + 3600 < now:
                    # Remembered a while longer, for the length of the next one.
                    notes.pop(source, None)
                elif not note.is_written:
                    await self._write(user_id, note)
            if not notes and self._notes.get(user_id) is notes:
                del self._notes[user_id]

    async def _write(self, user_id: str, note: BanNote) -> None:
        def write() -> None:
            tenants_access.ban(
                _ACTOR, user_id, note.reason, starts_at=note.starts_at, until=note.until, repeat=note.repeat,
                account=note.account, api_key=note.api_key, session_id=note.session_id,
                is_for_all=note.source is None,
            )  # fmt: skip

        try:
            await self._directory.ask(write)
        except AccessUnavailable as error:
            if not self._is_down:
                # Once, however many bans wait for however long.
                self._is_down = True
                log.warning("ban_not_written_yet", user_id=user_id, reason=str(error))
        except NotVisible:
            # The user was deleted meanwhile.
            self._notes.pop(user_id, None)
        else:
            note.is_written = True
            self._is_down = False


def _note(reason: str, until: float, source: str | None, earned_by: str) -> BanNote:
    """As the database has it."""
    return BanNote(reason=reason, starts_at=0.0, until=until, source=source, earned_by=earned_by)


def _key(user_id: str) -> str:
    return f"gateway:bans:{user_id}"


def _field(source: str | None) -> str:
    """In Redis; "*" is no source."""
    return "*" if source is None else source
