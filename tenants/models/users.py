"""People and their terminals. Room: tenants."""

import uuid
from collections.abc import Collection
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, UserManager
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from tenants.models.companies import Company
from tenants.models.places import check_room
from tenants.symbols import SYMBOL_LIMIT, check_symbols


class GatewayUserManager(UserManager["User"]):
    """Makes people; a superuser is an operator, who belongs to no company."""

    use_in_migrations = False

    def create_superuser(
        self, username: str, email: str | None = None, password: str | None = None, **extra_fields: Any
    ) -> "User":
        """Raises ValueError where the caller asks for another role or for a company."""
        return super().create_superuser(username, email, password, **_as_operator(extra_fields))

    async def acreate_superuser(
        self, username: str, email: str | None = None, password: str | None = None, **extra_fields: Any
    ) -> "User":
        return await super().acreate_superuser(username, email, password, **_as_operator(extra_fields))


class User(AbstractUser):
    """A person. Everyone but an operator belongs to one company."""

    class Role(models.TextChoices):
        OPERATOR = "operator", _("operator")
        COMPANY_ADMIN = "company_admin", _("company admin")
        TRADER = "trader", _("trader")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    company = models.ForeignKey(
        Company, on_delete=models.CASCADE, null=True, blank=True, related_name="users", verbose_name=_("company")
    )
    role = models.CharField(_("role"), max_length=16, choices=Role.choices, default=Role.TRADER)
    # What the person may do within the plan; empty leaves the plan's.
    message_rate_limit = models.FloatField(
        _("messages a second"),
        null=True,
        blank=True,
        validators=[MinValueValidator(0.1)],
        help_text=_("empty: as many as the plan allows"),
    )
    connection_limit = models.PositiveIntegerField(
        _("connections"), null=True, blank=True, help_text=_("empty: as many as the plan allows")
    )
    may_send_signals = models.BooleanField(
        _("may send trading signals"), default=True, help_text=_("where the plan includes them")
    )

    objects: ClassVar[GatewayUserManager] = GatewayUserManager()

    class Meta(AbstractUser.Meta):
        constraints = [
            models.CheckConstraint(
                condition=models.Q(role="operator", company__isnull=True)
                | models.Q(role__in=["company_admin", "trader"], company__isnull=False),
                name="user_has_a_company_unless_operator",
            ),
        ]

    def clean(self) -> None:
        """Raises ValidationError for one person more than the plan has and for a move that leaves accounts behind."""
        super().clean()
        if MT5Account.objects.filter(owner=self).exclude(company=self.company).exists():
            raise ValidationError({"company": _("the MT5 accounts of this user belong to another company")})
        if self.company is not None:
            check_room(self, User.objects.filter(company=self.company), self.company, "user_limit")


class MT5Account(models.Model):
    """A login at a broker's MetaTrader 5 server, registered to one user.

    Unique in its company only: whether another company knows the same login is nobody's business.
    """

    login = models.CharField(
        _("login"),
        max_length=20,
        validators=[RegexValidator(r"^[0-9]{1,20}\Z", _("an MT5 login is a number"))],
    )
    broker_server = models.CharField(
        _("broker server"), max_length=64, help_text=_("as the terminal shows it, for instance Broker-Live01")
    )
    company = models.ForeignKey(Company, on_delete=models.CASCADE, related_name="accounts", verbose_name=_("company"))
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="accounts", verbose_name=_("owner"))
    is_active = models.BooleanField(_("active"), default=True)
    # Kept by the worker from what the gateways see.
    is_online = models.BooleanField(_("online"), default=False, editable=False)
    last_seen_at = models.DateTimeField(_("last seen"), null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        ordering = ["id"]
        verbose_name = _("MT5 account")
        verbose_name_plural = _("MT5 accounts")
        constraints = [
            models.UniqueConstraint(fields=["company", "login", "broker_server"], name="mt5_account_is_unique")
        ]

    def __str__(self) -> str:
        return f"{self.login}@{self.broker_server}"

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        super().clean_fields(exclude=exclude)
        # Terminals tell it as a number: written with zeros before it, it would be an account that never comes online.
        # One that is there already stops nobody.
        if "login" not in (exclude or ()) and self.login.startswith("0") and self._is_spelt_anew():
            raise ValidationError({"login": _("an MT5 login does not begin with 0")})

    def _is_spelt_anew(self) -> bool:
        own = MT5Account.objects.filter(pk=self.pk, login=self.login, broker_server=self.broker_server)
        return self._state.adding or not own.exists()

    def clean(self) -> None:
        """Raises ValidationError for an owner of another company, for another spelling of an account that is there, and
        for one account more than the plan has."""
        try:
            owner, company = self.owner, self.company
        except ObjectDoesNotExist:
            # A required field is empty: the form says so by itself.
            return
        if owner.company_id != company.pk:
            raise ValidationError({"owner": _("the owner must be a user of the account's company")})
        same = MT5Account.objects.filter(company=company, login=self.login, broker_server__iexact=self.broker_server)
        other = same.exclude(pk=self.pk).exclude(broker_server=self.broker_server).first()
        if other is not None and self._is_spelt_anew():
            text = _("%(account)s is registered already, and differs in case only")
            raise ValidationError({"broker_server": text % {"account": other}})
        check_room(self, MT5Account.objects.filter(company=company), company, "company_account_limit")
        check_room(self, MT5Account.objects.filter(owner=owner), company, "user_account_limit")


class ActivePair(models.Model):
    """A symbol whose ticks and signals are taken from a user."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="active_pairs", verbose_name=_("user"))
    symbol = models.CharField(
        _("symbol"), max_length=SYMBOL_LIMIT, help_text=_("as the broker server names it, for instance EURUSD")
    )

    class Meta:
        ordering = ["id"]
        verbose_name = _("active pair")
        verbose_name_plural = _("active pairs")
        constraints = [models.UniqueConstraint(fields=["user", "symbol"], name="active_pair_is_unique")]

    def __str__(self) -> str:
        return self.symbol

    def clean(self) -> None:
        """Raises ValidationError for what is no symbol, for one that is active in another spelling, for an operator's
        pair and for one pair more than the plan has."""
        try:
            company = self.user.company
        except ObjectDoesNotExist:
            return
        if company is None:
            raise ValidationError({"user": _("operators have no company and no pairs")})
        others = ActivePair.objects.filter(user=self.user).exclude(pk=self.pk).values_list("symbol", flat=True)
        try:
            check_symbols([self.symbol], [symbol for symbol in others if symbol != self.symbol])
        except ValidationError as error:
            raise ValidationError({"symbol": error.messages}) from None
        check_room(self, ActivePair.objects.filter(user=self.user), company, "pair_limit")


def _as_operator(fields: dict[str, Any]) -> dict[str, Any]:
    if fields.get("role", User.Role.OPERATOR) != User.Role.OPERATOR or fields.get("company") is not None:
        raise ValueError("a superuser is an operator and has no company")
    return {**fields, "role": User.Role.OPERATOR, "company": None}
