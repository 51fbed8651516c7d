"""Puts the three companies into the database of a gateway; ``manage.py shell`` runs ``main``."""

import json
import sys
import time
from typing import Any

from tenants.models import ActivePair, Company, MT5Account, User
from tenants.tokens import default_keyring, issue_for
from tests.matrix.marks import COMPANIES, NOBODY
from tests.matrix.rows import Made, make_rows, make_shared

_TTL = 3_600.0


def main() -> None:
    """Prints one JSON object: by word and role what a terminal of that person needs and is known by."""
    make_shared()
    told: dict[str, Any] = {}
    for marks in COMPANIES:
        made = make_rows(marks)
        _let_them_trade(made)
        told[marks.word] = {user.role: _person(user, made) for user in made[User] if isinstance(user, User)}
    for marks in COMPANIES:
        for other in (*COMPANIES, NOBODY):
            company = other.uuid() if other is NOBODY else Company.objects.get(slug=other.word).pk
            trader = told[marks.word]["trader"]
            trader.setdefault("tokens_for", {})[other.word] = _token(trader["user_id"], str(company))
    sys.stdout.write(json.dumps(told) + "\n")


def _let_them_trade(made: Made) -> None:
    """Without the bans and the past ends that the rows have."""
    for user in made[User]:
        assert isinstance(user, User)
        user.bans.all().delete()
        user.kicks.all().delete()
        user.message_rate_limit = user.connection_limit = None
        user.save()
        ActivePair.objects.get_or_create(user=user, symbol="EURUSD")
    Company.objects.filter(pk=made[Company][0].pk).update(paid_until=None)


def _person(user: User, made: Made) -> dict[str, Any]:
    accounts = [row.login for row in made[MT5Account] if isinstance(row, MT5Account) and row.owner_id == user.pk]
    pairs = list(ActivePair.objects.filter(user=user).exclude(symbol="EURUSD").values_list("symbol", flat=True))
    return {
        "user_id": str(user.pk),
        "company_id": str(user.company_id),
        "token": issue_for(user, _TTL),
        "account": accounts[0],
        "symbol": pairs[0] if pairs else "",
    }


def _token(user_id: str, company_id: str) -> str:
    """Signed with the right key, for a company that may not be the user's."""
    return default_keyring().issue(user_id=user_id, company_id=company_id, tier="PRO", ttl=_TTL, now=time.time())
