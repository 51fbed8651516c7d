"""The eleventh user and the fifty-first account, asked for twenty times at once, on both databases."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import CookieJar
from threading import Barrier

import pytest

from tests.support.gateway import Gateway, manage
from tests.support.postgres import Postgres

REQUESTS = 20
_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')
# Leaves one place of each kind in the demo's company of the largest plan: ten users, fifty accounts.
_FILL = """
from tenants.models import Company, MT5Account, User
company = Company.objects.get(slug="rinjani")
for number in range(9 - company.users.count()):
    User.objects.create_user(f"rinjani.filler-{number}", company=company)
owners = list(company.users.order_by("username"))
for number in range(49 - company.accounts.count()):
    owner = owners[number % len(owners)]
    MT5Account.objects.create(login=str(5_000_000 + number), broker_server="B", company=company, owner=owner)
"""
_COUNT = """
import json
from tenants.models import AuditEntry, Company
company = Company.objects.get(slug="rinjani")
added = AuditEntry.objects.filter(action="add", actor="rinjani-admin", company_id=company.pk)
kinds = sorted(added.values_list("object_type", flat=True))
owner = company.users.get(username="rinjani.filler-0").pk
print(json.dumps([company.users.count(), company.accounts.count(), kinds, str(owner)]))
"""


class Browser:
    """A session in the admin; many threads may use it, as one person has many tabs."""

    def __init__(self, gateway: Gateway) -> None:
        self._base = f"http://127.0.0.1:{gateway.port}"
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()), _NoRedirects())

    def get(self, path: str) -> tuple[int, str]:
        """Status and text."""
        return self._open(path, None)

    def post(self, path: str, sent: dict[str, str]) -> Callable[[], tuple[int, str]]:
        """The form with its token, to be sent when the time has come."""
        token = _TOKEN.search(self.get(path)[1])
        assert token is not None
        body = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], **sent}).encode()
        return lambda: self._open(path, body)

    def _open(self, path: str, body: bytes | None) -> tuple[int, str]:
        try:
            with self._opener.open(self._base + path, body, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def full_gateway(request: pytest.FixtureRequest, make_gateway: Callable[..., Gateway]) -> tuple[Gateway, str]:
    """A gateway whose largest company has one place of each kind left, and the password of that company's admin."""
    if request.param == "sqlite":
        gateway = make_gateway()
    else:
        gateway = make_gateway(DATABASE_URL=request.getfixturevalue("postgres").url)
        manage("migrate", "-v0", environment=gateway.environment)
        # The passwords in the copied state belong to the rows of another database.
        (gateway.state_dir / "demo.json").unlink()
    people = json.loads(gateway.manage("seed_demo", "--json"))["users"]
    gateway.manage("shell", "--no-imports", "-c", _FILL)
    gateway.start()
    return gateway, next(person["password"] for person in people if person["username"] == "rinjani-admin")


def at_once(requests: list[Callable[[], tuple[int, str]]]) -> list[tuple[int, str]]:
    barrier = Barrier(len(requests))

    def send(request: Callable[[], tuple[int, str]]) -> tuple[int, str]:
        barrier.wait(timeout=60)
        return request()

    with ThreadPoolExecutor(len(requests)) as threads:
        return list(threads.map(send, requests))


def counts(gateway: Gateway) -> tuple[int, int, list[str], str]:
    users, accounts, added, owner = json.loads(gateway.manage("shell", "--no-imports", "-c", _COUNT).splitlines()[-1])
    return users, accounts, added, owner


def test_only_one_of_twenty_takes_the_last_place(full_gateway: tuple[Gateway, str]) -> None:
    gateway, password = full_gateway
    users, accounts, added, owner = counts(gateway)
    assert (users, accounts, added) == (9, 49, [])
    browser = Browser(gateway)
    browser.post("/admin/login/", {"username": "rinjani-admin", "password": password})()
    assert browser.get("/admin/")[0] == 200
    for path, fields, refusal in (
        ("/admin/tenants/user/add/", {"username": "guest-{}", "email": "guest-{}@rinjani.example"}, "10 of 10 users"),
        (
            "/admin/tenants/mt5account/add/",
            {"login": "70{}", "broker_server": "B", "owner": owner, "is_active": "on"},
            "50 of 50 MT5 accounts",
        ),
    ):
        posts = [
            browser.post(path, {name: value.format(number) for name, value in fields.items()})
            for number in range(REQUESTS)
        ]
        answers = at_once(posts)
        assert sorted(status for status, _ in answers) == [200] * (REQUESTS - 1) + [302]
        assert all(refusal in text for status, text in answers if status == 200)
    assert counts(gateway)[:3] == (10, 50, ["mt5account", "user"])
