"""People and their terminals. Room: tenants."""

import uuid

from django.contrib.auth.models import AbstractUser
from django.core.validators import RegexValidator
from django.db import models

from tenants.models.companies import Company


class User(AbstractUser):
    """A person. Everyone but an operator belongs to one company."""

    class Role(models.TextChoices):
        OPERATOR = "operator", "operator"
        COMPANY_ADMIN = "company_admin", "company admin"
        TRADER = "trader", "trader"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    company = models.ForeignKey(Company, on_delete=models.CASCADE, null=True, blank=True, related_name="users")
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.TRADER)

    class Meta(AbstractUser.Meta):
        constraints = [
            models.CheckConstraint(
                condition=models.Q(role="operator", company__isnull=True)
                | models.Q(role__in=["company_admin", "trader"], company__isnull=False),
                name="user_has_a_company_unless_operator",
            ),
        ]


class MT5Account(models.Model):
    """A login at a broker's MetaTrader 5 server, registered to one user."""

    login = models.CharField(max_length=20, validators=[RegexValidator(r"^\d{1,20}$", "an MT5 login is a number")])
    broker_server = models.CharField(max_length=64, help_text="as the terminal shows it, for instance Broker-Live01")
    company = models.ForeignKey(Company, on_delete=models.CASCADE, related_name="accounts")
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="accounts")
    is_active = models.BooleanField(default=True)
    last_seen_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["login", "broker_server"], name="mt5_account_is_unique")]

    def __str__(self) -> str:
        return f"{self.login}@{self.broker_server}"


class ActivePair(models.Model):
    """A symbol whose ticks and signals are taken from a user."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="active_pairs")
    symbol = models.CharField(max_length=32, help_text="as the broker server names it, for instance EURUSD")

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["user", "symbol"], name="active_pair_is_unique")]

    def __str__(self) -> str:
        return self.symbol
