"""``manage.py billing_replay``: looks again after messages and orders. Room: billing."""

import datetime
import re
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from billing import clock
from billing.models import WebhookReceipt
from billing.replay import replay_order, replay_receipt
from tenants.access import Actor

_AGO = re.compile(r"(\d{1,6})([mhd])")
# Results after which it is as unsettled as before.
_OPEN_STILL = ("no answer", "not an order", "unknown company", "received", "waiting", "failed")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class Command(BaseCommand):
    help = "Asks Midtrans again, and applies the answer; doing it twice does no harm."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--receipt", type=int, action="append", default=[], metavar="ID", help="may be repeated")
        parser.add_argument("--order", action="append", default=[], metavar="ORDER", help="may be repeated")
        parser.add_argument("--failed", action="store_true", help="every message that was given up")
        parser.add_argument(
            "--since", type=_moment, metavar="TIME", help='messages since "2026-11-25T08:00+07:00", or "2h", "3d" ago'
        )
        parser.add_argument("--dry-run", action="store_true", help="says what it would look after")

    def handle(self, *_args: Any, **options: Any) -> None:
        if not (options["receipt"] or options["order"] or options["failed"] or options["since"]):
            raise CommandError("say what: --receipt ID, --order ORDER, --failed, --since TIME")
        actor = Actor.shell().name
        rows = _receipts(options)
        missing = sorted(set(options["receipt"]) - {row.pk for row in rows})
        if missing:
            raise CommandError(f"no such receipt: {', '.join(map(str, missing))}")
        results: list[str] = []
        for row in rows:
            results.append("-" if options["dry_run"] else replay_receipt(row.pk, actor=actor))
            self.stdout.write(f"receipt {row.pk} {row.source} {row.order_id or '-'} {row.verdict}: {results[-1]}")
        for order_id in options["order"]:
            results.append("-" if options["dry_run"] else replay_order(order_id, actor=actor))
            self.stdout.write(f"order {order_id}: {results[-1]}")
        if options["dry_run"]:
            self.stdout.write(f"{len(results)} to look after")
            return
        left = sum(result.startswith(_OPEN_STILL) for result in results)
        self.stdout.write(f"{len(results) - left} done")
        if left:
            raise CommandError(f"{left} of {len(results)} came to nothing: the lines above say why")


def _receipts(options: dict[str, Any]) -> list[WebhookReceipt]:
    """Oldest first."""
    rows: QuerySet[WebhookReceipt] = WebhookReceipt.objects.order_by("pk")
    chosen = rows.filter(pk__in=options["receipt"])
    if options["failed"] or options["since"]:
        found = rows
        if options["failed"]:
            found = found.filter(verdict=WebhookReceipt.Verdict.FAILED)
        if options["since"]:
            found = found.filter(received_at__gte=options["since"])
        chosen = chosen | found
    return list(chosen)


def _moment(text: str) -> datetime.datetime:
    if match := _AGO.fullmatch(text):
        return clock.now() - datetime.timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None:
        raise ArgumentTypeError('use a time as "2026-11-25T08:00+07:00", or "90m", "2h", "3d" ago')
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment
