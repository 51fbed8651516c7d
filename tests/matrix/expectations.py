"""Who may do what: a row for each address, each page of the admin, each action and each WebSocket message.

Whoever adds one of these adds its row here; the tests say so when it is missing. Codes are HTTP statuses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Model

from billing.models import (
    AccessGrant,
    BillingEntry,
    Invoice,
    PaymentAttempt,
    PaymentMethod,
    Plan,
    Price,
    Refund,
    Subscription,
    Transaction,
    WebhookReceipt,
)
from tenants.models import (
    ActivePair,
    ApiKey,
    AuditEntry,
    Ban,
    Company,
    MT5Account,
    RevokedToken,
    SubscriptionTier,
    User,
)

ALL = ("operator", "company_admin", "trader", "anonymous")


@dataclass(frozen=True)
class Page:
    """What a GET is answered with, by role. ``company_admin``: of the own row; another's is always 404.

    ``ids``: of whose row an argument of the address is the id; ``fixed``: the other arguments. An argument that is
    called as a field of the row, such as an invoice's number, is that field.
    """

    operator: int = 200
    company_admin: int = 200
    trader: int = 302
    anonymous: int = 302
    ids: Mapping[str, type[Model]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    # Of another company's row, and of none.
    foreign: int = 404
    # A word of the own company must be on the page: it would pass for silent if it were empty.
    shows_own: bool = False

    def status(self, role: str) -> int:
        return int(getattr(self, role))


def _open(status: int, **more: Any) -> Page:
    """The same for everybody."""
    return Page(status, status, status, status, **more)


_LINK = {"uidb64": "ZDRkNGQ0ZDQtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAx", "token": "no-token"}

# By the name of the address; where it has none, by its path. The pages of each model are in ADMIN.
PAGES: dict[str, Page] = {
    # --- Signing in: open to whoever comes; "security" asks for a session of the admin
    "sign-in-code": _open(302),
    "sign-in-set-up": _open(302),
    "security": Page(shows_own=True),
    "security-set-up": Page(),
    "security-turn-off": Page(),
    "security-recovery-codes": Page(302, 302),
    "invitation-done": _open(302),
    "invitation": _open(410, fixed=_LINK),
    "password-reset": _open(200),
    "password-reset-sent": _open(200),
    "password-reset-done": _open(200),
    "password-reset-link": _open(410, fixed=_LINK),
    "set_language": _open(302),
    # --- The admin itself
    "admin:login": Page(302, 302, 200, 200),
    "admin:logout": _open(405),
    "admin:index": Page(shows_own=True),
    "admin:password_change": Page(),
    "admin:password_change_done": Page(),
    "admin:autocomplete": Page(403, 403),
    "admin:jsi18n": Page(trader=302, anonymous=302),
    "admin:view_on_site": Page(404, 404, fixed={"content_type_id": "1"}, ids={"object_id": User}),
    "admin:app_list": Page(fixed={"app_label": "tenants"}),
    "admin/(?P<url>.*)$": Page(404, 404, fixed={"url": "no/such/page"}),
    "admin:tenants_mt5account_import": Page(),
    "admin:tenants_mt5account_sample": Page(shows_own=True),
    "admin:tenants_mt5account_export": Page(shows_own=True),
    "admin:tenants_apikey_rotate": Page(ids={"id": ApiKey}),
    "admin:tenants_apikey_seen": Page(ids={"id": ApiKey}),
    "admin:tenants_user_export": Page(shows_own=True),
    "admin:tenants_user_password": Page(ids={"id": User}),
    # --- Live connections
    "live:list": Page(shows_own=True),
    "live:kick_user": Page(ids={"user_id": User}),
    "live:kick": Page(ids={"user_id": User}, fixed={"session_id": "0123456789abcdef"}),
    "live:follow": Page(ids={"user_id": User}),
    "live:follow_events": Page(ids={"user_id": User}),
    # --- Plan and payments
    "billing:plan": Page(302, 302),
    "billing:company": Page(ids={"company_id": Company}, shows_own=True),
    "billing:choose": Page(ids={"company_id": Company, "price_id": Price}),
    "billing:cancel": Page(ids={"company_id": Company}),
    "billing:withdraw": Page(302, 302, ids={"company_id": Company}),
    "billing:invoices": Page(ids={"company_id": Company}, shows_own=True),
    "billing:methods": Page(ids={"company_id": Company}, shows_own=True),
    "billing:invoice": Page(ids={"number": Invoice}, shows_own=True),
    "billing:pay": Page(405, 405, ids={"number": Invoice}, foreign=405),
    "billing:ask": Page(405, 405, ids={"number": Invoice}, foreign=405),
    "billing:pdf": Page(ids={"number": Invoice}, fixed={"language": "id"}),
    "billing:remove_method": Page(ids={"method_id": PaymentMethod}, shows_own=True),
    "billing:default_method": Page(ids={"method_id": PaymentMethod}, shows_own=True),
    "admin:billing_webhookreceipt_replay": Page(200, 404, ids={"id": WebhookReceipt}),
    "admin:billing_paymentattempt_look": Page(200, 404, ids={"id": PaymentAttempt}),
    "admin:billing_transaction_refund": Page(200, 404, ids={"id": Transaction}),
    "admin:billing_transaction_cancel": Page(200, 404, ids={"id": Transaction}),
    "midtrans-notification": _open(405),
    "billing-events": _open(405),
    # --- The process, and terminals
    "livez": _open(200),
    "readyz": _open(200),
    "metrics": _open(200),
    "version": _open(200),
    "exchange-api-key": _open(405),
}


@dataclass(frozen=True)
class Admin:
    """What each role may do with the rows of a model: letters of "view, add, change, delete". Others may nothing."""

    operator: str = "vacd"
    company_admin: str = ""
    # A company admin with one row only is led to it.
    company_list: int = 200


ADMIN: dict[type[Model], Admin] = {
    AccessGrant: Admin("va"),
    ActivePair: Admin(company_admin="vacd"),
    ApiKey: Admin("va", "va"),
    AuditEntry: Admin("v", "v"),
    Ban: Admin("v", "v"),
    BillingEntry: Admin("v"),
    Company: Admin(company_admin="v", company_list=302),
    Invoice: Admin("v"),
    MT5Account: Admin(company_admin="vacd"),
    PaymentAttempt: Admin("v"),
    PaymentMethod: Admin("v"),
    Plan: Admin("vc"),
    Price: Admin("vac"),
    Refund: Admin("v"),
    RevokedToken: Admin("va"),
    Subscription: Admin("v"),
    SubscriptionTier: Admin(),
    Transaction: Admin("v"),
    User: Admin(company_admin="vacd"),
    WebhookReceipt: Admin("v"),
}

# (model, action) -> the roles that find it in the list. "delete_selected" goes with the letter d of ADMIN.
ACTIONS: dict[tuple[type[Model], str], tuple[str, ...]] = {
    (AccessGrant, "revoke"): ("operator",),
    (ApiKey, "revoke"): ("operator", "company_admin"),
    (Ban, "lift"): ("operator",),
    (Company, "resume"): ("operator",),
    (Company, "suspend"): ("operator",),
    (MT5Account, "disable"): ("operator", "company_admin"),
    (MT5Account, "enable"): ("operator", "company_admin"),
    (Transaction, "reviewed"): ("operator",),
    (User, "ban"): ("operator",),
    (User, "disable"): ("operator", "company_admin"),
    (User, "enable"): ("operator", "company_admin"),
    (User, "invite_again"): ("operator", "company_admin"),
    (User, "remove_device"): ("operator", "company_admin"),
    (WebhookReceipt, "reprocess"): ("operator",),
}
# What the pages in between ask for.
ACTION_FIELDS = {"post": "yes", "hours": "24", "detail": "why", "reason": "why", "because": "why"}

# WebSocket route -> the roles that it lets in.
SOCKETS: dict[str, tuple[str, ...]] = {"ws/mt5": ("company_admin", "trader"), "": ()}
# Message type from a client -> what answers it when all is well.
MESSAGES: dict[str, str] = {
    "tick_data": "gateway.ack",
    "trading_signal": "gateway.ack",
    "user_event": "gateway.ack",
    "notification": "gateway.ack",
    "gateway.ping": "gateway.pong",
    "gateway.refresh": "gateway.policy",
}
