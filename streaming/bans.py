"""Who is let go and stays out for a while. Room: streaming.

A ban is held in four places, so that no single loss lets the user in: the memory of the process that set it, Redis (all
others within milliseconds), the database (whoever asks for the user's access), and that of every process that heard of
it. Lifting is an operator's act in the database; it makes void every ban that began before it.
"""

import asyncio
import json
import random
import time
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis

from events.broadcast import CHANNEL
from streaming.access import AccessDirectory, AccessUnavailable
from streaming.cluster.link import Link
from streaming.core.breaker import Verdict, ban_seconds
from tenants import access as tenants_access
from tenants.access import Actor, NotVisible, TerminalAccess

log = structlog.get_logger(__name__)
_ACTOR = Actor.system("gateway")
# Deletes the note that was read, and no newer one.
_FORGET = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


@dataclass(slots=True)
class BanNote:
    """Times in Unix seconds. ``is_written``: the database has it."""

    reason: str
    starts_at: float
    until: float
    repeat: int
    is_written: bool = False


class Bans:
    """All that this process knows of."""

    def __init__(self, link: Link, directory: AccessDirectory) -> None:
        self._link = link
        self._directory = directory
        self._notes: dict[str, BanNote] = {}
        self._writing = asyncio.Lock()
        self._is_down = False

    def set(self, user_id: str, verdict: Verdict, earlier: int) -> BanNote:
        """A new ban, from now on; ``earlier``: how many there were within a day."""
        now = time.time()
        known = self._notes.get(user_id)
        repeat = max(earlier, known.repeat if known is not None else 0) + 1
        note = BanNote(verdict.value, now, now + ban_seconds(repeat, random.random()), repeat)
        self._notes[user_id] = note
        return note

    def heard(self, user_id: str, reason: str, starts_at: float, until: float, repeat: int) -> None:
        """Another process has set one, and writes it down."""
        known = self._notes.get(user_id)
        if known is None or known.until < until:
            self._notes[user_id] = BanNote(reason, starts_at, until, repeat, is_written=True)

    def lift(self, user_id: str, lifted_at: float) -> None:
        """An operator lets the user in: no ban that began before that stands."""
        note = self._notes.get(user_id)
        if note is not None and note.starts_at <= lifted_at:
            del self._notes[user_id]

    def until(self, access: TerminalAccess) -> float:
        """Unix seconds at which the user may come back; 0.0 when nothing stands in the way here."""
        note = self._notes.get(access.user_id)
        if note is not None and note.starts_at <= access.lifted_at:
            del self._notes[access.user_id]
            note = None
        until = max(access.banned_until, note.until if note is not None else 0.0)
        return until if until > time.time() else 0.0

    def reason(self, access: TerminalAccess) -> str:
        """Why the user is kept out, as far as is known here."""
        note = self._notes.get(access.user_id)
        return access.ban_reason or (note.reason if note is not None else "operator")

    async def shared_until(self, access: TerminalAccess) -> float:
        """As ``until``, by what Redis has; 0.0 when it cannot be asked."""

        async def question(redis: Redis) -> bytes | str | None:
            return await redis.get(_key(access.user_id))

        value = await self._link.ask(question)
        if value is None:
            return 0.0
        note = json.loads(value)
        if note["starts_at"] <= access.lifted_at:
            return 0.0
        self.heard(access.user_id, note["reason"], note["starts_at"], note["until"], note["repeat"])
        return self.until(access)

    async def publish(self, user_id: str, note: BanNote) -> None:
        """Tells all other processes at once."""
        fields = {"reason": note.reason, "starts_at": note.starts_at, "until": note.until, "repeat": note.repeat}

        async def question(redis: Redis) -> bool:
            pipe = redis.pipeline(transaction=False)
            pipe.set(_key(user_id), json.dumps(fields), px=max(1, int((note.until - time.time()) * 1000)))
            pipe.publish(CHANNEL, json.dumps({"kind": "ban", "user_id": user_id, **fields}))
            await pipe.execute()
            return True

        await self._link.ask(question)

    async def lift_shared(self, user_id: str, lifted_at: float) -> None:
        """Takes out of Redis what ``lift`` takes out here: the database may know of no ban that was lifted."""

        async def question(redis: Redis) -> bool:
            value = await redis.get(_key(user_id))
            if value is not None and json.loads(value)["starts_at"] <= lifted_at:
                await redis.eval(_FORGET, 1, _key(user_id), value)
            return True

        await self._link.ask(question)

    async def write_down(self) -> None:
        """Brings into the database what it does not have yet; again at the next turn when it is away."""
        # One at a time: a ban that two wrote would count as two, and the next one would be twice as long.
        async with self._writing:
            await self._write_down()

    async def _write_down(self) -> None:
        now = time.time()
        for user_id, note in list(self._notes.items()):
            if note.until + 3600 < now:
                # Remembered a while longer, for the length of the next one.
                self._notes.pop(user_id, None)
            elif not note.is_written:
                await self._write(user_id, note)

    async def _write(self, user_id: str, note: BanNote) -> None:
        def write() -> None:
            tenants_access.ban(
                _ACTOR, user_id, note.reason, starts_at=note.starts_at, until=note.until, repeat=note.repeat
            )

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


def _key(user_id: str) -> str:
    return f"gateway:ban:{user_id}"
