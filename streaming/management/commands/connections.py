"""``manage.py connections``: lists and ends live connections from a shell, as the admin does. Room: streaming."""

import datetime
import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from streaming.cluster.live import LiveConnection
from streaming.console.listing import STATES, Wanted, connections_for
from streaming.live import LiveUnavailable
from tenants import access
from tenants.access import Actor, NotVisible

# Shown as they are; the company by its short name, times as ISO 8601.
_FIELDS = ("session_id", "process", "user_id", "username", "address", "state", "messages", "in_flight", "stream_id")


class Command(BaseCommand):
    help = "Lists live connections, or ends them. Ends with status 1 when nothing matches."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        listing = actions.add_parser("list", help="the live connections of all gateway processes, newest first")
        listing.add_argument("--company", metavar="SLUG", help="of this company only")
        listing.add_argument("--user", metavar="NAME", help="of this user only")
        listing.add_argument("--account", metavar="LOGIN", default="", help="with messages for this MT5 login")
        listing.add_argument("--state", choices=STATES, default="")
        kicking = actions.add_parser("kick", help="ends connections within seconds; the clients may come back")
        whom = kicking.add_mutually_exclusive_group(required=True)
        whom.add_argument("--session", metavar="ID", help="this connection")
        whom.add_argument("--user", metavar="NAME", help="all connections of this user")
        whom.add_argument("--company", metavar="SLUG", help="all connections of this company")
        kicking.add_argument("--reason", default="", help="why; kept in the audit log")
        for one in (listing, kicking):
            one.add_argument("--json", action="store_true", help="one JSON object")

    def handle(self, *_args: Any, **options: Any) -> None:
        actor = Actor.shell()
        if options["action"] == "list":
            self._list(actor, options)
        else:
            self._kick(actor, options)

    def _list(self, actor: Actor, options: dict[str, Any]) -> None:
        wanted = Wanted(
            company_id=_company_id(actor, options["company"]) if options["company"] else "",
            user_id=_user_id(actor, options["user"]) if options["user"] else "",
            account=options["account"],
            state=options["state"],
        )
        found = _connections(actor, wanted)
        if not found:
            raise CommandError("no live connection matches")
        slugs = {one.company_id: one.slug for one in access.companies(actor)}
        rows = [_described(one, slugs) for one in found]
        if options["json"]:
            self.stdout.write(json.dumps({"count": len(rows), "connections": rows}, ensure_ascii=False))
            return
        for row in rows:
            accounts = ",".join(row["accounts"]) or "-"
            self.stdout.write(
                f"{row['session_id']}  {row['company']}/{row['username']}  {row['address']}  {row['state']}"
                f"  since {row['opened_at']}  messages {row['messages']}  accounts {accounts}"
            )

    def _kick(self, actor: Actor, options: dict[str, Any]) -> None:
        """One order for a session; for a user or a company one for each user."""
        if options["user"]:
            # Also where the list cannot be read: gateways find the order in the database.
            user_id = _user_id(actor, options["user"])
            found = _connections(actor, Wanted(user_id=user_id), may_fail=True)
            orders = {user_id: ""} if found or found is None else {}
        elif options["company"]:
            found = _connections(actor, Wanted(company_id=_company_id(actor, options["company"])))
            orders = dict.fromkeys((one.user_id for one in found or ()), "")
        else:
            wanted = options["session"]
            found = [one for one in _connections(actor, Wanted()) or () if one.session_id == wanted]
            orders = {one.user_id: wanted for one in found}
        if not orders:
            raise CommandError("no live connection matches: manage.py connections list shows what there is")
        for user_id, session_id in orders.items():
            try:
                access.kick(actor, user_id, session_id, reason=options["reason"])
            except NotVisible:
                # Deleted a moment ago; the connections end by that.
                continue
        sessions = None if found is None else sorted(one.session_id for one in found)
        if options["json"]:
            self.stdout.write(json.dumps({"kicked": None if sessions is None else len(sessions), "sessions": sessions}))
        elif sessions is None:
            self.stdout.write("ordered: Redis does not answer, so how many there are is not known; within 5 s they end")
        else:
            self.stdout.write(f"ordered: {len(sessions)} connections end within seconds")


def _connections(actor: Actor, wanted: Wanted, *, may_fail: bool = False) -> list[LiveConnection] | None:
    """None only with ``may_fail``, where the list cannot be read."""
    try:
        return connections_for(actor, wanted)
    except LiveUnavailable as error:
        if may_fail:
            return None
        raise CommandError(str(error)) from None


def _company_id(actor: Actor, slug: str) -> str:
    for one in access.companies(actor):
        if one.slug == slug:
            return one.company_id
    raise CommandError(f"there is no company with the short name {slug}: look it up under Companies in /admin/")


def _user_id(actor: Actor, username: str) -> str:
    try:
        return str(access.person_named(actor, username).pk)
    except NotVisible:
        raise CommandError(f"there is no user named {username}: look it up under Users in /admin/") from None


def _described(one: LiveConnection, slugs: dict[str, str]) -> dict[str, Any]:
    return {
        **{name: getattr(one, name) for name in _FIELDS},
        "company": slugs.get(one.company_id, ""),
        "accounts": one.accounts,
        "opened_at": _iso(one.opened_at),
        # How old these figures are.
        "age_s": round(max(0.0, time.time() - one.seen_at), 1),
    }


def _iso(moment: float) -> str:
    opened_at = datetime.datetime.fromtimestamp(moment, tz=datetime.UTC)
    return timezone.localtime(opened_at).isoformat(timespec="seconds")
