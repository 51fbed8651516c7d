"""API keys in the admin: issued, rotated, revoked; each shown once and never again. Room: tenants."""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.csrf import csrf_protect

from tenants import access
from tenants.api_keys import ROTATION_OVERLAP
from tenants.console.base import ScopedAdmin
from tenants.console.inlines import ScopedInline
from tenants.console.pages import Tool, confirm, is_confirmed, page_context
from tenants.console.scoping import ScopedForm, ScopedRelatedFilter, actor_of
from tenants.console.seen import seen
from tenants.models import ApiKey, MT5Account, User
from tenants.scope import Actor, NotVisible, find, visible
from tenants.terminal import as_uuid


def state_of(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return _("revoked")
    if key.expires_at is not None and key.expires_at <= timezone.now():
        return _("expired")
    return _("replaced, ends soon") if key.replaced_by_id is not None else _("in use")


def public_url(request: HttpRequest) -> str:
    return str(settings.GATEWAY_PUBLIC_URL or request.build_absolute_uri("/").rstrip("/"))


def terminal_address(request: HttpRequest) -> str:
    """Where terminals connect; http becomes ws, https becomes wss."""
    return public_url(request).replace("http", "ws", 1) + "/ws/mt5"


class KeyForm(ScopedForm):
    """The account says whose key it is; without one the user is chosen."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        account, user = self.fields.get("account"), self.fields.get("user")
        if account is None or user is None:
            return
        rows = account.queryset.filter(is_active=True).select_related("owner")  # type: ignore[attr-defined]
        account.queryset = rows  # type: ignore[attr-defined]
        account.label_from_instance = lambda row: f"{row} · {row.owner}"  # type: ignore[attr-defined]
        account.empty_label = _("none: the address or each message names the account")  # type: ignore[attr-defined]
        user.required = False
        user.help_text = _("only where no account is chosen")
        if chosen := self.initial.get("user"):
            rows = rows.filter(owner=chosen) if as_uuid(str(chosen)) else rows.none()
        if "account" not in self.initial and len(only := rows[:2]) == 1:
            self.initial["account"] = only[0].pk

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "account" not in self.fields or "account" in self.errors or "user" in self.errors:
            return cleaned
        account, user = cleaned.get("account"), cleaned.get("user")
        if account is None and user is None:
            self.add_error("account", _("Choose the MT5 account that the key is for, or a user."))
        elif account is not None and user is not None and account.owner != user:
            text = _("This account belongs to %(owner)s: choose that user, or none.")
            self.add_error("account", text % {"owner": account.owner})
        elif account is not None:
            cleaned["user"] = account.owner
        return cleaned

    def clean_expires_at(self) -> Any:
        moment = self.cleaned_data["expires_at"]
        if moment is not None and moment <= timezone.now():
            raise ValidationError(_("This is over already: choose a later time, or leave it empty."))
        return moment


def _found(actor: Actor, model: type[Any], key: str) -> Any:
    try:
        return find(actor, model, pk=key)
    except NotVisible:
        return None


def _logins_of(request: HttpRequest, key: ApiKey) -> list[str]:
    """Of whom a terminal with an unbound key may be; a user with one need not name it."""
    rows = visible(actor_of(request), MT5Account).filter(owner=key.user, is_active=True)
    logins = list(rows.values_list("login", flat=True))
    return logins if len(logins) > 1 else []


class KeyInline(ScopedInline):
    model = ApiKey
    operator_may = company_may = frozenset({"view"})
    fields = readonly_fields = ("prefix", "name", "account", "scope", "state", "last_used_at", "expires_at")
    can_delete = False
    show_change_link = True

    @admin.display(description=gettext_lazy("state"))
    def state(self, key: ApiKey) -> str:
        return state_of(key)


@admin.register(ApiKey)
class KeyAdmin(ScopedAdmin):
    # A key is never changed or deleted: its row says who had it until when.
    operator_may = company_may = frozenset({"view", "add"})
    form = KeyForm
    list_display = (
        "prefix", "name", "user", "account", "company", "scope", "state", "created_at", "last_used_at", "expires_at",
    )  # fmt: skip
    list_filter = ("scope", ("user", ScopedRelatedFilter))
    search_fields = ("prefix", "name", "user__username", "account__login", "user__company__name")
    search_help_text = gettext_lazy("Beginning of the key, name, user or MT5 account")
    date_hierarchy = "created_at"
    list_select_related = ("user__company", "account")
    actions = ("revoke",)
    linked_lookups = ("user__id__exact",)
    empty_text = gettext_lazy("No API keys yet: issue one for each terminal, so that each can be revoked by itself.")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ("account", "user", "name", "scope", "expires_at")
        return (
            "prefix",
            "account",
            "user",
            "name",
            "scope",
            "state",
            "created_at",
            "last_used_at",
            "expires_at",
            "revoked_at",
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else self.get_fields(request, obj)

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> Any:
        # Nothing here is written by save_row: the door has functions of its own for keys.
        return None

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("account", "user") if actor_of(request).sees_all else ()

    def choices(self, request: HttpRequest, db_field: Any) -> QuerySet[Any]:
        return super().choices(request, db_field).filter(company__isnull=False)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Names a row only where it is the actor's to see: a form has nothing of others."""
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        for name, model in (("account", MT5Account), ("user", User)):
            if name in initial and _found(actor_of(request), model, str(initial[name])) is None:
                del initial[name]
        return initial

    @admin.display(description=gettext_lazy("company"), ordering="user__company__name")
    def company(self, key: ApiKey) -> str:
        return str(key.user.company)

    @admin.display(description=gettext_lazy("state"))
    def state(self, key: ApiKey) -> str:
        return state_of(key)

    def object_tools(self, request: HttpRequest, obj: Any) -> list[Tool]:
        if obj.revoked_at is not None or obj.replaced_by_id is not None:
            return []
        return [Tool(reverse("admin:tenants_apikey_rotate", args=[obj.pk]), _("Rotate"))]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        # The answer shows the key, whichever button was pressed: one is enough.
        one_button = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**one_button, **(extra_context or {})})

    # --- Issuing and rotating -----------------------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            raise PermissionDenied
        key, row = access.create_api_key(
            actor_of(request), obj.user, obj.name, scope=obj.scope, expires_at=obj.expires_at, account=obj.account
        )
        # The admin's log and its answer name the key by these.
        obj.pk, obj.prefix = row.pk, row.prefix
        request.issued_key = key  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        return self._show_once(request, request.issued_key, obj)  # type: ignore[attr-defined]

    def _show_once(self, request: HttpRequest, key: str, row: ApiKey, replaced: ApiKey | None = None) -> HttpResponse:
        """The answer to the very request that made the key: it is kept nowhere, so it cannot be shown again."""
        context = {
            **page_context(self, request, _("Your new API key")),
            "key": key,
            "row": row,
            "replaced": replaced,
            "address": terminal_address(request),
            "exchange": public_url(request) + reverse("exchange-api-key"),
            "logins": [] if row.account is not None else _logins_of(request, row),
            "seen_url": reverse("admin:tenants_apikey_seen", args=[row.pk]),
            "seen": seen(row),
        }
        answer = TemplateResponse(request, "admin/tenants/new_key.html", context)
        answer["Cache-Control"] = "no-store"
        return answer

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        own = [
            path("<id>/rotate/", view(self.rotate), name="tenants_apikey_rotate"),
            path("<id>/seen/", view(self.seen), name="tenants_apikey_seen"),
        ]
        return [*own, *super().get_urls()]

    def seen(self, request: HttpRequest, id: str) -> HttpResponse:
        """What the page of a new key asks again and again: has its terminal come online?"""
        key = self.get_object(request, unquote(id))
        if key is None:
            return self.not_found(request)
        if not self.has_view_permission(request, key):
            raise PermissionDenied
        found = seen(key)
        answer = JsonResponse({"state": found.state, "text": found.text})
        answer["Cache-Control"] = "no-store"
        return answer

    @method_decorator(csrf_protect)
    def rotate(self, request: HttpRequest, id: str) -> HttpResponse:
        old = self.get_object(request, unquote(id))
        if old is None:
            return self.not_found(request)
        if not self.has_add_permission(request):
            raise PermissionDenied
        if old.revoked_at is not None or old.replaced_by_id is not None:
            return self._not_rotated(request, old)
        hours = round(ROTATION_OVERLAP.total_seconds() / 3_600)
        if request.method != "POST":
            text = _(
                "A new key with the same name takes the place of %(key)s, which goes on working for %(hours)d hours: "
                "enter the new one at the terminal in that time."
            )
            context = {
                **page_context(self, request, _("Rotate an API key")),
                "text": text % {"key": old, "hours": hours},
                "button": _("Rotate"),
            }
            return TemplateResponse(request, "admin/tenants/ask.html", context)
        try:
            key, row = access.rotate_api_key(actor_of(request), old)
        except NotVisible:
            # Somebody else was faster.
            return self._not_rotated(request, old)
        self.log_addition(request, row, [{"added": {}}])
        return self._show_once(request, key, row, replaced=old)

    def _not_rotated(self, request: HttpRequest, key: ApiKey) -> HttpResponse:
        self.message_user(request, _("This key has been revoked or replaced: issue a new one."), messages.WARNING)
        return HttpResponseRedirect(reverse("admin:tenants_apikey_change", args=[key.pk]))

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "add")

    @admin.action(description=gettext_lazy("Revoke the chosen keys"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> TemplateResponse | None:
        if not is_confirmed(request):
            return confirm(
                self,
                request,
                queryset,
                action="revoke",
                title=_("Revoke API keys"),
                text=_("Terminals that use these keys are cut off within seconds and cannot come back with them."),
                button=_("Revoke"),
            )
        count = access.revoke_api_keys(actor_of(request), queryset)
        text = ngettext("%(count)d key is revoked.", "%(count)d keys are revoked.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)
        return None
