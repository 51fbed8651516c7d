"""``manage.py gateway``: serves HTTP and WebSocket, in one process or several on one port. Room: gateway_project."""

import logging
import os
import sys
import threading
from argparse import ArgumentParser
from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway_project.processes import follow_parent, is_child, run_processes
from gateway_project.server import listen, serve, server_config

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = "Serves terminals and the HTTP pages until SIGTERM, then drains."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
        parser.add_argument("--port", type=int, default=settings.GATEWAY_PORT, help="port (default GATEWAY_PORT)")
        parser.add_argument("--processes", type=int, default=1, help="serving processes on the one port (default 1)")
        parser.add_argument("--ssl-certfile", default="", help="PEM certificate; without it TLS is the proxy's")
        parser.add_argument("--ssl-keyfile", default="", help="PEM key of the certificate")

    def handle(self, *_args: Any, **options: Any) -> None:
        if not settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS:
            raise CommandError(
                "no Kafka: set GATEWAY_KAFKA_BOOTSTRAP_SERVERS, or start everything on this machine with 'make run'"
            )
        if options["processes"] < 1:
            raise CommandError("--processes takes a number of at least 1")
        if bool(options["ssl_certfile"]) != bool(options["ssl_keyfile"]):
            raise CommandError("--ssl-certfile and --ssl-keyfile go together")
        for name in settings.UNKNOWN_SETTINGS:
            log.warning("unknown_setting", name=name, hint="misspelt? .env.example lists all")
        host, port = options["host"], options["port"]
        shared = options["processes"] > 1 or is_child()
        try:
            listener = listen(host, port, shared=shared)
        except OSError as error:
            raise CommandError(f"cannot listen on {host}:{port}: {error.strerror}; --port takes another") from error
        if options["processes"] > 1:
            listener.close()
            command = [sys.executable, sys.argv[0], "gateway", "--host", host, "--port", str(port)]
            for name in ("ssl_certfile", "ssl_keyfile"):
                if options[name]:
                    command += [f"--{name.replace('_', '-')}", options[name]]
            sys.exit(run_processes(command, options["processes"]))
        follow_parent()
        # Imported here: it starts Django's application, which a parent of processes does not need.
        from gateway_project.asgi import application

        ssl = {name: options[name] for name in ("ssl_certfile", "ssl_keyfile") if options[name]}
        log.info(
            "gateway_starts", host=host, port=port, pid=os.getpid(), kafka=settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS
        )
        serve(listener, server_config(application, message_size_limit=settings.GATEWAY_MESSAGE_SIZE_LIMIT, ssl=ssl))
        log.info("gateway_stopped", pid=os.getpid())
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("access")]
        for thread in threads:
            thread.join(timeout=0.2)
        if any(thread.is_alive() for thread in threads):
            # Python would wait for them, and they for a database that does not answer any more.
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)
