"""``manage.py seed_bench``: users whose limits do not bind, for measurements. Room: tenants."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from tenants.seeds import bench_users, tokens_of

_TTL = 24 * 3600


class Command(BaseCommand):
    help = "Makes users without binding limits and prints their tokens (24 h); only with GATEWAY_BENCHMARK=1."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--users", type=int, required=True, help="how many")
        parser.add_argument("--json", action="store_true", help="one JSON object, else one token a line")

    def handle(self, *_args: Any, **options: Any) -> None:
        if not settings.GATEWAY_BENCHMARK or settings.IS_PRODUCTION:
            raise CommandError("users without limits exist only with GATEWAY_BENCHMARK=1, never in production")
        if options["users"] < 1:
            raise CommandError("--users takes a number of at least 1")
        users = bench_users(options["users"])
        tokens = tokens_of(users, _TTL)
        if not options["json"]:
            self.stdout.write("\n".join(tokens))
            return
        rows = [
            {"user_id": str(user.pk), "username": user.username, "token": token}
            for user, token in zip(users, tokens, strict=True)
        ]
        self.stdout.write(json.dumps({"users": rows}))
