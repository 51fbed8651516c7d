"""What a terminal proves itself with. Room: tenants."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class ApiKey(models.Model):
    """A long-lived key of a terminal; only its digest is kept, the key itself is shown once."""

    class Scope(models.TextChoices):
        STREAM = "stream", _("stream: connect terminals and send")
        READ = "read", _("read: status and usage only")

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys", verbose_name=_("user")
    )
    # The one that every connection with this key is for, and no other; it goes with its account.
    account = models.ForeignKey(
        "tenants.MT5Account",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="api_keys",
        verbose_name=_("MT5 account"),
        help_text=_("the terminal of this account needs nothing but the address and the key"),
    )
    name = models.CharField(_("name"), max_length=80, help_text=_("where it is used, for instance VPS Jakarta"))
    scope = models.CharField(_("scope"), max_length=8, choices=Scope.choices, default=Scope.STREAM)
    prefix = models.CharField(
        _("begins with"), max_length=12, editable=False, help_text=_("the part that is shown, to tell keys apart")
    )
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True, editable=False)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True, help_text=_("empty: until it is revoked"))
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True, editable=False)
    # The key that took this one's place; this one still works until ``expires_at``.
    replaced_by = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, editable=False, related_name="replaces"
    )

    class Meta:
        ordering = ["-created_at"]
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        constraints = [
            models.CheckConstraint(condition=models.Q(scope__in=["stream", "read"]), name="api_key_scope_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.prefix}… ({self.name})"


class RevokedToken(models.Model):
    """A token that is refused although it has not expired; the row may go once it has."""

    jti = models.CharField("jti", max_length=64, unique=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="revoked_tokens", verbose_name=_("user")
    )
    expires_at = models.DateTimeField(_("expires"), db_index=True)
    revoked_at = models.DateTimeField(_("revoked"), auto_now_add=True)

    class Meta:
        verbose_name = _("revoked token")
        verbose_name_plural = _("revoked tokens")

    def __str__(self) -> str:
        return self.jti
