"""People and their terminals. Room: tenants."""

import uuid
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, UserManager
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.core.validators import RegexValidator
from django.db import models

from tenants.models.companies import Company


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
        OPERATOR = "operator", "operator"
        COMPANY_ADMIN = "company_admin", "company admin"
        TRADER = "trader", "trader"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    company = models.ForeignKey(Company, on_delete=models.CASCADE, null=True, blank=True, related_name="users")
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.TRADER)

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
            raise ValidationError({"company": "the MT5 accounts of this user belong to another company"})
        if self.company is not None:
            colleagues = User.objects.filter(company=self.company)
            _check_room(self, colleagues, self.company.tier.user_limit, "users a company")


class MT5Account(models.Model):
    """A login at a broker's MetaTrader 5 server, registered to one user.

    Unique in its company only: whether another company knows the same login is nobody's business.
    """

    login = models.CharField(max_length=20, validators=[RegexValidator(r"^[0-9]{1,20}\Z", "an MT5 login is a number")])
    broker_server = models.CharField(max_length=64, help_text="as the terminal shows it, for instance Broker-Live01")
    company = models.ForeignKey(Company, on_delete=models.CASCADE, related_name="accounts")
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="accounts")
    is_active = models.BooleanField(default=True)
    last_seen_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["company", "login", "broker_server"], name="mt5_account_is_unique")
        ]

    def __str__(self) -> str:
        return f"{self.login}@{self.broker_server}"

    def clean(self) -> None:
        """Raises ValidationError for an owner of another company and for one account more than the plan has."""
        try:
            owner, company = self.owner, self.company
        except ObjectDoesNotExist:
            # A required field is empty: the form says so by itself.
            return
        if owner.company_id != company.pk:
            raise ValidationError({"owner": "the owner must be a user of the account's company"})
        tier, accounts = company.tier, MT5Account.objects.all()
        _check_room(self, accounts.filter(company=company), tier.company_account_limit, "MT5 accounts a company")
        _check_room(self, accounts.filter(owner=owner), tier.user_account_limit, "MT5 accounts a user")


class ActivePair(models.Model):
    """A symbol whose ticks and signals are taken from a user."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="active_pairs")
    symbol = models.CharField(max_length=32, help_text="as the broker server names it, for instance EURUSD")

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["user", "symbol"], name="active_pair_is_unique")]

    def __str__(self) -> str:
        return self.symbol

    def clean(self) -> None:
        """Raises ValidationError for an operator's pair and for one pair more than the plan has."""
        try:
            company = self.user.company
        except ObjectDoesNotExist:
            return
        if company is None:
            raise ValidationError({"user": "operators have no company and no pairs"})
        pairs = ActivePair.objects.filter(user=self.user)
        _check_room(self, pairs, company.tier.pair_limit, "active pairs a user")


def _as_operator(fields: dict[str, Any]) -> dict[str, Any]:
    if fields.get("role", User.Role.OPERATOR) != User.Role.OPERATOR or fields.get("company") is not None:
        raise ValueError("a superuser is an operator and has no company")
    return {**fields, "role": User.Role.OPERATOR, "company": None}


def _check_room(row: models.Model, counted: models.QuerySet[Any], limit: int, what: str) -> None:
    """Each row takes a place, disabled or not, so that enabling one needs no check."""
    # A row that has its place keeps it: after a downgrade people and accounts must still be editable.
    if not counted.filter(pk=row.pk).exists() and counted.count() >= limit:
        raise ValidationError(f"the plan has {limit} {what}, and all are taken", code="plan_limit")
