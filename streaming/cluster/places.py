"""Connections counted over all processes, by user and by company. Room: streaming.cluster.

Each process writes how many it holds as an absolute number, so that a repeated or lost write heals with the next one,
and beats a heart; the numbers of a process whose heart has stopped count no more.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from redis.asyncio import Redis

from streaming.cluster.link import Link

# Seconds without a heartbeat after which a process counts as gone.
HEART_TTL = 10
_BATCH = 200

# KEYS: user hash, company hash. ARGV: process, its connections of the user and of the company with the new one, the
# two limits, the prefix of the heartbeats. Answers {verdict, other processes that serve the user...}.
_RESERVE = """
local function others(key, me, prefix, names)
  local total, fields = 0, redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if fields[i] ~= me then
      if redis.call('EXISTS', prefix .. fields[i]) == 1 then
        total = total + tonumber(fields[i + 1])
        if names then table.insert(names, fields[i]) end
      else
        redis.call('HDEL', key, fields[i])
      end
    end
  end
  return total
end
local names = {}
local of_user = others(KEYS[1], ARGV[1], ARGV[6], names)
local of_company = others(KEYS[2], ARGV[1], ARGV[6], nil)
if of_user + tonumber(ARGV[2]) > tonumber(ARGV[4]) then return {'user_limit', unpack(names)} end
if of_company + tonumber(ARGV[3]) > tonumber(ARGV[5]) then return {'company_limit', unpack(names)} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], 86400)
redis.call('EXPIRE', KEYS[2], 86400)
return {'', unpack(names)}
"""
# KEYS: hashes. ARGV: process, prefix, then a number for each. Answers for each the living others: name=number,…
_SYNC = """
local answer = {}
for i = 1, #KEYS do
  local count, living = tonumber(ARGV[i + 2]), {}
  if count > 0 then
    redis.call('HSET', KEYS[i], ARGV[1], count)
    redis.call('EXPIRE', KEYS[i], 86400)
  else
    redis.call('HDEL', KEYS[i], ARGV[1])
  end
  local fields = redis.call('HGETALL', KEYS[i])
  for j = 1, #fields, 2 do
    if fields[j] ~= ARGV[1] then
      if redis.call('EXISTS', ARGV[2] .. fields[j]) == 1 then
        table.insert(living, fields[j] .. '=' .. fields[j + 1])
      else
        redis.call('HDEL', KEYS[i], fields[j])
      end
    end
  end
  answer[i] = table.concat(living, ',')
end
return answer
"""
HEART_PREFIX = "gateway:process:"
_PROCESSES = "gateway:processes"


@dataclass(frozen=True, slots=True)
class Reservation:
    """``refusal``: "", user_limit or company_limit; ``others``: other processes that serve the user; None: unknown."""

    refusal: str
    others: frozenset[str] | None


class Places:
    """The counts of this process, as ``held_by_user`` and ``held_by_company`` give them, in the shared store."""

    def __init__(
        self,
        link: Link,
        held_by_user: Callable[[str], int],
        held_by_company: Callable[[str], int],
        on_others: Callable[[str, dict[str, int]], None],
    ) -> None:
        """``on_others`` hears how many connections of a user of this process the other processes hold."""
        self._link = link
        self._held_by_user = held_by_user
        self._held_by_company = held_by_company
        self._on_others = on_others
        self._users: set[str] = set()
        self._companies: set[str] = set()
        # Gateway processes alive at the last heartbeat, this one included.
        self.process_count = 1
        # Called when the heart is found stopped, so that the others have thrown the numbers of this process away: it
        # was held up for too long, or Redis has forgotten everything without having been away.
        self.on_lapse: list[Callable[[], None]] = []
        self._has_beaten = False

    def mark(self, user_id: str, company_id: str) -> None:
        """Notes that the numbers of these have changed."""
        self._users.add(user_id)
        self._companies.add(company_id)

    async def reserve(self, user_id: str, company_id: str, user_limit: int, company_limit: int) -> Reservation:
        """Whether the connection that is already counted here has a place among those of all processes."""
        keys = (_user_key(user_id), _company_key(company_id))
        mine = (self._held_by_user(user_id), self._held_by_company(company_id))

        async def question(redis: Redis) -> list[bytes]:
            arguments = (self._link.process_id, *mine, user_limit, company_limit, HEART_PREFIX)
            answer: list[bytes] = await redis.eval(_RESERVE, 2, *keys, *arguments)
            return answer

        answer = await self._link.ask(question)
        self.mark(user_id, company_id)
        if answer is None:
            return Reservation("", None)
        others = frozenset(name.decode() for name in answer[1:])
        return Reservation(answer[0].decode(), others)

    async def beat(self) -> None:
        """Says that this process lives, and learns how many do."""

        async def question(redis: Redis) -> list[int]:
            pipe = redis.pipeline(transaction=False)
            pipe.exists(HEART_PREFIX + self._link.process_id)
            pipe.set(HEART_PREFIX + self._link.process_id, "1", ex=HEART_TTL)
            pipe.eval(_COUNT, 1, _PROCESSES, self._link.process_id, HEART_TTL)
            answer: list[int] = await pipe.execute()
            return answer

        answer = await self._link.ask(question)
        if answer is not None:
            self.process_count = max(1, int(answer[2]))
            has_lapsed, self._has_beaten = self._has_beaten and not answer[0], True
            if has_lapsed:
                for call in self.on_lapse:
                    call()

    async def sync(self) -> None:
        """Writes the numbers that have changed; keeps them for the next time when Redis does not answer."""
        if self._link.is_alone:
            # Nobody will ever ask for them.
            alone, self._users = self._users, set()
            self._companies.clear()
            for one in alone:
                self._on_others(one, {})
            return
        for ids, key_of, held, hear in (
            (self._users, _user_key, self._held_by_user, self._on_others),
            (self._companies, _company_key, self._held_by_company, None),
        ):
            waiting = list(ids)
            for start in range(0, len(waiting), _BATCH):
                batch = waiting[start : start + _BATCH]
                ids.difference_update(batch)
                answer = await self._write(batch, key_of, held)
                if answer is None:
                    ids.update(batch)
                    # Of the others nothing is known; what this process holds counts all the same.
                    if hear is not None:
                        for one in waiting:
                            hear(one, {})
                    return
                for one, others in zip(batch, answer, strict=True):
                    if hear is not None:
                        hear(one, _numbers(others))

    async def _write(
        self, ids: list[str], key_of: Callable[[str], str], held: Callable[[str], int]
    ) -> list[bytes] | None:
        async def question(redis: Redis) -> list[bytes]:
            keys, numbers = map(key_of, ids), map(held, ids)
            answer: list[bytes] = await redis.eval(
                _SYNC, len(ids), *keys, self._link.process_id, HEART_PREFIX, *numbers
            )
            return answer

        return await self._link.ask(question)

    def mark_all(self, users: Iterable[tuple[str, str]]) -> None:
        """All (user id, company id) of this process: after Redis was away, and now and then."""
        for user_id, company_id in users:
            self.mark(user_id, company_id)

    async def leave(self) -> None:
        """This process ends in order: what it held counts no more."""

        async def question(redis: Redis) -> int:
            await redis.zrem(_PROCESSES, self._link.process_id)
            return int(await redis.delete(HEART_PREFIX + self._link.process_id))

        await self._link.ask(question)


_COUNT = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
return redis.call('ZCARD', KEYS[1])
"""


def _numbers(text: bytes) -> dict[str, int]:
    pairs = (item.rpartition("=") for item in text.decode().split(",") if item)
    return {name: int(number) for name, _, number in pairs}


def _user_key(user_id: str) -> str:
    return f"gateway:connections:user:{user_id}"


def _company_key(company_id: str) -> str:
    return f"gateway:connections:company:{company_id}"
