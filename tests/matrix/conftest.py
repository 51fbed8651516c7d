"""Fixtures of the matrix: the world is made once a module and stays as it was made."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.test import override_settings
from pytest_django.plugin import DjangoDbBlocker
from redis import Redis

from streaming import live, views
from streaming.cluster.live import COMPANIES_KEY, LiveConnection, encode, heart_key, live_key
from streaming.console import views as console_views
from tenants.models import Company, MT5Account, User
from tests.matrix.marks import COMPANIES
from tests.matrix.world import World, rolled_back
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: DjangoDbBlocker, valkey: Valkey) -> Iterator[World]:
    """In one transaction, which is taken back at the end."""
    # Nobody is there: what a page asks of Midtrans is a question without an answer.
    settings = {"REDIS_URL": valkey.url, "MIDTRANS_BASE_URL": "http://127.0.0.1:9"}
    with django_db_blocker.unblock(), rolled_back(), override_settings(**settings):
        made = World()
        _connect(made, valkey)
        yield made
        valkey.forget()


@pytest.fixture(autouse=True)
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages of this process's gateway without one; a real one is asked in ``test_sockets``."""
    stand_in = SimpleNamespace(problems=list, ill_parts=list, exposition=lambda: "", is_draining=False)
    monkeypatch.setattr(views, "process_runtime", lambda: stand_in)
    # The one connection holds the world's transaction: PostgreSQL's must not be given back.
    monkeypatch.setattr(console_views, "close_old_connections", lambda: None)


def _connect(world: World, valkey: Valkey) -> None:
    """One live connection of each company's trader, as a gateway would have written it."""
    live._redis.cache_clear()
    with Redis.from_url(valkey.url) as redis:
        redis.set(heart_key("matrix"), "1")
        for marks in COMPANIES:
            made = world.made[marks.word]
            company, trader, account = made[Company][0], made[User][0], made[MT5Account][0]
            assert isinstance(trader, User) and isinstance(account, MT5Account)
            row = LiveConnection(
                session_id=f"{marks.hex}{marks.hex}",
                process="matrix",
                user_id=str(trader.pk),
                username=trader.username,
                company_id=str(company.pk),
                address=f"{marks.word}.example",
                opened_at=time.time() - 60,
                state="streaming",
                messages=7,
                in_flight=0,
                stream_id=marks.text("stream"),
                accounts=[account.login],
                # Ahead of the clock: its age is nothing for as long as the tests take.
                seen_at=time.time() + 3_600,
            )
            redis.sadd(COMPANIES_KEY, row.company_id)
            redis.hset(live_key(row.company_id), row.session_id, encode(row))
