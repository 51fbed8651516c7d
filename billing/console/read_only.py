"""The operator's lists: everything can be read, nothing is written by a form. Room: billing."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from billing.money import rupiah
from tenants.pages import ScopedAdmin, actor_of


class OperatorsAdmin(ScopedAdmin):
    """For operators alone: company admins have pages of their own, and here not even their own rows."""

    company_may: frozenset[str] = frozenset()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        return rows if actor_of(request).sees_all else rows.none()


class BooksAdmin(OperatorsAdmin):
    """All fields that a subclass names are read only."""

    operator_may = frozenset({"view"})
    actions: Any = None

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields or ()

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> Any:
        # Named by ``fields``, which hold nothing that is written.
        return None


def money(field: str, label: Any) -> Any:
    """A column of an amount in rupiah."""

    @admin.display(description=label, ordering=field)
    def column(row: Any) -> str:
        amount = getattr(row, field)
        return "–" if amount is None else rupiah(amount)

    return column


def company_column(path: str) -> Any:
    """A column of the company at the end of ``path``, "subscription.company"."""

    @admin.display(description=gettext_lazy("company"), ordering=f"{path.replace('.', '__')}__name")
    def column(row: Any) -> str:
        for name in path.split("."):
            row = getattr(row, name)
        return str(row)

    return column
