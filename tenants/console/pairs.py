"""Active pairs in the admin: one row a symbol, however many are typed at once. Room: tenants."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from tenants import access
from tenants.access import visible
from tenants.console.base import ScopedAdmin
from tenants.console.places import company_of
from tenants.console.scoping import ScopedForm, ScopedRelatedFilter, actor_of, choices_of
from tenants.models import ActivePair, User, limits_of
from tenants.symbols import check_symbols, symbols_of


class PairForm(ScopedForm):
    class Meta:
        error_messages = {  # noqa: RUF012
            NON_FIELD_ERRORS: {"unique_together": gettext_lazy("This pair is active for the user already.")},
        }


class NewPairsForm(PairForm):
    """One user, any number of symbols; ``symbols``: those that are new, once the form is valid."""

    symbol = forms.CharField(
        label=gettext_lazy("Symbols"),
        widget=AdminTextareaWidget(attrs={"rows": 2}),
        help_text=gettext_lazy("as the broker server names them, several with commas or spaces: EURUSD, XAUUSD.m"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.symbols: list[str] = []

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        user, typed = cleaned.get("user"), symbols_of(cleaned.get("symbol", ""))
        if user is None or "symbol" in self.errors:
            return cleaned
        held = list(visible(self.actor, ActivePair).filter(user=user).values_list("symbol", flat=True))
        try:
            self.symbols = self._new(user, typed, held)
        except ValidationError as error:
            self.add_error("symbol", error)
        else:
            # The row of this form is the first of them.
            cleaned["symbol"] = self.symbols[0]
        return cleaned

    def _new(self, user: Any, typed: list[str], held: list[str]) -> list[str]:
        """Raises ValidationError."""
        if not typed:
            raise ValidationError(_("Enter a symbol, for instance EURUSD."))
        check_symbols(typed, held)
        new = [symbol for symbol in typed if symbol not in held]
        if not new:
            raise ValidationError(_("This pair is active for the user already."))
        company = company_of(user)
        limit = limits_of(company).pair_limit if company is not None else 0
        if len(new) > 1 and len(new) + len(held) > limit:
            text = _("These are %(count)d pairs; the plan has %(limit)d for a user: take some out.")
            raise ValidationError(text % {"count": len(new) + len(held), "limit": limit})
        return new


@admin.register(ActivePair)
class PairAdmin(ScopedAdmin):
    company_may = frozenset({"view", "add", "change", "delete"})
    form = PairForm
    list_display = ("symbol", "user", "company")
    list_filter = (("user", ScopedRelatedFilter), "symbol")
    search_fields = ("symbol", "user__username", "user__company__name")
    search_help_text = gettext_lazy("Symbol or user")
    list_select_related = ("user__company",)
    fields = ("user", "symbol")
    linked_lookups = ("user__id__exact",)
    empty_text = gettext_lazy("No active pairs yet: choose them on the page of a user, several at once.")

    @admin.display(description=gettext_lazy("company"), ordering="user__company__name")
    def company(self, pair: ActivePair) -> str:
        return str(pair.user.company)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = NewPairsForm
        return super().get_form(request, obj, change=change, **kwargs)

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("user",) if actor_of(request).sees_all else ()

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        people = list(
            choices_of(actor_of(request), User).filter(company__isnull=False).values_list("pk", flat=True)[:2]
        )
        # Whoever is alone chooses for themselves.
        return initial if len(people) != 1 else {"user": people[0], **initial}

    def choices(self, request: HttpRequest, db_field: Any) -> QuerySet[Any]:
        return super().choices(request, db_field).filter(company__isnull=False)

    def save_model(self, request: HttpRequest, obj: ActivePair, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        more = form.symbols[1:] if isinstance(form, NewPairsForm) else []
        if more:
            # The company is locked since before the form was checked: nobody else's pair is taken away.
            rows = visible(actor_of(request), ActivePair).filter(user=obj.user)
            access.set_pairs(actor_of(request), obj.user, [*rows.values_list("symbol", flat=True), *more])
            count = len(form.symbols)
            text = ngettext("%(count)d pair is active now.", "%(count)d pairs are active now.", count)
            self.message_user(request, text % {"count": count}, messages.SUCCESS)
