"""Companies for the demo, for the simulator and for benchmarks. Room: tenants."""

import secrets
import time
from typing import Any

from django.contrib.auth.hashers import make_password
from django.db import transaction

from tenants.access import touch
from tenants.demo_symbols import DEMO_SYMBOLS
from tenants.models import ActivePair, Company, MT5Account, SubscriptionTier, User
from tenants.tokens import default_keyring

LOAD_BROKER = "Load-Server"
_USERS_A_LOAD_COMPANY = 10
_USERS_A_BENCH_COMPANY = 1_000


def load_users(count: int) -> list[User]:
    """``count`` traders of ENTERPRISE companies "Load Test n", ten each, with the plan's real limits; repeatable."""
    tier = SubscriptionTier.objects.get(code="ENTERPRISE")
    return _traders("load", count, tier, _USERS_A_LOAD_COMPANY)


def bench_users(count: int) -> list[User]:
    """``count`` traders whose limits do not bind; repeatable. Only for measurements."""
    unbounded = 1_000_000
    tier, _ = SubscriptionTier.objects.update_or_create(
        code="BENCHMARK",
        defaults={
            "user_limit": unbounded,
            "company_account_limit": unbounded,
            "user_account_limit": unbounded,
            "pair_limit": unbounded,
            "message_rate_limit": 1e9,
            "connection_limit": unbounded,
            "company_connection_limit": unbounded,
            "monthly_data_limit": 2**50,
            "monthly_api_call_limit": 2**50,
            "has_signals": True,
            "has_alerts": True,
            "has_replay": True,
        },
    )
    return _traders("bench", count, tier, _USERS_A_BENCH_COMPANY)


def tokens_of(users: list[User], ttl: float) -> list[str]:
    """A token for each, valid ``ttl`` seconds; companies and tiers must be loaded."""
    now, ring = time.time(), default_keyring()
    tokens = []
    for user in users:
        if user.company is not None:
            company = user.company
            token = ring.issue(
                user_id=str(user.pk), company_id=str(company.pk), tier=company.tier.code, ttl=ttl, now=now
            )
            tokens.append(token)
    return tokens


@transaction.atomic
def _traders(kind: str, count: int, tier: SubscriptionTier, users_a_company: int) -> list[User]:
    names = [f"{kind}-{number:05d}" for number in range(1, count + 1)]
    known = set(User.objects.filter(username__startswith=f"{kind}-").values_list("username", flat=True))
    password = make_password(None)
    users, companies = [], set()
    for place, name in enumerate(names):
        if name not in known:
            company = _load_company(kind, place // users_a_company + 1, tier)
            companies.add(company.pk)
            users.append(User(username=name, password=password, company=company, role=User.Role.TRADER))
    User.objects.bulk_create(users, batch_size=500)
    ActivePair.objects.bulk_create(
        [ActivePair(user=user, symbol=symbol) for user in users for symbol in DEMO_SYMBOLS], batch_size=400
    )
    MT5Account.objects.bulk_create(
        [
            MT5Account(login=_login(user.username), broker_server=LOAD_BROKER, company=user.company, owner=user)
            for user in users
        ],
        batch_size=200,
    )
    touch(companies)
    by_name: dict[str, Any] = {
        user.username: user
        for user in User.objects.filter(username__startswith=f"{kind}-").select_related("company__tier")
    }
    return [by_name[name] for name in names]


def _load_company(kind: str, number: int, tier: SubscriptionTier) -> Company:
    name = f"{'Load Test' if kind == 'load' else 'Benchmark'} {number}"
    return Company.objects.get_or_create(slug=f"{kind}-{number}", defaults={"name": name, "tier": tier})[0]


def _login(username: str) -> str:
    kind, _, number = username.partition("-")
    return str((9_000_000 if kind == "load" else 8_000_000) + int(number))


def new_password() -> str:
    return secrets.token_urlsafe(12)
