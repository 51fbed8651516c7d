"""``manage.py company``: shows, suspends and resumes a company from a shell. Room: tenants."""

import dataclasses
import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tenants.access import Actor, set_company_status, visible
from tenants.management.shell import add_actions, company_named, shell_actor, usage
from tenants.models import Company, MT5Account, User, limits_of

_ACTIONS = {
    "show": "the company's plan, limits and use",
    "suspend": "lets nobody of the company in and ends their live connections within seconds",
    "resume": "lets a suspended company in again",
}


class Command(BaseCommand):
    help = "Shows, suspends or resumes a company."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parsers = add_actions(parser, "slug", "the company's short name", _ACTIONS)
        for action in ("suspend", "resume"):
            parsers[action].add_argument("--reason", default="", help="why; kept with the company and in the audit log")

    def handle(self, *_args: Any, **options: Any) -> None:
        actor, action = shell_actor(), options["action"]
        company = company_named(actor, options["slug"])
        if action == "suspend":
            set_company_status(actor, company, Company.Status.SUSPENDED, options["reason"])
        elif action == "resume":
            if company.status == Company.Status.UNPAID:
                raise CommandError(
                    f"{company.slug} is unpaid, not suspended: record its payment, which lets it in again"
                )
            if company.status != Company.Status.ACTIVE:
                set_company_status(actor, company, Company.Status.ACTIVE, options["reason"])
        found = _describe(actor, company_named(actor, company.slug))
        self.stdout.write(json.dumps(found, ensure_ascii=False) if options["json"] else _text(found))


def _describe(actor: Actor, company: Company) -> dict[str, Any]:
    limits = limits_of(company)
    paid_until = company.paid_until
    return {
        "slug": company.slug,
        "name": company.name,
        "tier": company.tier.code,
        "status": company.status,
        "status_reason": company.status_reason,
        "paid_until": None if paid_until is None else paid_until.isoformat(),
        "access_version": company.access_version,
        "limits": dataclasses.asdict(limits),
        "users": usage(visible(actor, User).filter(company=company).count(), limits.user_limit),
        "accounts": usage(visible(actor, MT5Account).filter(company=company).count(), limits.company_account_limit),
    }


def _text(found: dict[str, Any]) -> str:
    reason = f" ({found['status_reason']})" if found["status_reason"] else ""
    lines = [
        f"{found['name']} ({found['slug']})",
        f"  status          {found['status']}{reason}",
        f"  plan            {found['tier']}",
        f"  paid until      {found['paid_until'] or 'not limited in time'}",
        f"  access version  {found['access_version']}",
        f"  users           {found['users']['used']} of {found['users']['limit']}",
        f"  MT5 accounts    {found['accounts']['used']} of {found['accounts']['limit']}",
        "  limits",
        *(f"    {name:26}{value}" for name, value in found["limits"].items()),
    ]
    return "\n".join(lines)
