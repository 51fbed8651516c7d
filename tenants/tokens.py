"""Tokens of users: made here, checked here, never stored. Room: tenants.

A token is a JWT (RFC 7519) whose ``data`` claim is the base64 of a protobuf UserToken. Each key of the ring has one
algorithm, pinned: what a token's header says about it is compared, never obeyed (RFC 8725, 3.1).
"""

import base64
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from google.protobuf.message import DecodeError

from proto.gateway.v1 import identity_pb2
from tenants.api_keys import KEY_START
from tenants.models import User

ISSUER = "api-gateway"
TOKEN_SIZE_LIMIT = 4_096
# What a row of revoked tokens holds: a token that could not be revoked is not taken.
JTI_SIZE_LIMIT = 64
# Seconds: no token may live longer, unless GATEWAY_TOKEN_TTL_LIMIT says more. A far end is a key for ever, and a time
# beyond what clocks and wires can hold must not get any further than this.
LIFETIME_LIMIT = 31 * 86_400
# A secret has at least as many bytes as the hash (RFC 7518, 3.2).
_SECRET_SIZES = {"HS256": 32, "HS384": 48, "HS512": 64}
_KEY_KINDS: Mapping[str, tuple[type, type]] = {
    "RS256": (rsa.RSAPrivateKey, rsa.RSAPublicKey),
    "ES256": (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey),
    "EdDSA": (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
}
_TIERS = {"PRO": identity_pb2.TIER_PRO, "ENTERPRISE": identity_pb2.TIER_ENTERPRISE}
_CLAIMS = ["sub", "iss", "iat", "exp", "jti", "data"]


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a genuine token says; times in Unix seconds."""

    user_id: str
    company_id: str
    tier: str
    jti: str
    issued_at: float
    expires_at: float
    # Id of the API key it was exchanged for; "" when it came another way.
    api_key: str = ""
    # MT5 login that the key is bound to, and so every connection with this token; "" when to none.
    account: str = ""


class TokenError(Exception):
    """A token that is not taken; the text may be shown and holds nothing of it."""

    retryable = False

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        # token_invalid or token_expired
        self.code = code


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str
    algorithm: str
    verifying: Any = field(repr=False)
    # None: a public key, which cannot sign.
    signing: Any = field(repr=False)


class Keyring:
    """Several keys at once: the first signs, all verify, so that keys rotate with an overlap."""

    def __init__(self, keys: list[_Key], leeway: float, lifetime_limit: float) -> None:
        self._keys = {key.kid: key for key in keys}
        self._signer = keys[0]
        self._leeway = leeway
        self._lifetime_limit = lifetime_limit

    @classmethod
    def from_setting(cls, text: str, *, leeway: float = 0.0, lifetime_limit: float = LIFETIME_LIMIT) -> "Keyring":
        """``kid:ALG:material`` items separated by commas; raises ImproperlyConfigured, which never shows material.

        ``lifetime_limit``: seconds from the issue of a token to its end.
        """
        items = [item.strip() for item in text.split(",") if item.strip()]
        if not items:
            raise ImproperlyConfigured("GATEWAY_JWT_KEYS is empty: it needs at least one kid:ALG:material")
        keys = [_read_key(place, item) for place, item in enumerate(items, start=1)]
        if len({key.kid for key in keys}) < len(keys):
            raise ImproperlyConfigured("GATEWAY_JWT_KEYS names one kid twice: every key needs its own")
        if keys[0].signing is None:
            raise ImproperlyConfigured("the first key of GATEWAY_JWT_KEYS signs: it cannot be a public key")
        return cls(keys, leeway, lifetime_limit)

    def issue(
        self,
        *,
        user_id: str,
        company_id: str,
        tier: str,
        ttl: float,
        now: float,
        api_key: str = "",
        account: str = "",
    ) -> str:
        """A token that is valid for ``ttl`` seconds from ``now`` (Unix seconds), and no longer than ``api_key``.

        ``account``: the MT5 login that it is good for alone, "" for all of the user's.
        """
        issued_at, expires_at = int(now), int(now + ttl)
        data = identity_pb2.UserToken(
            user_id=user_id,
            company_id=company_id,
            subscription_tier=_TIERS.get(tier, identity_pb2.TIER_FREE),
            issued_at=issued_at,
            expires_at=expires_at,
        )
        claims = {
            "sub": user_id,
            "iss": ISSUER,
            "iat": issued_at,
            "exp": expires_at,
            "jti": uuid.uuid4().hex,
            "data": base64.b64encode(data.SerializeToString()).decode(),
        }
        if api_key:
            claims["key"] = api_key
        if account:
            claims["account"] = account
        key = self._signer
        return jwt.encode(claims, key.signing, algorithm=key.algorithm, headers={"kid": key.kid})

    def verify(self, token: str, *, now: float) -> TokenClaims:
        """Raises TokenError; ``now`` in Unix seconds."""
        # A token is ASCII: anything else could not even be encoded to be read.
        if len(token) > TOKEN_SIZE_LIMIT or not token.isascii():
            raise _invalid()
        if token.startswith(KEY_START):
            raise TokenError(
                "token_invalid", "this is an API key: POST it to /api/v1/tokens, and connect with the token"
            )
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise _invalid() from None
        # No extension is understood here, so one that must be understood is refused (RFC 7515, 4.1.11).
        if "crit" in header:
            raise _invalid()
        kid = header.get("kid")
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None or header.get("alg") != key.algorithm or header.get("typ", "JWT") != "JWT":
            raise _invalid()
        try:
            claims = jwt.decode(
                token,
                key.verifying,
                algorithms=[key.algorithm],
                issuer=ISSUER,
                # Times are compared below, with the clock that the caller gives.
                options={"require": _CLAIMS, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.PyJWTError:
            raise _invalid() from None
        self._check_times(claims, now)
        return _claims(claims)

    def _check_times(self, claims: dict[str, Any], now: float) -> None:
        for name in ("iat", "exp", "nbf"):
            if name in claims and (isinstance(claims[name], bool) or not isinstance(claims[name], int)):
                raise _invalid()
        if max(claims["iat"], claims.get("nbf", 0)) > now + self._leeway:
            raise _invalid()
        # Compared, not added up: a claim may be an integer that no float can hold.
        if claims["exp"] <= now - self._leeway:
            raise TokenError("token_expired", "this token has expired: get a new one")
        if claims["exp"] - claims["iat"] > self._lifetime_limit:
            days = self._lifetime_limit / 86_400
            raise TokenError("token_invalid", f"this token lives longer than the {days:g} days that are taken here")


def _claims(claims: dict[str, Any]) -> TokenClaims:
    """The claims with their UserToken, which must say the same."""
    if not all(isinstance(claims[name], str) and claims[name] for name in ("sub", "jti", "data")):
        raise _invalid()
    try:
        data = identity_pb2.UserToken.FromString(base64.b64decode(claims["data"], validate=True))
        tier = identity_pb2.SubscriptionTier.Name(data.subscription_tier).removeprefix("TIER_")
    except (DecodeError, ValueError):
        raise _invalid() from None
    api_key, account = claims.get("key", ""), claims.get("account", "")
    if len(claims["jti"]) > JTI_SIZE_LIMIT or not isinstance(api_key, str) or not isinstance(account, str):
        raise _invalid()
    if data.user_id != claims["sub"] or data.expires_at != claims["exp"] or not data.company_id:
        raise _invalid()
    return TokenClaims(
        data.user_id, data.company_id, tier, claims["jti"], claims["iat"], claims["exp"], api_key, account
    )


def _invalid() -> TokenError:
    # One text for every reason: whoever forges a token learns nothing from the answer.
    return TokenError("token_invalid", "this token is not valid: get a new one")


def _read_key(place: int, item: str) -> _Key:
    kid, _, rest = item.partition(":")
    algorithm, _, material = rest.partition(":")
    where = f"key {place} of GATEWAY_JWT_KEYS"
    if not kid or not material:
        raise ImproperlyConfigured(f"{where} is not of the form kid:ALG:material")
    if algorithm in _SECRET_SIZES:
        return _read_secret(where, kid, algorithm, material)
    if algorithm not in _KEY_KINDS:
        known = ", ".join([*_SECRET_SIZES, *_KEY_KINDS])
        raise ImproperlyConfigured(f"{where} names an algorithm that is not one of {known}")
    if not material.startswith("file="):
        raise ImproperlyConfigured(f"{where}: {algorithm} takes file= and the path of a PEM file")
    return _read_pem(where, kid, algorithm, Path(material.removeprefix("file=")))


def _read_secret(where: str, kid: str, algorithm: str, material: str) -> _Key:
    try:
        secret = base64.b64decode(material + "=" * (-len(material) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise ImproperlyConfigured(f"{where}: the secret is not url-safe base64") from None
    size = _SECRET_SIZES[algorithm]
    if len(secret) < size or len(set(secret)) < size // 4:
        raise ImproperlyConfigured(f"{where}: {algorithm} needs a random secret of at least {size} bytes")
    return _Key(kid, algorithm, secret, secret)


def _read_pem(where: str, kid: str, algorithm: str, path: Path) -> _Key:
    private_kind, public_kind = _KEY_KINDS[algorithm]
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise ImproperlyConfigured(f"{where}: the PEM file cannot be read ({error.strerror})") from None
    try:
        if b"PRIVATE KEY" in pem:
            private = serialization.load_pem_private_key(pem, password=None)
            public: Any = private.public_key()
        else:
            private, public = None, serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ImproperlyConfigured(f"{where}: the file holds no PEM key without a password") from None
    if not isinstance(public, public_kind) or (private is not None and not isinstance(private, private_kind)):
        raise ImproperlyConfigured(f"{where}: the file holds a key of another kind than {algorithm} needs")
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < 2048:
        raise ImproperlyConfigured(f"{where}: an RSA key needs at least 2048 bits")
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name != "secp256r1":
        raise ImproperlyConfigured(f"{where}: ES256 needs a key on the curve P-256")
    return _Key(kid, algorithm, public, private)


@cache
def default_keyring() -> Keyring:
    """The ring of the settings."""
    return Keyring.from_setting(
        settings.GATEWAY_JWT_KEYS,
        leeway=settings.GATEWAY_TOKEN_LEEWAY,
        lifetime_limit=max(LIFETIME_LIMIT, settings.GATEWAY_TOKEN_TTL_LIMIT),
    )


def issue_for(user: User, ttl: float, now: float | None = None, api_key: str = "", account: str = "") -> str:
    """A token for a user of a company; raises ValueError for an operator, who has none."""
    company = user.company
    if company is None:
        raise ValueError("operators have no company and get no terminal tokens")
    return default_keyring().issue(
        user_id=str(user.pk),
        company_id=str(company.pk),
        tier=company.tier.code,
        ttl=ttl,
        now=time.time() if now is None else now,
        api_key=api_key,
        account=account,
    )
