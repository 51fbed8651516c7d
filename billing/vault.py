"""Keeps what charges somebody: tokens of saved cards and linked wallets, encrypted under a key of ours. Room: billing.

The key is derived from SECRET_KEY. A token sealed under a key of SECRET_KEY_FALLBACKS still opens; sealing takes the
newest. Neither a token nor a key is in any error.
"""

from base64 import urlsafe_b64encode

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

_PURPOSE = b"trading gateway: saved payment methods"


class VaultError(Exception):
    """What was kept cannot be opened: it was sealed under a key that is gone, or changed. Ask for another method."""


def seal(token: str) -> bytes:
    return _box().encrypt(token.encode())


def unseal(sealed: bytes | memoryview) -> str:
    """Raises VaultError."""
    try:
        return _box().decrypt(bytes(sealed)).decode()
    except InvalidToken:
        raise VaultError("a saved payment method cannot be opened: ask for another one") from None


def _box() -> MultiFernet:
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return MultiFernet([Fernet(_key_of(secret)) for secret in secrets])


def _key_of(secret: str | bytes) -> bytes:
    material = secret.encode() if isinstance(secret, str) else secret
    return urlsafe_b64encode(HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(material))
