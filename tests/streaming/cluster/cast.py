"""Gateway processes that share a real Valkey: their links, with what each of them holds in the hands of the test."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from redis import Redis as SyncRedis
from redis.asyncio import Redis

from streaming.cluster.link import Link
from streaming.cluster.places import _PROCESSES, HEART_PREFIX, HEART_TTL, Places, Reservation


def new_id() -> str:
    """A user, company or process that no other test of a shared Valkey has."""
    return uuid.uuid4().hex


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def flush_all(url: str) -> None:
    """Redis forgets everything, as after a restart without a file."""
    redis = Redis.from_url(url)
    await redis.flushall()
    await redis.aclose()


def stop_heart(url: str, process_id: str) -> None:
    """The process has not beaten for longer than its heart lasts; nobody waits for that."""
    with SyncRedis.from_url(url) as redis:
        assert 0 < redis.pttl(HEART_PREFIX + process_id) <= HEART_TTL * 1_000
        redis.delete(HEART_PREFIX + process_id)
        redis.zincrby(_PROCESSES, -(HEART_TTL + 1), process_id)


async def until_up(*links: Link) -> None:
    """Redis was away; each link has had an answer again."""
    async with asyncio.timeout(10.0):
        for link in links:
            while not await link.ask(_ping):
                await asyncio.sleep(0.01)


async def _ping(redis: Redis) -> bool:
    return bool(await redis.ping())


@dataclass
class Holder:
    """One process as the places see it; ``users`` and ``companies`` are what it holds."""

    url: str
    name: str = field(default_factory=new_id)
    users: dict[str, int] = field(default_factory=dict)
    companies: dict[str, int] = field(default_factory=dict)
    # What was said of other processes, oldest first.
    others: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    link: Link = field(init=False)
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        self.link = Link(self.url, self.name)
        self.places = Places(
            self.link,
            lambda user_id: self.users.get(user_id, 0),
            lambda company_id: self.companies.get(company_id, 0),
            lambda user_id, others: self.others.append((user_id, others)),
        )

    async def take(
        self, user_id: str, company_id: str, *, user_limit: int = 100, company_limit: int = 100
    ) -> Reservation:
        """Counts one more here and asks, as a handshake does; gives it back when it is refused."""
        self.users[user_id] = self.users.get(user_id, 0) + 1
        self.companies[company_id] = self.companies.get(company_id, 0) + 1
        reservation = await self.places.reserve(user_id, company_id, user_limit, company_limit)
        if reservation.refusal:
            self.leave(user_id, company_id)
        return reservation

    def leave(self, user_id: str, company_id: str) -> None:
        self.users[user_id] -= 1
        self.companies[company_id] -= 1
        self.places.mark(user_id, company_id)
