"""``manage.py issue_token``: one JWT on standard output. Room: tenants."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from tenants.access import Actor, visible
from tenants.models import User
from tenants.tokens import issue_for


class Command(BaseCommand):
    help = "Prints one token of a user and nothing else."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", required=True, help="user name")
        parser.add_argument("--ttl", type=int, default=int(settings.GATEWAY_TOKEN_TTL), help="seconds (default 3600)")

    def handle(self, *_args: Any, **options: Any) -> None:
        ttl, limit = options["ttl"], int(settings.GATEWAY_TOKEN_TTL_LIMIT)
        if not 1 <= ttl <= limit:
            raise CommandError(f"--ttl takes 1 to {limit} seconds")
        people = visible(Actor.system("issue_token"), User).select_related("company__tier")
        user = people.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"there is no user named {options['user']}")
        if not user.is_active:
            raise CommandError("this user is disabled")
        if user.company is None:
            raise CommandError("operators have no company: name a trader or a company admin")
        self.stdout.write(issue_for(user, ttl))
