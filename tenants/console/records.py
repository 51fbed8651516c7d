"""What is read rather than written: bans, revoked tokens, the audit log. Room: tenants."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef, QuerySet, Value
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from tenants import access
from tenants.access import visible
from tenants.console.base import ScopedAdmin
from tenants.console.scoping import actor_of
from tenants.models import AuditEntry, Ban, RevokedToken, User


@admin.register(Ban)
class BanAdmin(ScopedAdmin):
    """Set by gateways and on the list of users."""

    operator_may = company_may = frozenset({"view"})
    list_display = (
        "user",
        "company",
        "scope",
        "earned_by",
        "reason",
        "detail",
        "starts_at",
        "until",
        "state",
        "repeat",
    )
    list_filter = ("reason", "is_for_all")
    search_fields = ("user__username", "account", "session_id", "detail", "user__company__name")
    search_help_text = gettext_lazy("User, MT5 account, connection or detail")
    date_hierarchy = "starts_at"
    list_select_related = ("user__company", "api_key")
    actions = ("lift",)
    fields = readonly_fields = (
        "user", "scope", "reason", "account", "api_key", "session_id", "detail", "starts_at", "until", "repeat",
        "state", "lifted_at", "lifted_by",
    )  # fmt: skip
    empty_text = gettext_lazy("No bans: nobody sent too many errors or too much.")

    @admin.display(description=gettext_lazy("company"), ordering="user__company__name")
    def company(self, ban: Ban) -> str:
        return str(ban.user.company)

    @admin.display(description=gettext_lazy("kept out"), ordering="is_for_all")
    def scope(self, ban: Ban) -> str:
        """What of the user is not let in while the ban lasts."""
        if ban.is_for_all:
            return _("all connections")
        if ban.account:
            return _("MT5 account %(account)s") % {"account": ban.account}
        if ban.api_key is not None:
            return _("API key %(key)s…") % {"key": ban.api_key.prefix}
        return _("connections without account and key")

    @admin.display(description=gettext_lazy("earned by"))
    def earned_by(self, ban: Ban) -> str:
        """The connection whose messages they were, as far as is known."""
        parts = []
        if ban.account:
            parts.append(_("MT5 account %(account)s") % {"account": ban.account})
        if ban.api_key is not None:
            parts.append(_("API key %(key)s…") % {"key": ban.api_key.prefix})
        if ban.session_id:
            parts.append(_("connection %(session)s") % {"session": ban.session_id})
        return ", ".join(parts) or "–"

    @admin.display(description=gettext_lazy("state"))
    def state(self, ban: Ban) -> str:
        if ban.lifted_at is not None:
            return _("lifted")
        return _("in force") if ban.until > timezone.now() else _("over")

    def has_lift_permission(self, request: HttpRequest) -> bool:
        return actor_of(request).sees_all

    @admin.action(description=gettext_lazy("Lift all bans of the chosen users"), permissions=["lift"])
    def lift(self, request: HttpRequest, queryset: QuerySet[Ban]) -> None:
        people = sorted({str(user_id) for user_id in queryset.values_list("user_id", flat=True)})
        count = sum(access.lift_bans(actor_of(request), user_id) for user_id in people)
        text = ngettext("%(count)d ban is lifted.", "%(count)d bans are lifted.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)


@admin.register(RevokedToken)
class RevokedTokenAdmin(ScopedAdmin):
    """Added, never taken back; the worker removes what has expired."""

    operator_may = frozenset({"view", "add"})
    list_display = ("jti", "user", "expires_at", "revoked_at")
    search_fields = ("jti", "user__username")
    date_hierarchy = "revoked_at"
    list_select_related = ("user",)
    fields = ("jti", "user", "expires_at")
    empty_text = gettext_lazy("No revoked tokens: to cut off a terminal, revoke its API key or disable its user.")

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("user",)

    def save_model(self, request: HttpRequest, obj: RevokedToken, form: Any, change: bool) -> None:
        if change:
            raise PermissionDenied
        access.revoke_token(actor_of(request), obj.jti, obj.user, obj.expires_at.timestamp())
        obj.pk = visible(actor_of(request), RevokedToken).get(jti=obj.jti).pk


@admin.register(AuditEntry)
class AuditAdmin(ScopedAdmin):
    operator_may = company_may = frozenset({"view"})
    list_display = ("at", "actor", "action", "object_type", "object_name", "differences")
    list_display_links = ("at",)
    list_filter = ("action", "object_type")
    search_fields = ("actor", "object_name", "object_id")
    # The log only grows: counting all of it for each page would take longer every day.
    show_full_result_count = False
    search_help_text = gettext_lazy("Who, or what was changed")
    date_hierarchy = "at"
    fields = readonly_fields = (
        "at", "actor", "address_seen", "action", "object_type", "object_name", "object_id", "changes",
    )  # fmt: skip
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        actor = actor_of(request)
        if actor.sees_all:
            return rows
        own_people = visible(actor, User).filter(pk=OuterRef("actor_id"))
        noted: QuerySet[Any] = rows.annotate(is_for_company=Value(True), is_by_own=Exists(own_people))
        return noted

    @admin.display(description=gettext_lazy("address"))
    def address_seen(self, entry: AuditEntry) -> str:
        # Where an operator sits is not for a company's people.
        return entry.address if getattr(entry, "is_by_own", True) else ""

    @admin.display(description=gettext_lazy("changes"))
    def differences(self, entry: AuditEntry) -> SafeString | str:
        """In the list only where something was there before and after: what was added is on the entry's page."""
        return self.changes(entry) if entry.before and entry.after else ""

    @admin.display(description=gettext_lazy("changes"))
    def changes(self, entry: AuditEntry) -> SafeString:
        names = sorted(entry.before.keys() | entry.after.keys())
        if getattr(entry, "is_for_company", False):
            # Nor from which company somebody came.
            names = [name for name in names if name != "company"]
        # A new row has many fields with nothing in them.
        names = [name for name in names if entry.before.get(name) or entry.after.get(name)]
        lines = ((name, entry.before.get(name) or "–", entry.after.get(name) or "–") for name in names)
        return format_html_join("", "<div>{}: {} → {}</div>", lines)
