"""``manage.py midtrans_sandbox``: a stand-in for Midtrans, for tests and demonstrations. Room: billing (sandbox)."""

import asyncio
import json
import socket
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from billing.sandbox.server import serve
from billing.sandbox.state import Sandbox


class Command(BaseCommand):
    help = "Development only: plays Midtrans until SIGTERM. Forgets everything at its end."
    # It stands on nothing of the product that a check looks at, and says itself what it refuses.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, required=True, help="0: any free one, which is printed")
        parser.add_argument(
            "--notification-url",
            default=f"http://127.0.0.1:{settings.RUNNING_GATEWAY_PORT}/billing/midtrans/notifications/",
            help="where payments are told (default %(default)s); empty: nowhere",
        )
        parser.add_argument(
            "--time-factor",
            type=float,
            default=60.0,
            help="how many times faster than Midtrans it repeats notifications (default %(default)s)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        if settings.IS_PRODUCTION:
            raise CommandError("the stand-in for Midtrans is for development machines: it takes payments that are none")
        if options["time_factor"] <= 0:
            raise CommandError("--time-factor is a number above 0")
        listener = socket.socket(socket.AF_INET6 if ":" in options["host"] else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((options["host"], options["port"]))
        except OSError as error:
            raise CommandError(f"cannot listen on {options['host']}:{options['port']}: {error.strerror}") from error
        host = f"[{options['host']}]" if ":" in options["host"] else options["host"]
        address = f"http://{host}:{listener.getsockname()[1]}"
        sandbox = Sandbox(
            server_key=settings.MIDTRANS_SERVER_KEY,
            notification_url=options["notification_url"],
            address=address,
            time_factor=options["time_factor"],
        )
        self.stdout.write(f"Midtrans stand-in on {address}, Ctrl-C stops it")
        # For whoever has started it on any port.
        self.stdout.write(json.dumps({"port": listener.getsockname()[1]}))
        self.stdout.flush()
        asyncio.run(serve(sandbox, listener))
