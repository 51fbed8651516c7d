"""The forms of signing in. Room: tenants."""

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from tenants.models import User
from tenants.signin.steps import is_console_user


class SignInForm(AuthenticationForm):
    """Username and password of a person whom the admin is for."""

    def confirm_login_allowed(self, user: User) -> None:
        super().confirm_login_allowed(user)
        if not is_console_user(user):
            raise ValidationError(
                _(
                    "These pages are for company admins and operators. Your account works: your terminal signs in with"
                    " an API key, which your company's admin makes for you."
                ),
                code="not_for_traders",
            )


class CodeForm(forms.Form):
    """A code of the app or a recovery code."""

    code = forms.CharField(
        label=_("Code"),
        max_length=32,
        widget=forms.TextInput(
            attrs={"autocomplete": "one-time-code", "autofocus": True, "autocapitalize": "none", "spellcheck": "false"}
        ),
    )


class AppCodeForm(CodeForm):
    """The first code of a new app."""

    code = forms.CharField(
        label=_("Six-digit code"),
        max_length=16,
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "inputmode": "numeric", "autofocus": True}),
    )


class _PasswordFirst(forms.Form):
    """Asks for the password before the code, of somebody who is signed in: the session may be in the wrong hands."""

    password = forms.CharField(
        label=_("Your password"),
        max_length=4_096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password", "autofocus": True}),
    )
    field_order = ("password", "code")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["code"].widget.attrs.pop("autofocus", None)


class ProvenAppCodeForm(_PasswordFirst, AppCodeForm):
    """For setting up an app."""


class ProvenCodeForm(_PasswordFirst, CodeForm):
    """For what weakens an account."""


class ResetForm(forms.Form):
    email = forms.EmailField(
        label=_("E-mail address"),
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "email", "autofocus": True}),
    )
