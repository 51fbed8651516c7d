"""The demo's companies, one of each plan, with logins that are generated on this machine. Room: tenants."""

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from tenants.access import Actor, revoke_api_keys, touch
from tenants.api_keys import create_api_key, digest_of
from tenants.demo_symbols import DEMO_SYMBOLS
from tenants.models import ActivePair, ApiKey, Company, MT5Account, SubscriptionTier, User
from tenants.seeds import new_password

BROKER_SERVER = "Demo-Server"
KEY_NAME = "demo terminal"
_SEEDER = Actor.system("demo")


class DemoUser(TypedDict):
    username: str
    password: str
    role: str
    company: str
    api_key: str


class DemoCompany(TypedDict):
    slug: str
    name: str
    tier: str


class Demo(TypedDict):
    companies: list[DemoCompany]
    users: list[DemoUser]


COMPANIES: list[DemoCompany] = [
    {"slug": "merapi", "name": "Merapi Trading", "tier": "FREE"},
    {"slug": "bromo", "name": "Bromo Capital", "tier": "PRO"},
    {"slug": "rinjani", "name": "Rinjani Markets", "tier": "ENTERPRISE"},
]
# (username, role, company slug)
_PEOPLE = [
    ("operator", User.Role.OPERATOR, ""),
    ("merapi-admin", User.Role.COMPANY_ADMIN, "merapi"),
    ("bromo-admin", User.Role.COMPANY_ADMIN, "bromo"),
    ("bromo-dewi", User.Role.TRADER, "bromo"),
    ("bromo-budi", User.Role.TRADER, "bromo"),
    ("rinjani-admin", User.Role.COMPANY_ADMIN, "rinjani"),
    ("rinjani-sari", User.Role.TRADER, "rinjani"),
    ("rinjani-agus", User.Role.TRADER, "rinjani"),
    ("rinjani-putri", User.Role.TRADER, "rinjani"),
]


@transaction.atomic
def seed_demo(secrets_file: Path, say: Callable[[str], None] = lambda _name: None) -> Demo:
    """Makes what is missing and returns all of it; the clear passwords and keys live in ``secrets_file``, mode 0600.

    Without the file the passwords and keys are made anew, so that what is printed always works. ``say`` hears of each
    person whose password is made, which takes a while.
    """
    known: dict[str, dict[str, str]] = json.loads(secrets_file.read_text("utf-8")) if secrets_file.exists() else {}
    for row in COMPANIES:
        tier = SubscriptionTier.objects.get(code=row["tier"])
        Company.objects.get_or_create(slug=row["slug"], defaults={"name": row["name"], "tier": tier})
    changed: set[uuid.UUID] = set()
    people = [_person(place, known.get(name, {}), changed, say) for place, (name, _, _) in enumerate(_PEOPLE)]
    touch(changed)
    users = [user for user, _ in people]
    kept = {
        user["username"]: {"password": user["password"], "api_key": user["api_key"], "hash": hashed}
        for user, hashed in people
    }
    if kept != known:
        _write_secret(secrets_file, json.dumps(kept, indent=2))
    return {"companies": COMPANIES, "users": users}


def _person(
    place: int, known: dict[str, str], changed: set[uuid.UUID], say: Callable[[str], None]
) -> tuple[DemoUser, str]:
    """With the password's hash. Adds to ``changed`` the company whose users may do more than before."""
    name, role, slug = _PEOPLE[place]
    company = Company.objects.select_related("tier").get(slug=slug) if slug else None
    is_operator = role == User.Role.OPERATOR
    defaults = {"role": role, "company": company, "is_staff": is_operator, "is_superuser": is_operator}
    user, is_new = User.objects.get_or_create(username=name, defaults=defaults)
    password = known.get("password") or new_password()
    # Hashing is slow on purpose: a stored hash that was found right once is right.
    if known.get("hash") != user.password and not user.check_password(password):
        say(name)
        user.set_password(password)
        user.save(update_fields=["password"])
    key = known.get("api_key", "")
    if company is not None:
        for symbol in list(DEMO_SYMBOLS)[: company.tier.pair_limit]:
            is_new |= ActivePair.objects.get_or_create(user=user, symbol=symbol)[1]
        account = {"company": company, "login": str(1_000_000 + place), "broker_server": BROKER_SERVER}
        is_new |= MT5Account.objects.get_or_create(**account, defaults={"owner": user})[1]
        if is_new:
            changed.add(company.pk)
        if not _works(key, user):
            revoke_api_keys(_SEEDER, ApiKey.objects.filter(user=user, name=KEY_NAME))
            key, _ = create_api_key(_SEEDER, user, KEY_NAME)
    row: DemoUser = {"username": name, "password": password, "role": str(role), "company": slug, "api_key": key}
    return row, user.password


def _works(key: str, user: User) -> bool:
    """Looked up by hand: looking through the demo is no use of a key."""
    rows = ApiKey.objects.filter(user=user, digest=digest_of(key), revoked_at__isnull=True)
    return rows.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now())).exists()


def _write_secret(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    draft.replace(path)
