"""``manage.py user``: shows, disables and enables a user and lifts bans from a shell. Room: tenants."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db.models import Max
from django.utils import timezone

from tenants.access import Actor, lift_bans, set_users_active, visible
from tenants.management.shell import add_actions, shell_actor, user_named
from tenants.models import ActivePair, ApiKey, Ban, MT5Account, User

_ACTIONS = {
    "show": "the user's company, pairs, accounts and keys",
    "disable": "lets the user in no more and ends live connections within seconds",
    "enable": "lets a disabled user in again",
    "unban": "lifts all bans that stand",
}


class Command(BaseCommand):
    help = "Shows, disables or enables a user, or lifts the user's bans."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_actions(parser, "name", "user name", _ACTIONS)

    def handle(self, *_args: Any, **options: Any) -> None:
        actor, action = shell_actor(), options["action"]
        user = user_named(actor, options["name"])
        if action in ("disable", "enable"):
            set_users_active(actor, [user], is_active=action == "enable")
        elif action == "unban":
            lift_bans(actor, str(user.pk))
        found = _describe(actor, user_named(actor, user.username))
        self.stdout.write(json.dumps(found, ensure_ascii=False) if options["json"] else _text(found))


def _describe(actor: Actor, user: User) -> dict[str, Any]:
    now = timezone.now()
    standing = visible(actor, Ban).filter(user=user, lifted_at__isnull=True, until__gt=now)
    banned_until = standing.filter(is_for_all=True).aggregate(until=Max("until"))["until"]
    return {
        "username": user.username,
        "company": None if user.company is None else user.company.slug,
        "role": user.role,
        "is_active": user.is_active,
        "banned_until": None if banned_until is None else banned_until.isoformat(),
        # Those of one source, which keep nobody else out.
        "source_bans": [
            {
                "account": ban.account,
                "api_key": ban.api_key.prefix if ban.api_key is not None else "",
                "session_id": ban.session_id,
                "until": ban.until.isoformat(),
            }
            for ban in standing.filter(is_for_all=False).select_related("api_key")
        ],
        "pairs": list(visible(actor, ActivePair).filter(user=user).values_list("symbol", flat=True)),
        "accounts": list(visible(actor, MT5Account).filter(owner=user).values("login", "broker_server", "is_active")),
        "keys": [
            {
                "prefix": key.prefix,
                "account": key.account.login if key.account is not None else None,
                "scope": key.scope,
                "state": _state(key),
            }
            for key in visible(actor, ApiKey).filter(user=user).select_related("account").order_by("pk")
        ],
    }


def _state(key: ApiKey) -> str:
    """revoked, expired, replaced (works until its overlap ends) or active."""
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= timezone.now():
        return "expired"
    return "active" if key.replaced_by_id is None else "replaced"


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"{found['username']} ({found['role']} of {found['company'] or 'no company'})",
        f"  state         {'active' if found['is_active'] else 'disabled'}",
        f"  banned until  {found['banned_until'] or 'not banned'}",
        f"  pairs         {', '.join(found['pairs']) or 'none'}",
    ]
    for account in found["accounts"] or [None]:
        lines.append(f"  account       {_account(account)}")
    for ban in found["source_bans"]:
        whose = ban["account"] or ban["api_key"] or "no account and no key"
        lines.append(f"  banned        {whose} until {ban['until']}, by connection {ban['session_id'] or 'unknown'}")
    for key in found["keys"]:
        bound = f" for {key['account']}" if key["account"] else ""
        lines.append(f"  key           {key['prefix']}… {key['scope']}{bound}, {key['state']}")
    return "\n".join(lines)


def _account(account: dict[str, Any] | None) -> str:
    if account is None:
        return "none"
    return f"{account['login']} at {account['broker_server']}{'' if account['is_active'] else ' (disabled)'}"
