"""What a company admin sees first. Room: tenants."""

from dataclasses import dataclass
from typing import Any

from django import template
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from tenants.access import Actor, visible
from tenants.console.places import accounts_place, users_place
from tenants.console.scoping import actor_of
from tenants.models import ActivePair, ApiKey, Company, MT5Account, User

register = template.Library()


@dataclass(frozen=True, slots=True)
class Step:
    """``state``: what there is already."""

    label: str
    url: str
    is_done: bool
    state: str


@register.inclusion_tag("admin/tenants/next_steps.html", takes_context=True)
def next_steps(context: dict[str, Any]) -> dict[str, Any]:
    """From an empty company to a terminal that sends; nothing for an operator."""
    actor = actor_of(context["request"])
    if not actor.is_company_admin:
        return {}
    company = visible(actor, Company).select_related("tier").get()
    steps = _steps(actor, company)
    return {"company": company, "steps": steps, "is_done": all(step.is_done for step in steps)}


def _steps(actor: Actor, company: Company) -> list[Step]:
    people = visible(actor, User)
    accounts = visible(actor, MT5Account)
    pairs = visible(actor, ActivePair)
    keys = visible(actor, ApiKey).filter(revoked_at__isnull=True)
    traders = people.exclude(role=User.Role.COMPANY_ADMIN)
    seen = accounts.filter(is_online=True).count()
    was_seen = accounts.filter(last_seen_at__isnull=False).exists()
    users, registered = users_place(company), accounts_place(company)
    # A plan for one person: whoever leads the company is who trades, and every step is for oneself.
    is_alone = users.limit <= 1 and not traders.exists()
    first = actor.user_id if is_alone else traders.order_by("username").values_list("pk", flat=True).first()
    people_list = reverse("admin:tenants_user_changelist")
    pairs_url = reverse("admin:tenants_user_change", args=[first]) if first else people_list
    account_add = reverse("admin:tenants_mt5account_add")
    accounts_list = reverse("admin:tenants_mt5account_changelist")
    if is_alone:
        begin = Step(_("The plan has one user: you. Go on with your own account"), pairs_url, True, users.text)
    else:
        begin = Step(_("Invite a user"), _to("user", users.taken > 1), traders.exists(), users.text)
    return [
        begin,
        Step(
            _("Register an MT5 account"),
            accounts_list if registered.taken else account_add,
            registered.taken > 0,
            registered.text,
        ),
        Step(
            _("Choose the pairs whose data is taken"),
            pairs_url,
            pairs.exists(),
            ngettext("%(count)d active pair", "%(count)d active pairs", count := pairs.count()) % {"count": count},
        ),
        Step(
            _("Issue an API key and enter it at the terminal"),
            _to("apikey", keys.exists()),
            keys.exists(),
            ngettext("%(count)d key in use", "%(count)d keys in use", count := keys.count()) % {"count": count},
        ),
        Step(_("See the terminal online"), accounts_list, was_seen, _("%(count)d online now") % {"count": seen}),
    ]


def _to(model: str, has_rows: bool) -> str:
    return reverse(f"admin:tenants_{model}_changelist" if has_rows else f"admin:tenants_{model}_add")
