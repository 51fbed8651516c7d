"""Forms of people. Room: tenants."""

from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.contrib.auth.forms import AdminPasswordChangeForm, UsernameField
from django.contrib.auth.password_validation import password_validators_help_text_html, validate_password
from django.core.exceptions import ValidationError
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants.access import username_prefix, visible
from tenants.console.places import company_of
from tenants.console.scoping import ScopedForm
from tenants.models import ActivePair, Company, User, limits_of
from tenants.symbols import check_symbols, symbols_of, written


class PrefixedInput(AdminTextInputWidget):
    """A text field with what stands before it whatever is typed."""

    prefix = ""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        field = super().render(name, value, attrs, renderer)
        if not self.prefix:
            return field
        return format_html('<span class="console-prefix">{}</span>{}', self.prefix, field)


class PersonForm(ScopedForm):
    """Any person, changed."""

    pairs = forms.CharField(
        label=gettext_lazy("Active pairs"),
        required=False,
        widget=AdminTextareaWidget(attrs={"rows": 3}),
        help_text=gettext_lazy(
            "Symbols as the broker server names them, with commas, spaces or one a line: EURUSD, XAUUSD.m. "
            "Ticks and signals of other symbols are not taken."
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held_pairs: list[str] = []
        if not self.instance._state.adding:
            rows = visible(self.actor, ActivePair).filter(user=self.instance)
            self.held_pairs = list(rows.values_list("symbol", flat=True))
            self.initial["pairs"] = written(self.held_pairs)
        company = company_of(self.instance)
        if company is not None:
            self._name_the_plan(company)

    def _name_the_plan(self, company: Company) -> None:
        limits = limits_of(company)
        for name, value in (
            ("message_rate_limit", f"{limits.message_rate_limit:g}"),
            ("connection_limit", f"{limits.connection_limit}"),
        ):
            if name in self.fields:
                text = _("Empty: as many as the plan allows (%(limit)s). More than that has no effect.")
                self.fields[name].help_text = text % {"limit": value}

    def clean_pairs(self) -> list[str]:
        symbols = symbols_of(self.cleaned_data["pairs"])
        # Those that go make way for another spelling.
        check_symbols(symbols, [symbol for symbol in self.held_pairs if symbol in symbols])
        return symbols

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        company = cleaned["company"] if "company" in self.fields and "company" in cleaned else company_of(self.instance)
        is_operator = cleaned.get("role", self.instance.role) == User.Role.OPERATOR
        if "role" in self.fields and is_operator != (company is None) and "company" not in self.errors:
            text = _("An operator belongs to no company.") if is_operator else _("Choose the company of this person.")
            self.add_error("company", text)
        self._check_pairs(cleaned.get("pairs", self.held_pairs), company)
        return cleaned

    def _check_pairs(self, symbols: list[str], company: Company | None) -> None:
        if not set(symbols) - set(self.held_pairs):
            return
        if company is None:
            self.add_error("pairs", _("Operators have no company and no pairs."))
        elif len(symbols) > (limit := limits_of(company).pair_limit):
            text = _("These are %(count)d pairs; the plan has %(limit)d for a user: take some out.")
            self.add_error("pairs", text % {"count": len(symbols), "limit": limit})


class NewPersonForm(PersonForm):
    """A person to be: invited by e-mail, unless a password is given at once."""

    password1 = forms.CharField(
        label=gettext_lazy("Password"),
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=password_validators_help_text_html,
    )
    password2 = forms.CharField(
        label=gettext_lazy("Password again"),
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    class Meta:
        field_classes = {"username": UsernameField}  # noqa: RUF012
        widgets = {"username": PrefixedInput}  # noqa: RUF012

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password1"].help_text = password_validators_help_text_html()
        self._prefix = ""
        company = company_of(self.instance)
        if company is not None:
            self._prefix = username_prefix(company)
            self.fields["username"].help_text = _(
                "Letters, digits and @ . + - _ only. “%(prefix)s” stands before every username of your company."
            ) % {"prefix": self._prefix}
        widget = self.fields["username"].widget
        if isinstance(widget, PrefixedInput):
            widget.prefix = self._prefix

    def clean_username(self) -> str:
        name = str(self.cleaned_data["username"])
        if self._prefix and not name.startswith(self._prefix):
            name = self._prefix + name
        if name == self._prefix:
            raise ValidationError(_("Enter a name after “%(prefix)s”.") % {"prefix": self._prefix})
        # One name in two spellings is two people to the database and one to whoever reads it.
        if visible(self.actor, User).filter(username__iexact=name).exists():
            raise ValidationError(self.instance.unique_error_message(User, ("username",)))
        return name

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        first, second = cleaned.get("password1", ""), cleaned.get("password2", "")
        if first != second:
            self.add_error("password2", _("The two passwords differ."))
        elif not first and not cleaned.get("email") and "email" not in self.errors:
            self.add_error("email", _("The invitation goes to this address: enter it, or set a password below."))
        return cleaned

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        password = self.cleaned_data.get("password1", "")
        if password and "password2" not in self.errors:
            try:
                validate_password(password, self.instance)
            except ValidationError as error:
                self.add_error("password1", error)


class PasswordForm(AdminPasswordChangeForm):  # type: ignore[type-arg]  # generic in the stubs alone
    """A new password for somebody else."""

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        # To keep somebody out there is “disable”.
        self.fields.pop("usable_password", None)
        self.fields["password1"].required = self.fields["password2"].required = True
