"""The operator's plain admin, for nobody else. Room: tenants.

Whatever changes what users may do raises the access version of the companies it concerns, in the same transaction.
"""

import uuid
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.db import transaction
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest

from tenants import access
from tenants.api_keys import create_api_key, digest_of
from tenants.models import ActivePair, ApiKey, Company, MT5Account, RevokedToken, SubscriptionTier, User


def _company_ids(row: Model) -> set[uuid.UUID]:
    """The companies whose users a change of this row concerns."""
    if isinstance(row, Company):
        return {row.pk}
    if isinstance(row, SubscriptionTier):
        return set(Company.objects.filter(tier=row).values_list("pk", flat=True))
    if isinstance(row, MT5Account):
        return {row.company_id}
    if isinstance(row, ActivePair):
        row = row.user
    return {row.company_id} if isinstance(row, User) and row.company_id else set()


class OperatorAdmin(admin.ModelAdmin[Any]):
    """Seen and used by operators only."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        user = request.user
        # The role too: a flag set by mistake must not show a company's people all companies.
        return isinstance(user, User) and user.is_active and user.is_superuser and user.role == User.Role.OPERATOR

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_module_permission(request)

    has_change_permission = has_delete_permission = has_view_permission

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_module_permission(request)

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm[Any], change: bool) -> None:
        with transaction.atomic():
            concerned = _company_ids(type(obj)._default_manager.get(pk=obj.pk)) if change else set()
            super().save_model(request, obj, form, change)
            access.raise_access_version(concerned | _company_ids(obj))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with transaction.atomic():
            concerned = _company_ids(obj)
            super().delete_model(request, obj)
            access.raise_access_version(concerned)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with transaction.atomic():
            concerned = {company_id for row in queryset for company_id in _company_ids(row)}
            super().delete_queryset(request, queryset)
            access.raise_access_version(concerned)


@admin.register(SubscriptionTier)
class SubscriptionTierAdmin(OperatorAdmin):
    list_display = ("code", "user_limit", "message_rate_limit", "connection_limit", "pair_limit", "has_signals")


@admin.register(Company)
class CompanyAdmin(OperatorAdmin):
    list_display = ("name", "slug", "tier", "status", "paid_until", "access_version")
    list_filter = ("status", "tier")
    search_fields = ("name", "slug")
    readonly_fields = ("access_version",)
    list_select_related = ("tier",)
    actions = ("suspend", "resume")

    @admin.action(description="Suspend the chosen companies")
    def suspend(self, request: HttpRequest, queryset: QuerySet[Company]) -> None:
        for company in queryset:
            access.suspend_company(str(company.pk))
        self.message_user(request, "Suspended; live connections end within seconds.", messages.SUCCESS)

    @admin.action(description="Resume the chosen companies")
    def resume(self, request: HttpRequest, queryset: QuerySet[Company]) -> None:
        for company in queryset:
            access.resume_company(str(company.pk))
        self.message_user(request, "Resumed.", messages.SUCCESS)


@admin.register(User)
class GatewayUserAdmin(OperatorAdmin, UserAdmin[User]):
    list_display = ("username", "company", "role", "is_active", "last_login")
    list_filter = ("role", "is_active")
    search_fields = ("username", "email", "company__name")
    list_select_related = ("company",)
    fieldsets = (*(UserAdmin.fieldsets or ()), ("Company", {"fields": ("company", "role")}))
    add_fieldsets = (*UserAdmin.add_fieldsets, ("Company", {"fields": ("company", "role")}))
    actions = ("disable", "enable")

    @admin.action(description="Disable the chosen users")
    def disable(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            access.disable_user(str(user.pk))
        self.message_user(request, "Disabled; live connections end within seconds.", messages.SUCCESS)

    @admin.action(description="Enable the chosen users")
    def enable(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            access.enable_user(str(user.pk))
        self.message_user(request, "Enabled.", messages.SUCCESS)


@admin.register(MT5Account)
class MT5AccountAdmin(OperatorAdmin):
    list_display = ("login", "broker_server", "company", "owner", "is_active", "last_seen_at")
    list_filter = ("is_active",)
    search_fields = ("login", "broker_server", "owner__username")
    raw_id_fields = ("company", "owner")
    list_select_related = ("company", "owner")


@admin.register(ActivePair)
class ActivePairAdmin(OperatorAdmin):
    list_display = ("symbol", "user")
    search_fields = ("symbol", "user__username")
    raw_id_fields = ("user",)
    list_select_related = ("user",)


@admin.register(ApiKey)
class ApiKeyAdmin(OperatorAdmin):
    """The key itself is shown once, when it is made; its digest never."""

    list_display = ("prefix", "name", "user", "created_at", "last_used_at", "expires_at", "revoked_at")
    search_fields = ("prefix", "name", "user__username")
    fields = ("user", "name", "expires_at")
    raw_id_fields = ("user",)
    list_select_related = ("user",)
    actions = ("revoke",)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: ApiKey, form: ModelForm[Any], change: bool) -> None:
        key = create_api_key(obj.user, obj.name, expires_at=obj.expires_at)
        row = ApiKey.objects.get(digest=digest_of(key))
        # The admin's log and its answer name the key by these.
        obj.pk, obj.prefix = row.pk, row.prefix
        self.message_user(request, f"Copy the key now, it is not shown again: {key}", messages.WARNING)

    @admin.action(description="Revoke the chosen keys", permissions=["view"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        access.revoke_api_keys(queryset)
        self.message_user(request, "Revoked; tokens that are out end when they expire.", messages.SUCCESS)


@admin.register(RevokedToken)
class RevokedTokenAdmin(OperatorAdmin):
    list_display = ("jti", "user", "expires_at", "revoked_at")
    search_fields = ("jti", "user__username")
    raw_id_fields = ("user",)
