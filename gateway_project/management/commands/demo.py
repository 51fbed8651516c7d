"""``manage.py demo``: the whole product on one machine, and one screen that shows it. Room: gateway_project (demo).

``make run`` ends here.
"""

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway_project.demo.screen import Screen
from gateway_project.demo.supervisor import Supervisor


class Command(BaseCommand):
    help = "Development only: starts everything, shows what goes through, stops everything with Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=settings.GATEWAY_PORT, help="port (default GATEWAY_PORT)")

    def handle(self, *_args: Any, **options: Any) -> None:
        if settings.IS_PRODUCTION:
            raise CommandError("the demo is for development machines; production runs gateway and worker by themselves")
        sys.exit(Supervisor(options["port"], Screen()).run())
