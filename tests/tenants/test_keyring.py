"""GATEWAY_JWT_KEYS: strong keys of the right kind are taken, and no message shows one."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from tenants.checks import jwt_keys, token_lifetime
from tenants.tokens import Keyring
from tests.tenants.cast import COMPANY_ID, NOW, SECRET, USER_ID, secret_item, write_rsa_key


def write_private(path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> Path:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def round_trip(signing: Keyring, verifying: Keyring) -> str:
    token = signing.issue(user_id=USER_ID, company_id=COMPANY_ID, tier="PRO", ttl=60, now=NOW)
    return verifying.verify(token, now=NOW).user_id


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_secret_needs_as_many_bytes_as_the_hash(algorithm: str, size: int) -> None:
    ring = Keyring.from_setting(secret_item("one", SECRET[:size], algorithm))
    assert round_trip(ring, ring) == USER_ID
    with pytest.raises(ImproperlyConfigured, match=f"at least {size} bytes"):
        Keyring.from_setting(secret_item("one", SECRET[: size - 1], algorithm))


def test_rsa_private_key_signs_what_its_public_key_verifies(tmp_path: Path) -> None:
    private, public, _ = write_rsa_key(tmp_path)
    signing = Keyring.from_setting(f"one:RS256:file={private}")
    verifying = Keyring.from_setting(f"{secret_item('mine')},one:RS256:file={public}")
    assert round_trip(signing, verifying) == USER_ID


def test_elliptic_keys_of_the_right_curves_are_taken(tmp_path: Path) -> None:
    es256 = write_private(tmp_path / "es256.pem", ec.generate_private_key(ec.SECP256R1()))
    eddsa = write_private(tmp_path / "eddsa.pem", ed25519.Ed25519PrivateKey.generate())
    for item in (f"one:ES256:file={es256}", f"one:EdDSA:file={eddsa}"):
        ring = Keyring.from_setting(item)
        assert round_trip(ring, ring) == USER_ID


def test_elliptic_key_of_another_curve_is_refused(tmp_path: Path) -> None:
    path = write_private(tmp_path / "key.pem", ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(ImproperlyConfigured, match="P-256"):
        Keyring.from_setting(f"one:ES256:file={path}")


def test_rsa_key_below_2048_bits_is_refused(tmp_path: Path) -> None:
    private, _, _ = write_rsa_key(tmp_path, bits=1024)
    with pytest.raises(ImproperlyConfigured, match="2048"):
        Keyring.from_setting(f"one:RS256:file={private}")


def test_key_of_another_kind_than_the_algorithm_is_refused(tmp_path: Path) -> None:
    private, _, _ = write_rsa_key(tmp_path)
    with pytest.raises(ImproperlyConfigured, match="another kind"):
        Keyring.from_setting(f"one:ES256:file={private}")


def test_public_key_cannot_be_the_one_that_signs(tmp_path: Path) -> None:
    _, public, _ = write_rsa_key(tmp_path)
    with pytest.raises(ImproperlyConfigured, match="cannot be a public key"):
        Keyring.from_setting(f"one:RS256:file={public}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" , ", "is empty"),
        ("one", "kid:ALG:material"),
        (":HS256:abc", "kid:ALG:material"),
        ("one:none:abc", "not one of"),
        ("one:HS256:ab*d", "not url-safe base64"),
        ("one:HS256:é", "not url-safe base64"),
        (f"one:HS256:{base64.urlsafe_b64encode(bytes(64)).decode()}", "random secret"),
        ("one:RS256:abc", "takes file="),
        ("one:RS256:file=/nowhere/key.pem", "cannot be read"),
        (f"{secret_item('one')},{secret_item('one')}", "one kid twice"),
    ],
)
def test_setting_that_cannot_be_used_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=reason):
        Keyring.from_setting(text)


def test_file_without_a_key_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n", b"\xff"):
        (tmp_path / "key.pem").write_bytes(content)
        with pytest.raises(ImproperlyConfigured, match="no PEM key"):
            Keyring.from_setting(f"one:RS256:file={tmp_path / 'key.pem'}")


def test_refusal_shows_no_material() -> None:
    weak = base64.urlsafe_b64encode(SECRET[:31]).decode()
    with pytest.raises(ImproperlyConfigured) as caught:
        Keyring.from_setting(f"one:HS256:{weak}")
    assert weak not in str(caught.value)


def test_system_check_reports_keys_that_cannot_be_used(settings: Settings) -> None:
    assert jwt_keys(None) == []
    settings.GATEWAY_JWT_KEYS = ""
    assert [message.id for message in jwt_keys(None)] == ["tenants.E001"]


def test_system_check_reports_a_lifetime_above_its_limit(settings: Settings) -> None:
    settings.GATEWAY_TOKEN_TTL = settings.GATEWAY_TOKEN_TTL_LIMIT
    assert token_lifetime(None) == []
    settings.GATEWAY_TOKEN_TTL += 1
    assert [message.id for message in token_lifetime(None)] == ["tenants.E002"]
