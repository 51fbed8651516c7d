"""The commands of the room: what they print, and what they refuse."""

import json
import stat
import time
from io import StringIO
from pathlib import Path
from typing import Any

import jwt
import pytest
from django.contrib.auth import authenticate
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import RequestFactory
from pytest_django import Settings

from tenants import access
from tenants.api_keys import user_of_api_key
from tenants.load_users import load_tokens
from tenants.models import ActivePair, ApiKey, Company, MT5Account, User
from tenants.tokens import TokenClaims, default_keyring
from tests.tenants import acts
from tests.tenants.cast import Cast

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def state_dir(settings: Settings, tmp_path: Path) -> Path:
    settings.GATEWAY_STATE_DIR = tmp_path / "state"
    return tmp_path / "state"


def run(command: str, *args: str) -> str:
    out, err = StringIO(), StringIO()
    call_command(command, *args, stdout=out, stderr=err)
    assert err.getvalue() == ""
    return out.getvalue()


def gets_in(person: dict[str, str]) -> bool:
    """By name and password, as the log-in page asks."""
    request = RequestFactory().post("/admin/login/")
    user = authenticate(request, username=person["username"], password=person["password"])
    return user is not None and user.get_username() == person["username"]


def claims_of(token: str) -> TokenClaims:
    """What a genuine token says, judged at the second when it was issued: a command has a clock of its own."""
    issued_at = jwt.decode(token, options={"verify_signature": False})["iat"]
    assert abs(issued_at - time.time()) < 600
    return default_keyring().verify(token, now=issued_at)


def versions() -> dict[str, int]:
    return dict(Company.objects.values_list("slug", "access_version"))


def test_issue_token_prints_one_token_and_nothing_else(cast: Cast) -> None:
    printed = run("issue_token", "--user", "bob")
    assert printed.count("\n") == 1 and printed.endswith("\n")
    claims = claims_of(printed.strip())
    assert claims.user_id == str(cast.bob.pk)
    assert claims.expires_at - claims.issued_at == 3600


@pytest.mark.parametrize("ttl", [1, 86_400])
def test_issue_token_takes_a_lifetime_up_to_the_limit(cast: Cast, ttl: int) -> None:
    claims = claims_of(run("issue_token", "--user", "bob", "--ttl", str(ttl)).strip())
    assert claims.expires_at - claims.issued_at == ttl


@pytest.mark.parametrize("ttl", ["0", "-1", "86401"])
def test_issue_token_refuses_a_lifetime_outside_the_limit(cast: Cast, ttl: str) -> None:
    with pytest.raises(CommandError, match="1 to 86400 seconds"):
        run("issue_token", "--user", "bob", f"--ttl={ttl}")


def test_unknown_user_gets_no_token(cast: Cast) -> None:
    with pytest.raises(CommandError, match="no user named dora"):
        run("issue_token", "--user", "dora")


def test_disabled_user_gets_no_token_from_the_command(cast: Cast) -> None:
    acts.disable(str(cast.bob.pk))
    with pytest.raises(CommandError, match="disabled"):
        run("issue_token", "--user", "bob")


def test_operator_gets_no_token_from_the_command(operator: User) -> None:
    with pytest.raises(CommandError, match="no company"):
        run("issue_token", "--user", "operator")


def test_createsuperuser_makes_an_operator(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a long enough password")
    call_command("createsuperuser", "--noinput", "--username", "root", "--email", "root@example.com", stdout=StringIO())
    made = User.objects.get(username="root")
    assert (made.role, made.company, made.is_superuser) == (User.Role.OPERATOR, None, True)
    assert made.check_password("a long enough password")


def test_demo_printed_twice_is_the_same(db: None) -> None:
    for args in ((), ("--json",)):
        assert run("seed_demo", *args) == run("seed_demo", *args)


def test_second_demo_changes_no_row_and_no_version(db: None, state_dir: Path) -> None:
    run("seed_demo")
    before = versions(), [model.objects.count() for model in (User, Company, ActivePair, MT5Account, ApiKey)]
    file = (state_dir / "demo.json").stat()
    run("seed_demo")
    assert before == (versions(), [model.objects.count() for model in (User, Company, ActivePair, MT5Account, ApiKey)])
    assert (state_dir / "demo.json").stat().st_mtime_ns == file.st_mtime_ns


def test_demo_raises_the_version_of_the_company_it_mends_and_of_no_other(db: None) -> None:
    run("seed_demo")
    before = versions()
    ActivePair.objects.filter(user__username="bromo-budi", symbol="EURUSD").delete()
    run("seed_demo")
    assert versions() == {**before, "bromo": before["bromo"] + 1}
    MT5Account.objects.filter(owner__username="rinjani-sari").delete()
    run("seed_demo")
    assert versions() == {**before, "bromo": before["bromo"] + 1, "rinjani": before["rinjani"] + 1}


def test_everybody_of_the_demo_gets_in(db: None) -> None:
    demo = json.loads(run("seed_demo", "--json"))
    assert [company["tier"] for company in demo["companies"]] == ["FREE", "PRO", "ENTERPRISE"]
    for person in demo["users"]:
        assert gets_in(person)
        if person["role"] != "operator":
            user = user_of_api_key(person["api_key"])
            assert user is not None and user.username == person["username"]
            found = access.terminal_access(str(user.pk))
            assert found is not None and found.refusal == "" and found.active_pairs and found.accounts


def test_rows_of_the_demo_keep_to_the_plans(db: None) -> None:
    run("seed_demo")
    for row in (*User.objects.all(), *MT5Account.objects.all(), *ActivePair.objects.all()):
        row.full_clean()
    for company in Company.objects.all():
        assert company.users.count() <= company.tier.user_limit


def test_secrets_of_the_demo_are_the_owners_only(db: None, state_dir: Path) -> None:
    run("seed_demo")
    assert stat.S_IMODE((state_dir / "demo.json").stat().st_mode) == 0o600
    assert [path.name for path in state_dir.iterdir()] == ["demo.json"]


def test_lost_secrets_of_the_demo_are_made_anew_and_old_keys_end(db: None, state_dir: Path) -> None:
    old = json.loads(run("seed_demo", "--json"))
    (state_dir / "demo.json").unlink()
    new = json.loads(run("seed_demo", "--json"))
    for before, after in zip(old["users"], new["users"], strict=True):
        assert gets_in(after)
        assert before["password"] != after["password"]
        if before["api_key"]:
            assert user_of_api_key(before["api_key"]) is None
            assert user_of_api_key(after["api_key"]) is not None


def test_account_of_another_company_does_not_stop_the_demo(cast: Cast) -> None:
    MT5Account.objects.create(login="1000001", broker_server="Demo-Server", company=cast.beta, owner=cast.charlie)
    run("seed_demo")
    assert MT5Account.objects.filter(login="1000001", broker_server="Demo-Server").count() == 2


@pytest.mark.parametrize("command", ["seed_demo", "seed_bench"])
def test_production_gets_no_made_up_people(db: None, settings: Settings, command: str) -> None:
    settings.IS_PRODUCTION = True
    settings.GATEWAY_BENCHMARK = True
    args: list[Any] = ["--users", "1"] if command == "seed_bench" else []
    with pytest.raises(CommandError):
        run(command, *args)
    with pytest.raises(ImproperlyConfigured):
        load_tokens(1)
    assert not User.objects.exists()


def test_users_without_limits_exist_in_measurements_only(db: None, settings: Settings) -> None:
    with pytest.raises(CommandError, match="GATEWAY_BENCHMARK=1"):
        run("seed_bench", "--users", "1")
    assert not User.objects.exists()
    settings.GATEWAY_BENCHMARK = True
    with pytest.raises(CommandError, match="at least 1"):
        run("seed_bench", "--users", "0")
    tokens = run("seed_bench", "--users", "3").split()
    rows = json.loads(run("seed_bench", "--users", "3", "--json"))["users"]
    found = [claims_of(token).user_id for token in tokens]
    assert found == [row["user_id"] for row in rows]
    assert [row["username"] for row in rows] == ["bench-00001", "bench-00002", "bench-00003"]
    limits = access.terminal_access(found[0])
    assert limits is not None and limits.message_rate_limit > 1e6 and limits.connection_limit > 1_000


def test_load_users_have_the_real_limits_ten_a_company(db: None) -> None:
    claims = [claims_of(token) for token in load_tokens(11, ttl=60)]
    assert len({claim.company_id for claim in claims[:10]}) == 1
    assert claims[10].company_id != claims[0].company_id
    assert {claim.tier for claim in claims} == {"ENTERPRISE"}
    before = versions()
    again = [claims_of(token).user_id for token in load_tokens(11, ttl=60)]
    assert again == [claim.user_id for claim in claims]
    assert versions() == before
    for row in (*User.objects.all(), *MT5Account.objects.all(), *ActivePair.objects.all()):
        row.full_clean()
