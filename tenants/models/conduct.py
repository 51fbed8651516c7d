"""What users are held to beyond their plan: bans and kicks. Room: tenants."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class Ban(models.Model):
    """A time in which a user, or one MT5 account or key of theirs, is not let in; it ends by itself or is lifted by an
    operator.

    ``account``, ``api_key`` and ``session_id`` say which connection earned it. Without ``is_for_all`` it holds for
    connections of the account only, where there is none for those of the key, and without both for those that name
    neither.
    """

    class Reason(models.TextChoices):
        ERRORS = "errors", _("too many invalid messages")
        FLOODING = "flooding", _("sustained flooding")
        OPERATOR = "operator", _("by an operator")

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="bans", verbose_name=_("user")
    )
    reason = models.CharField(_("reason"), max_length=12, choices=Reason.choices)
    detail = models.CharField(_("detail"), max_length=200, blank=True)
    starts_at = models.DateTimeField(_("starts"))
    until = models.DateTimeField(_("until"))
    account = models.CharField(_("MT5 account"), max_length=20, blank=True)
    api_key = models.ForeignKey(
        "tenants.ApiKey", on_delete=models.SET_NULL, null=True, blank=True, related_name="+", verbose_name=_("API key")
    )
    session_id = models.CharField(_("connection"), max_length=32, blank=True)
    is_for_all = models.BooleanField(_("the whole user"), default=True)
    # Which ban within a day it is, from 1: each is longer than the one before.
    repeat = models.PositiveIntegerField(_("repeat"), default=1)
    lifted_at = models.DateTimeField(_("lifted"), null=True, blank=True)
    lifted_by = models.CharField(_("lifted by"), max_length=150, blank=True)

    class Meta:
        ordering = ["-starts_at"]
        verbose_name = _("ban")
        verbose_name_plural = _("bans")
        indexes = [models.Index(fields=["user", "until"], name="ban_by_user")]
        constraints = [
            models.CheckConstraint(condition=models.Q(until__gt=models.F("starts_at")), name="ban_ends_after_start"),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.get_reason_display()}"


class Kick(models.Model):
    """An order to end one live connection, or all of a user; gateways read new rows, old ones may go."""

    # Empty: all connections of the user.
    session_id = models.CharField(max_length=32, blank=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="kicks")
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    def __str__(self) -> str:
        return self.session_id or str(self.user)
