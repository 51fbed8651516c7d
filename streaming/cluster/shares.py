"""The rate of a user divided among the processes that serve the same user. Room: streaming.cluster.

No message waits for Redis: each process lets its own part pass and reports, a few times a second, how much was offered
to it; the part follows from the reports of all (``core.shares``). Only users that several processes serve are reported.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from streaming.cluster.link import Link
from streaming.core.shares import share_of

_BATCH = 200
# Seconds after which a report counts no more: its process has gone, or serves the user no longer.
_FRESH = 2.0
# Seconds that the others have for finding out that Redis is back.
_RETURN_PATIENCE = 5.0
# Of the newest measurement in the running one: a terminal sends in bursts.
_WEIGHT = 0.5

# KEYS: a hash for each user. ARGV: process, freshness in ms, then a demand for each, -1: gone. Answers for each the
# fresh reports as {process, demand, ...}. The clock is Redis' own.
_REPORT = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local answer = {}
for i = 1, #KEYS do
  local fresh = {}
  if tonumber(ARGV[i + 2]) < 0 then
    redis.call('HDEL', KEYS[i], ARGV[1])
  else
    redis.call('HSET', KEYS[i], ARGV[1], ARGV[i + 2] .. ':' .. now)
    redis.call('EXPIRE', KEYS[i], 60)
  end
  local fields = redis.call('HGETALL', KEYS[i])
  for j = 1, #fields, 2 do
    local demand, at = string.match(fields[j + 1], '^(.*):(%d+)$')
    if now - tonumber(at) <= tonumber(ARGV[2]) then
      table.insert(fresh, fields[j])
      table.insert(fresh, demand)
    else
      redis.call('HDEL', KEYS[i], fields[j])
    end
  end
  answer[i] = fresh
end
return answer
"""


@dataclass(slots=True)
class _Shared:
    """A user that other processes serve too. ``offered``: messages counted at the last report, ``demand``: a second,
    -1: the user has gone; ``others_at``: when another process was last heard of."""

    offered: int
    measured_at: float
    demand: float
    others_at: float


class Shares:
    """Which part of each user's rate this process may let pass, where it is not all of it."""

    def __init__(
        self,
        link: Link,
        offered: Callable[[str], int | None],
        limit_of: Callable[[str], float],
        apply: Callable[[str, float], None],
    ) -> None:
        """``offered``: all messages of a user so far, None when the user is not here any more; ``limit_of``: messages a
        second over all processes; ``apply`` is told the part of this process, 0.0 to 1.0."""
        self._link = link
        self._offered = offered
        self._limit_of = limit_of
        self._apply = apply
        self._shared: dict[str, _Shared] = {}
        # The last known parts, as a fraction of the limit.
        self._parts: dict[str, float] = {}

    def note_others(self, user_id: str, others: frozenset[str]) -> None:
        """Others serve this user too, or no longer."""
        if not others:
            return
        now = time.monotonic()
        shared = self._shared.get(user_id)
        if shared is not None:
            shared.others_at = now
            return
        self._shared[user_id] = _Shared(self._offered(user_id) or 0, now, 0.0, now)
        self._set(user_id, 1.0 / (1 + len(others)))

    def part(self, user_id: str) -> float:
        """The fraction of the user's rate that this process may let pass."""
        return self._parts.get(user_id, 1.0)

    def start_apart(self, user_id: str, process_count: int) -> None:
        """The user comes while Redis is away, so that nobody knows who else serves the user: all processes together
        must not let pass more than twice the limit."""
        if user_id not in self._parts and not self._link.is_alone:
            self._set(user_id, min(1.0, 2.0 / process_count))

    def forget_apart(self) -> None:
        """Redis is back: what was only a guess is whole again until others are heard of; who was shared stays so until
        the others had time to report again."""
        for shared in self._shared.values():
            shared.others_at = time.monotonic() + _RETURN_PATIENCE
        for user_id in [user_id for user_id in self._parts if user_id not in self._shared]:
            self._set(user_id, 1.0)

    async def report(self) -> None:
        now = time.monotonic()
        for user_id in list(self._shared):
            self._measure(user_id, now)
        waiting = list(self._shared)
        for start in range(0, len(waiting), _BATCH):
            batch = waiting[start : start + _BATCH]
            answer = await self._exchange(batch)
            if answer is None:
                # The parts stay as they are: together they are still the limit.
                return
            for user_id, fields in zip(batch, answer, strict=True):
                self._take(user_id, fields)

    async def _exchange(self, user_ids: list[str]) -> list[list[bytes]] | None:
        """For each user the fresh reports of all processes: name, demand, name, demand…; None when Redis is away."""
        keys = [f"gateway:rate:{user_id}" for user_id in user_ids]
        demands = [round(self._shared[user_id].demand, 3) for user_id in user_ids]

        async def question(redis: Redis) -> list[list[bytes]]:
            answer: list[list[bytes]] = await redis.eval(
                _REPORT, len(keys), *keys, self._link.process_id, int(_FRESH * 1000), *demands
            )
            return answer

        return await self._link.ask(question)

    def _measure(self, user_id: str, now: float) -> None:
        shared = self._shared[user_id]
        offered = self._offered(user_id)
        if offered is None:
            shared.demand = -1.0
            return
        elapsed = max(0.01, now - shared.measured_at)
        rate = (offered - shared.offered) / elapsed
        shared.demand = _WEIGHT * rate + (1.0 - _WEIGHT) * max(0.0, shared.demand)
        shared.offered, shared.measured_at = offered, now

    def _take(self, user_id: str, fields: list[bytes]) -> None:
        shared, now = self._shared[user_id], time.monotonic()
        if shared.demand < 0:
            del self._shared[user_id]
            self._parts.pop(user_id, None)
            return
        demands = {name.decode(): float(demand) for name, demand in zip(fields[::2], fields[1::2], strict=True)}
        limit = self._limit_of(user_id)
        if len(demands) > 1 and limit > 0:
            shared.others_at = now
            self._set(user_id, share_of(limit, demands, self._link.process_id) / limit)
        elif now - shared.others_at > _FRESH:
            # Nobody else has reported for a while: the user is this process's alone.
            del self._shared[user_id]
            self._set(user_id, 1.0)

    def _set(self, user_id: str, part: float) -> None:
        if part >= 1.0:
            self._parts.pop(user_id, None)
        else:
            self._parts[user_id] = part
        self._apply(user_id, part)
