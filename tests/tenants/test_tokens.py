"""Tokens: what is made is taken, what is forged is not (RFC 8725)."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from tenants import access
from tenants.models import User
from tenants.tokens import LIFETIME_LIMIT, TOKEN_SIZE_LIMIT, Keyring, TokenClaims, TokenError, issue_for
from tests.tenants import acts
from tests.tenants.cast import (
    COMPANY_ID,
    NOW,
    OLD_SECRET,
    SECRET,
    USER_ID,
    Cast,
    claims,
    secret_item,
    sign,
    user_token,
    write_rsa_key,
)


@pytest.fixture
def ring() -> Keyring:
    return Keyring.from_setting(secret_item("one"))


def code_of(ring: Keyring, token: str, now: float = NOW) -> str:
    """The code of the refusal; fails where the token is taken."""
    with pytest.raises(TokenError) as caught:
        ring.verify(token, now=now)
    assert token not in str(caught.value)
    return caught.value.code


def segment(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@pytest.mark.parametrize("tier", ["FREE", "PRO", "ENTERPRISE"])
def test_issued_token_says_who_it_was_issued_for(ring: Keyring, tier: str) -> None:
    token = ring.issue(user_id=USER_ID, company_id=COMPANY_ID, tier=tier, ttl=60, now=NOW)
    found = ring.verify(token, now=NOW)
    assert found == TokenClaims(USER_ID, COMPANY_ID, tier, found.jti, NOW, NOW + 60)


def test_tier_of_the_operators_own_name_is_free_in_the_token(ring: Keyring) -> None:
    token = ring.issue(user_id=USER_ID, company_id=COMPANY_ID, tier="BENCHMARK", ttl=60, now=NOW)
    assert ring.verify(token, now=NOW).tier == "FREE"


def test_each_token_has_its_own_jti(ring: Keyring) -> None:
    tokens = [ring.issue(user_id=USER_ID, company_id=COMPANY_ID, tier="PRO", ttl=60, now=NOW) for _ in range(50)]
    assert len({ring.verify(token, now=NOW).jti for token in tokens}) == 50


def test_token_of_a_trader_names_the_trader_and_the_company(cast: Cast) -> None:
    found = Keyring.from_setting(secret_item("one")).verify(issue_for(cast.bob, 60, NOW), now=NOW)
    assert (found.user_id, found.company_id, found.tier) == (str(cast.bob.pk), str(cast.alpha.pk), "PRO")


def test_operator_gets_no_token(operator: User) -> None:
    with pytest.raises(ValueError, match="no company"):
        issue_for(operator, 60)


def test_handmade_token_with_every_claim_is_taken(ring: Keyring) -> None:
    assert ring.verify(sign(claims()), now=NOW).user_id == USER_ID


def test_unsigned_token_is_refused(ring: Keyring) -> None:
    assert code_of(ring, sign(claims(), key=None, algorithm="none")) == "token_invalid"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
def test_token_that_claims_no_algorithm_is_refused_with_and_without_signature(ring: Keyring, name: str) -> None:
    header = segment(json.dumps({"alg": name, "kid": "one", "typ": "JWT"}).encode())
    _, payload, signature = sign(claims()).split(".")
    assert code_of(ring, f"{header}.{payload}.") == "token_invalid"
    assert code_of(ring, f"{header}.{payload}.{signature}") == "token_invalid"


def test_public_rsa_key_as_hmac_secret_is_refused(tmp_path: Path) -> None:
    private, _, public_pem = write_rsa_key(tmp_path)
    ring = Keyring.from_setting(f"one:RS256:file={private}")
    header = segment(json.dumps({"alg": "HS256", "kid": "one", "typ": "JWT"}).encode())
    payload = segment(json.dumps(claims()).encode())
    # PyJWT itself refuses to sign with a PEM: an attacker's own code does not.
    signature = segment(hmac.digest(public_pem, f"{header}.{payload}".encode(), hashlib.sha256))
    assert code_of(ring, f"{header}.{payload}.{signature}") == "token_invalid"


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_token_signed_with_the_right_secret_and_another_algorithm_is_refused(ring: Keyring, algorithm: str) -> None:
    assert code_of(ring, sign(claims(), algorithm=algorithm)) == "token_invalid"


def test_token_signed_by_another_key_of_the_ring_than_its_kid_says_is_refused() -> None:
    ring = Keyring.from_setting(f"{secret_item('one')},{secret_item('old', OLD_SECRET)}")
    assert code_of(ring, sign(claims(), key=OLD_SECRET, headers={"kid": "one"})) == "token_invalid"


@pytest.mark.parametrize("kid", ["two", "", "ONE", "../one", "one\x00"])
def test_unknown_kid_is_refused(ring: Keyring, kid: str) -> None:
    assert code_of(ring, sign(claims(), headers={"kid": kid})) == "token_invalid"


def test_missing_kid_is_refused(ring: Keyring) -> None:
    assert code_of(ring, sign(claims(), headers={})) == "token_invalid"


def test_kid_that_is_no_text_is_refused(ring: Keyring) -> None:
    _, payload, signature = sign(claims()).split(".")
    for kid in (1, None, ["one"], {"one": 1}):
        header = segment(json.dumps({"alg": "HS256", "kid": kid}).encode())
        assert code_of(ring, f"{header}.{payload}.{signature}") == "token_invalid"


@pytest.mark.parametrize("issued", [int(NOW), int(NOW) - 86_400])
def test_token_of_the_longest_life_is_taken_and_one_second_more_is_not(ring: Keyring, issued: int) -> None:
    longest = issued + LIFETIME_LIMIT
    assert (
        ring.verify(sign(claims(iat=issued, exp=longest, data=user_token(expires_at=longest))), now=NOW).expires_at
        == longest
    )
    with pytest.raises(TokenError, match="31 days") as refused:
        ring.verify(sign(claims(iat=issued, exp=longest + 1)), now=NOW)
    assert refused.value.code == "token_invalid"


@pytest.mark.parametrize(
    ("issued", "expires"),
    [(int(NOW), 2**60), (int(NOW), 2**63), (int(NOW), 10**400), (-(2**60), int(NOW) + 60), (0, int(NOW) + 60)],
)
def test_token_with_a_time_beyond_all_reason_is_refused(ring: Keyring, issued: int, expires: int) -> None:
    assert code_of(ring, sign(claims(iat=issued, exp=expires))) == "token_invalid"


def test_token_expires_at_its_second(ring: Keyring) -> None:
    token = sign(claims())
    assert ring.verify(token, now=NOW + 59.999).expires_at == NOW + 60
    assert code_of(ring, token, now=NOW + 60) == "token_expired"


def test_leeway_moves_both_ends() -> None:
    ring = Keyring.from_setting(secret_item("one"), leeway=5)
    token = sign(claims())
    assert ring.verify(token, now=NOW - 5).user_id == ring.verify(token, now=NOW + 64.9).user_id
    assert code_of(ring, token, now=NOW - 5.1) == "token_invalid"
    assert code_of(ring, token, now=NOW + 65) == "token_expired"


def test_token_is_not_taken_before_its_nbf(ring: Keyring) -> None:
    token = sign(claims(nbf=int(NOW) + 10))
    assert code_of(ring, token, now=NOW + 9) == "token_invalid"
    assert ring.verify(token, now=NOW + 10).user_id == USER_ID


@pytest.mark.parametrize("claim", ["sub", "iss", "iat", "exp", "jti", "data"])
def test_token_without_a_claim_is_refused(ring: Keyring, claim: str) -> None:
    assert code_of(ring, sign(claims(**{claim: None}))) == "token_invalid"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody-else"},
        {"iss": "API-GATEWAY"},
        {"sub": ""},
        {"sub": "1f9d6a0e-6f0a-4f39-8d5b-0e3a2a4b1c11"},
        {"jti": ""},
        {"jti": "a" * 65},
        {"exp": str(int(NOW) + 60)},
        {"exp": NOW + 60.5},
        {"exp": True},
        {"exp": int(NOW) + 61},
        {"iat": "yesterday"},
        {"iat": int(NOW) + 1},
        {"nbf": "tomorrow"},
        {"data": ""},
        {"data": "no base64!"},
        {"data": base64.b64encode(b"\xff\xff\xff").decode()},
        {"data": base64.b64encode(b'{"user_id": "x"}').decode()},
        {"data": user_token(user_id="1f9d6a0e-6f0a-4f39-8d5b-0e3a2a4b1c11")},
        {"data": user_token(company_id="")},
        {"data": user_token(expires_at=int(NOW) + 3600)},
        {"data": user_token(subscription_tier=77)},
    ],
    ids=lambda changes: ",".join(f"{name}={str(value)[:24]}" for name, value in changes.items()),
)
def test_token_with_a_wrong_claim_is_refused(ring: Keyring, changes: dict[str, Any]) -> None:
    assert code_of(ring, sign(claims(**changes))) == "token_invalid"


def test_token_with_the_longest_jti_is_taken(ring: Keyring) -> None:
    assert ring.verify(sign(claims(jti="a" * 64)), now=NOW).jti == "a" * 64


@pytest.mark.parametrize(
    "extra", [{"crit": ["b64"], "b64": True}, {"crit": ["exp"]}, {"crit": []}, {"crit": "exp"}, {"crit": None}]
)
def test_token_whose_header_names_critical_extensions_is_refused(ring: Keyring, extra: dict[str, Any]) -> None:
    header = segment(json.dumps({"alg": "HS256", "kid": "one", "typ": "JWT", **extra}).encode())
    signed = f"{header}.{segment(json.dumps(claims()).encode())}"
    signature = segment(hmac.digest(SECRET, signed.encode(), hashlib.sha256))
    assert code_of(ring, f"{signed}.{signature}") == "token_invalid"


def test_key_that_a_header_brings_along_is_not_used(ring: Keyring) -> None:
    own = {"kid": "one", "jku": "https://attacker.example/keys", "jwk": {"kty": "oct", "k": segment(OLD_SECRET)}}
    assert code_of(ring, sign(claims(), key=OLD_SECRET, headers=own)) == "token_invalid"
    assert ring.verify(sign(claims(), headers=own), now=NOW).user_id == USER_ID


def test_token_of_another_type_is_refused(ring: Keyring) -> None:
    assert code_of(ring, sign(claims(), headers={"kid": "one", "typ": "dpop+jwt"})) == "token_invalid"


def test_old_key_still_verifies_after_a_rotation_and_the_new_one_signs() -> None:
    before = Keyring.from_setting(secret_item("old", OLD_SECRET))
    overlap = Keyring.from_setting(f"{secret_item('new')},{secret_item('old', OLD_SECRET)}")
    after = Keyring.from_setting(secret_item("new"))
    person = {"user_id": USER_ID, "company_id": COMPANY_ID, "tier": "PRO"}
    old, new = before.issue(**person, ttl=60, now=NOW), overlap.issue(**person, ttl=60, now=NOW)
    assert jwt.get_unverified_header(new)["kid"] == "new"
    assert overlap.verify(old, now=NOW).user_id == overlap.verify(new, now=NOW).user_id == USER_ID
    assert after.verify(new, now=NOW).user_id == USER_ID
    assert code_of(after, old) == "token_invalid"


def test_token_as_long_as_the_limit_is_taken_and_one_longer_is_not(ring: Keyring) -> None:
    # Three bytes of a claim are four characters of a token: the header's text makes up the rest.
    tokens = {len(token): token for token in (padded(kid_size, size) for kid_size in range(3) for size in range(40))}
    assert ring.verify(tokens[TOKEN_SIZE_LIMIT], now=NOW).user_id == USER_ID
    assert code_of(ring, tokens[TOKEN_SIZE_LIMIT + 1]) == "token_invalid"


def padded(header_size: int, claim_size: int) -> str:
    """A genuine token of somewhat more or less than the limit."""
    shortest = len(sign(claims(pad="")))
    claim = "x" * ((TOKEN_SIZE_LIMIT - shortest) * 3 // 4 - 20 + claim_size)
    return sign(claims(pad=claim), headers={"kid": "one", "x": "y" * header_size})


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "\ud800.\ud800.\ud800",
        "é.é.é",
        "\x00",
        " " * 100,
        f"{segment(b'[' * 3_000)}.e30.e30",
        f"{segment(b'[]')}.e30.e30",
        f"{segment(bytes([0xFF, 0xFE]))}.e30.e30",
        f"{segment(b'null')}.e30.e30",
        "." * TOKEN_SIZE_LIMIT,
    ],
    ids=range(14),
)
def test_text_that_is_no_token_is_refused(ring: Keyring, token: str) -> None:
    with pytest.raises(TokenError):
        ring.verify(token, now=NOW)


@pytest.mark.parametrize("payload", [b"[]", b"null", b"1", b"", b"\xff", b"[" * 2_900])
def test_signed_payload_that_is_no_object_is_refused(ring: Keyring, payload: bytes) -> None:
    token = jwt.api_jws.encode(payload, SECRET, algorithm="HS256", headers={"kid": "one"})
    assert code_of(ring, token) == "token_invalid"


def test_changed_payload_is_refused(ring: Keyring) -> None:
    header, _, signature = sign(claims()).split(".")
    payload = segment(json.dumps(claims(sub="somebody-else")).encode())
    assert code_of(ring, f"{header}.{payload}.{signature}") == "token_invalid"


@pytest.mark.django_db
def test_revoked_token_is_listed_until_it_expires(cast: Cast) -> None:
    moment = time.time()
    found = Keyring.from_setting(secret_item("one")).verify(issue_for(cast.bob, 60, moment), now=moment)
    acts.revoke_token(found.jti, found.user_id, found.expires_at)
    acts.revoke_token(found.jti, found.user_id, found.expires_at)
    acts.revoke_token("b" * 64, found.user_id, moment - 1)
    assert [row[1:] for row in access.revoked_tokens(0)] == [(found.jti, found.expires_at)]


def test_api_key_in_place_of_a_token_is_told_where_it_belongs(ring: Keyring) -> None:
    with pytest.raises(TokenError, match="POST it to /api/v1/tokens"):
        ring.verify(f"gwk_abcdefgh_{'x' * 43}", now=time.time())
