"""Rows inside the form of another row, held to the same rules. Room: tenants."""

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.forms import BaseInlineFormSet
from django.http import HttpRequest

from tenants.console.base import Scoped
from tenants.console.scoping import ScopedForm, actor_of
from tenants.models import MT5Account, User


class OwnedFormSet(BaseInlineFormSet[Any, Any, Any]):
    """An account inside its owner's form belongs to the owner's company before it is checked."""

    def _construct_form(self, i: int, **kwargs: Any) -> Any:
        form = super()._construct_form(i, **kwargs)  # type: ignore[misc]
        row = form.instance
        if row._state.adding and isinstance(row, MT5Account) and isinstance(self.instance, User):
            row.company_id = self.instance.company_id  # type: ignore[assignment]  # none: the form says so
        return form


class ScopedInline(Scoped, admin.TabularInline[Any, Any]):
    form: type[ScopedForm] = ScopedForm
    view_on_site = False
    formset = OwnedFormSet
    extra = 0

    def get_formset(self, request: HttpRequest, obj: Model | None = None, **kwargs: Any) -> Any:
        # A class of this request's own: the actor on it must not reach another request.
        form = type("InlineForm", (self.form,), {"actor": actor_of(request)})
        return super().get_formset(request, obj, form=form, **kwargs)
