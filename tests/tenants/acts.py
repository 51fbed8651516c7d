"""What the operator's shell does to people and companies, as tests need it."""

import datetime

from tenants import access
from tenants.access import Actor
from tenants.models import Company, User

SYSTEM = Actor.system("tests")


def disable(user_id: str) -> None:
    access.set_users_active(SYSTEM, [access.find(SYSTEM, User, pk=user_id)], is_active=False)


def enable(user_id: str) -> None:
    access.set_users_active(SYSTEM, [access.find(SYSTEM, User, pk=user_id)], is_active=True)


def suspend(company_id: str) -> None:
    company = access.find(SYSTEM, Company, pk=company_id)
    access.set_company_status(SYSTEM, company, Company.Status.SUSPENDED, "for a test")


def resume(company_id: str) -> None:
    access.set_company_status(SYSTEM, access.find(SYSTEM, Company, pk=company_id), Company.Status.ACTIVE)


def new_key(user: User, name: str, *, scope: str = "stream", expires_at: datetime.datetime | None = None) -> str:
    """The key in clear."""
    return access.create_api_key(SYSTEM, user, name, scope=scope, expires_at=expires_at)[0]


def revoke_token(jti: str, user_id: str, expires_at: float) -> None:
    access.revoke_token(SYSTEM, jti, access.find(SYSTEM, User, pk=user_id), expires_at)
