"""What the operator's commands share: who acts, and how rows are found by name. Room: tenants."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from tenants.access import Actor, NotVisible, find
from tenants.models import Company, User


def shell_actor() -> Actor:
    return Actor.shell()


def company_named(actor: Actor, slug: str) -> Company:
    """Raises CommandError."""
    try:
        return find(actor, Company, slug=slug)
    except NotVisible:
        raise CommandError(
            f"there is no company with the short name {slug}: look it up under Companies in /admin/"
        ) from None


def user_named(actor: Actor, username: str) -> User:
    """Raises CommandError."""
    try:
        return find(actor, User, username=username)
    except NotVisible:
        raise CommandError(f"there is no user named {username}: look it up under Users in /admin/") from None


def add_actions(parser: ArgumentParser, name: str, help_of_name: str, actions: dict[str, str]) -> dict[str, Any]:
    """A sub-command for each action (name: help) that takes one name and --json; the sub-parsers, by action."""
    chosen = parser.add_subparsers(dest="action", required=True)
    parsers = {}
    for action, text in actions.items():
        parsers[action] = chosen.add_parser(action, help=text)
        parsers[action].add_argument(name, help=help_of_name)
        parsers[action].add_argument("--json", action="store_true", help="one JSON object")
    return parsers


def usage(used: int, limit: int) -> dict[str, int]:
    return {"used": used, "limit": limit}
