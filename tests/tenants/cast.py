"""The people of these tests and the keys they sign with."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proto.gateway.v1 import identity_pb2
from tenants.models import Company, SubscriptionTier, User
from tenants.tokens import ISSUER

NOW = 1_800_000_000.0
SECRET = bytes(range(1, 65))
OLD_SECRET = bytes(range(101, 165))
USER_ID = "0c9d6a0e-6f0a-4f39-8d5b-0e3a2a4b1c11"
COMPANY_ID = "5b1f7c58-3c43-4a0e-9c0f-6f1f0a9d2b22"


@dataclass(frozen=True)
class Cast:
    """Alpha has an admin, Alice, and a trader, Bob; Beta has a trader, Charlie."""

    alpha: Company
    beta: Company
    alice: User
    bob: User
    charlie: User


def make_cast() -> Cast:
    alpha = Company.objects.create(name="Alpha", slug="alpha", tier=tier("PRO"))
    beta = Company.objects.create(name="Beta", slug="beta", tier=tier("PRO"))
    return Cast(
        alpha=alpha,
        beta=beta,
        alice=User.objects.create_user("alice", company=alpha, role=User.Role.COMPANY_ADMIN),
        bob=make_trader("bob", alpha),
        charlie=make_trader("charlie", beta),
    )


def tier(code: str) -> SubscriptionTier:
    return SubscriptionTier.objects.get(code=code)


def make_trader(username: str, company: Company) -> User:
    return User.objects.create_user(username, company=company, role=User.Role.TRADER)


def version_of(company: Company) -> int:
    """The access version in the database."""
    return Company.objects.get(pk=company.pk).access_version


def secret_item(kid: str, secret: bytes = SECRET, algorithm: str = "HS256") -> str:
    """An item of GATEWAY_JWT_KEYS."""
    return f"{kid}:{algorithm}:{base64.urlsafe_b64encode(secret).decode()}"


def write_rsa_key(folder: Path, bits: int = 2048) -> tuple[Path, Path, bytes]:
    """Paths of the private and the public PEM file, and the public PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "private.pem").write_bytes(private)
    (folder / "public.pem").write_bytes(public)
    return folder / "private.pem", folder / "public.pem", public


def user_token(**fields: Any) -> str:
    """A data claim; ``fields`` replace those of the user of these tests."""
    values = {
        "user_id": USER_ID,
        "company_id": COMPANY_ID,
        "subscription_tier": identity_pb2.TIER_PRO,
        "issued_at": int(NOW),
        "expires_at": int(NOW) + 60,
        **fields,
    }
    return base64.b64encode(identity_pb2.UserToken(**values).SerializeToString()).decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of a genuine token; a change to None takes the claim away."""
    base = {
        "sub": USER_ID,
        "iss": ISSUER,
        "iat": int(NOW),
        "exp": int(NOW) + 60,
        "jti": "a" * 32,
        "data": user_token(),
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def sign(
    payload: Mapping[str, Any],
    *,
    key: Any = SECRET,
    algorithm: str = "HS256",
    headers: Mapping[str, Any] | None = None,
) -> str:
    return jwt.encode(
        dict(payload), key, algorithm=algorithm, headers={"kid": "one"} if headers is None else dict(headers)
    )
