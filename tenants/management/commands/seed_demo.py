"""``manage.py seed_demo``: the demo's companies and logins. Room: tenants."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from tenants.demo import seed_demo


class Command(BaseCommand):
    help = "Makes one demo company of each plan; a second run changes nothing and prints the same."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object")

    def handle(self, *_args: Any, **options: Any) -> None:
        if settings.IS_PRODUCTION:
            raise CommandError("demo companies are for development machines")
        demo = seed_demo(settings.GATEWAY_STATE_DIR / "demo.json")
        if options["json"]:
            self.stdout.write(json.dumps(demo))
            return
        for company in demo["companies"]:
            self.stdout.write(f"{company['name']} ({company['tier']})")
            for user in demo["users"]:
                if user["company"] == company["slug"]:
                    line = f"  {user['role']:14} {user['username']:16} {user['password']}  key {user['api_key']}"
                    self.stdout.write(line)
        operator = next(user for user in demo["users"] if user["role"] == "operator")
        self.stdout.write(f"operator of /admin/: {operator['username']} {operator['password']}")
