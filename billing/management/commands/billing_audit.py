"""``manage.py billing_audit``: proves the books. Room: billing."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from billing import audit


class Command(BaseCommand):
    help = "Exit status 0: money, time and access tell the same story. 1: they do not, and here is where."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="the report as one JSON object")

    def handle(self, *_args: Any, **options: Any) -> None:
        report = audit.run()
        if options["json"]:
            self.stdout.write(json.dumps(asdict(report), indent=1))
        else:
            for finding in report.findings:
                self.stdout.write(f"{finding.rule}: {finding.subject}: {finding.detail}")
            self.stdout.write(
                f"{len(report.findings)} findings in {report.invoices} invoices, {report.attempts} attempts, "
                f"{report.transactions} transactions, {report.grants} grants of {report.companies} companies; "
                f"{report.outside} companies are outside of billing"
            )
        if report.findings:
            raise SystemExit(1)
