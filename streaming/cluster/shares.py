"""The rate of a user who is served by several processes: each reports what it has let pass. Room: streaming.cluster.

No message waits for Redis: each process has a whole copy of the user's bucket and charges to it what the others report
(``core.shares``). A process that serves a user alone writes a report when the user comes and one when the user has
gone; only while several serve the user do they report again and again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from streaming.cluster.link import Link
from streaming.core.shares import FRESH, Mirror, Report

_BATCH = 200
# Seconds that the last report of a process is kept: as long as a process remembers the bucket of a user who has gone.
_MEMORY = 130
# Seconds for which a process that a user comes to listens to those that the user was at before: their last report may
# be on its way.
_ARRIVAL = 3.0
# Seconds that the others have for finding out that Redis is back.
_RETURN_PATIENCE = 5.0

# KEYS: a hash for each user. ARGV: process, seconds that a report is kept, then a report for each. Answers the time in
# ms and for each the reports of the others as {process, report, ...}. The clock is Redis' own.
_REPORT = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local answer = {now}
for i = 1, #KEYS do
  local others = {}
  redis.call('HSET', KEYS[i], ARGV[1], ARGV[i + 2] .. ':' .. now)
  redis.call('EXPIRE', KEYS[i], ARGV[2])
  local fields = redis.call('HGETALL', KEYS[i])
  for j = 1, #fields, 2 do
    if fields[j] ~= ARGV[1] then
      if now - tonumber(string.match(fields[j + 1], '%d+$')) <= tonumber(ARGV[2]) * 1000 then
        table.insert(others, fields[j])
        table.insert(others, fields[j + 1])
      else
        redis.call('HDEL', KEYS[i], fields[j])
      end
    end
  end
  answer[i + 1] = others
end
return answer
"""


@dataclass(slots=True)
class _Watch:
    """A user who is reported. ``until``: when that ends, unless others go on reporting; ``is_owed``: what has changed
    here is not in Redis yet; ``is_new``: the user has come and nothing was heard of others since."""

    until: float
    is_owed: bool = False
    is_new: bool = False


class Shares:
    """Keeps the copies of the users' buckets in step with those of the other processes."""

    def __init__(self, link: Link, mirror_of: Callable[[str], Mirror | None], is_live: Callable[[str], bool]) -> None:
        """``mirror_of``: None when the user is forgotten here; ``is_live``: whether the user has a connection here."""
        self._link = link
        self._mirror_of = mirror_of
        self._is_live = is_live
        self._watched: dict[str, _Watch] = {}

    def came(self, user_id: str, others: frozenset[str] | None) -> None:
        """The user connects here, and ``others`` serve the user too; None: Redis is away, so nobody knows."""
        mirror = self._mirror_of(user_id)
        if mirror is None or self._link.is_alone:
            return
        if others is None:
            mirror.stand_alone()
        watch = self._watch(user_id, FRESH if others else 0.0)
        watch.is_owed = watch.is_new = True

    def left(self, user_id: str) -> None:
        """The last connection of the user here has ended."""
        if not self._link.is_alone:
            self._watch(user_id, 0.0).is_owed = True

    def note_others(self, user_id: str, others: frozenset[str]) -> None:
        """Others serve this user too, or no longer."""
        if others and self._mirror_of(user_id) is not None:
            self._watch(user_id, FRESH)

    def part(self, user_id: str) -> float:
        """What comes to this process of all that the user sends, 0.0 to 1.0, as far as is known."""
        mirror = self._mirror_of(user_id)
        return 1.0 if mirror is None else mirror.part

    def resume(self) -> None:
        """Redis is back, and the others find that out in their own time."""
        for user_id in self._watched:
            self._watch(user_id, _RETURN_PATIENCE)

    async def report(self) -> None:
        waiting = list(self._watched)
        for start in range(0, len(waiting), _BATCH):
            if not await self._report(waiting[start : start + _BATCH]):
                # Each copy goes on by itself; what the others let pass meanwhile is charged when Redis is back.
                return

    async def _report(self, user_ids: list[str]) -> bool:
        """False when Redis did not answer."""
        now = time.monotonic()
        asked: list[tuple[str, Mirror, Report]] = []
        for user_id in user_ids:
            mirror = self._mirror_of(user_id)
            if mirror is None:
                del self._watched[user_id]
            else:
                # Whatever changes from here on needs a report of its own.
                self._watched[user_id].is_owed = False
                asked.append((user_id, mirror, mirror.report(now, is_live=self._is_live(user_id))))
        answer = await self._exchange(asked) if asked else (0.0, [])
        now = time.monotonic()
        if answer is None:
            for user_id, mirror, _ in asked:
                mirror.miss()
                self._watch(user_id, 0.0).is_owed = True
            return False
        store_now, rows = answer
        for (user_id, mirror, _), others in zip(asked, rows, strict=True):
            mirror.hear(self._link.process_id, others, store_now, now)
            self._look_after(user_id, others, store_now, now)
        return True

    def _look_after(self, user_id: str, others: dict[str, Report], store_now: float, now: float) -> None:
        """How much longer the user is reported."""
        watch = self._watched[user_id]
        if any(store_now - report.at <= FRESH for report in others.values()):
            self._watch(user_id, FRESH)
        elif others and watch.is_new:
            self._watch(user_id, _ARRIVAL)
        watch.is_new = False
        if not watch.is_owed and (now > watch.until or not self._is_live(user_id)):
            del self._watched[user_id]

    def _watch(self, user_id: str, seconds: float) -> _Watch:
        watch = self._watched.setdefault(user_id, _Watch(0.0))
        watch.until = max(watch.until, time.monotonic() + seconds)
        return watch

    async def _exchange(self, asked: list[tuple[str, Mirror, Report]]) -> tuple[float, list[dict[str, Report]]] | None:
        """Seconds of Redis' clock, and for each user the reports of the others; None when Redis is away."""
        keys = [f"gateway:passed:{user_id}" for user_id, _, _ in asked]
        reports = [_written(report) for _, _, report in asked]

        async def question(redis: Redis) -> list[Any]:
            answer: list[Any] = await redis.eval(_REPORT, len(keys), *keys, self._link.process_id, _MEMORY, *reports)
            return answer

        answer = await self._link.ask(question)
        if answer is None:
            return None
        store_now, *rows = answer
        return store_now / 1000, [
            {name.decode(): _read(report) for name, report in zip(row[::2], row[1::2], strict=True)} for row in rows
        ]


def _written(report: Report) -> str:
    """The fields of a report but the time, which Redis adds; seconds as ms."""
    demand, age = round(report.demand, 3), round(report.age * 1000)
    return f"{report.copy}:{report.passed}:{age}:{demand}:{int(report.is_live)}"


def _read(text: bytes) -> Report:
    copy, passed, age, demand, is_live, at = text.split(b":")
    return Report(int(copy), int(passed), int(age) / 1000, float(demand), is_live == b"1", int(at) / 1000)
