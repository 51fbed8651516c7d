"""A company admin who has never been here: from the invitation to a terminal that is online, by what the pages say."""

import asyncio
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from tests.support.children import start_child, stop_child
from tests.support.chromium import chromium, complaints
from tests.support.gateway import ROOT, Gateway, until
from trading_gateway_client import GatewayClient, api_key_token
from trading_gateway_client.pb import payloads_pb2

_WAIT = 20_000
_PASSWORD = "a password nobody guesses"
_DESKTOP: ViewportSize = {"width": 1280, "height": 900}
_PHONE: ViewportSize = {"width": 390, "height": 800}
# Below /admin/.
_PAGES = (
    "", "live/", "tenants/user/", "tenants/user/add/", "tenants/mt5account/", "tenants/mt5account/add/",
    "tenants/apikey/add/", "tenants/company/", "tenants/auditentry/", "security/",
)  # fmt: skip
_WARNED_OF = "async for part in content:"
_LINK = re.compile(r"http://\S+/invitations/\S+")
# What an operator does: a company, and the person who is to lead it.
_INVITE = """
from tenants.models import Company, SubscriptionTier, User
from tenants.signin.invitations import send_invitation
company = Company.objects.create(name="Semeru Trading", slug="semeru", tier=SubscriptionTier.objects.get(code="PRO"))
user = User(username="semeru.admin", email="admin@semeru.example", company=company, role=User.Role.COMPANY_ADMIN)
user.set_unusable_password()
user.save()
send_invitation(user, inviter_name="The operator", base_url="{base}")
"""


@dataclass
class Office:
    """A gateway and its worker, and the mailbox into which both write."""

    gateway: Gateway
    mailbox: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    def invite(self) -> None:
        self.gateway.manage("shell", "--no-imports", "-v0", "-c", _INVITE.format(base=self.address))

    def mail_to(self, address: str) -> str:
        """The text of the mail that has come for this address; waits for it."""
        until(lambda: bool(self._mails(address)), 10, f"a mail to {address}")
        return self._mails(address)[-1]

    def link_for(self, address: str) -> str:
        found = _LINK.search(self.mail_to(address))
        assert found is not None, "the mail has no link"
        return found[0]

    def _mails(self, address: str) -> list[str]:
        found = []
        for file in sorted(self.mailbox.iterdir()):
            for part in file.read_bytes().split(b"-" * 79):
                mail = message_from_bytes(part.lstrip(), policy=policy.default)
                body = mail.get_body(("plain",))
                if mail["To"] == address and body is not None:
                    found.append(body.get_content())
        return found


class Terminal:
    """Streams ticks in a thread of its own, with nothing but what a page has shown."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key
        self._stopping = threading.Event()
        self.acknowledged = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._stream()), daemon=True)

    def __enter__(self) -> "Terminal":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(20)

    async def _stream(self) -> None:
        http = self._url.replace("ws", "http", 1).removesuffix("/ws/mt5")
        client = GatewayClient(self._url, api_key_token(http, self._key))
        try:
            await client.start()
            while not self._stopping.is_set():
                await client.send_ticks([payloads_pb2.Tick(symbol="EURUSD", bid=1.1, ask=1.2)])
                self.acknowledged = client.outcomes.acknowledged
                await asyncio.sleep(0.1)
        finally:
            await client.close(5)


@pytest.fixture
def office(make_gateway: Callable[..., Gateway], tmp_path: Path) -> Iterator[Office]:
    mailbox = tmp_path / "mailbox"
    mailbox.mkdir()
    gateway = make_gateway(GATEWAY_EMAIL_URL=f"filemail:///{mailbox}", GATEWAY_PRESENCE_INTERVAL="1s").start()
    command = [sys.executable, str(ROOT / "manage.py"), "worker"]
    worker = start_child(command, tmp_path / "worker.log", gateway.environment)
    office = Office(gateway, mailbox)
    office.invite()
    yield office
    stop_child(worker)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def opened(browser: Browser, **how: object) -> tuple[BrowserContext, Page]:
    context = browser.new_context(**how)  # type: ignore[arg-type]  # passed on
    context.set_default_timeout(_WAIT)
    return context, context.new_page()


def choose_password(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_label("New password", exact=False).first.fill(_PASSWORD)
    page.get_by_label(re.compile("confirmation|again|konfirmasi", re.IGNORECASE)).fill(_PASSWORD)
    page.get_by_role("button", name="Save the password").click()


def step(page: Page, name: str) -> None:
    """From the first page to one of its next steps."""
    page.get_by_role("link", name="Trading gateway").first.click()
    page.get_by_role("link", name=name).first.click()


def save(page: Page) -> None:
    page.get_by_role("button", name="Save", exact=True).click()


def shoot(page: Page, folder: Path, name: str) -> None:
    page.screenshot(path=folder / f"{name}.png", full_page=True)


def test_new_company_admin_brings_a_terminal_online_by_what_the_pages_say(
    office: Office, browser: Browser, tmp_path: Path
) -> None:
    context, page = opened(browser, viewport=_DESKTOP)
    errors = complaints(page)
    choose_password(page, office.link_for("admin@semeru.example"))
    expect(page.get_by_role("heading", name="Next steps")).to_be_visible()
    shoot(page, tmp_path, "1-first-page")

    page.get_by_role("link", name="Invite a user").click()
    page.get_by_label("Username").fill("dewi")
    page.get_by_label("First name").fill("Dewi")
    page.get_by_label("Email address").fill("dewi@semeru.example")
    shoot(page, tmp_path, "2-invite")
    save(page)
    expect(page.get_by_text("The invitation of semeru.dewi goes to dewi@semeru.example.")).to_be_visible()
    shoot(page, tmp_path, "3-invited")

    step(page, "Register an MT5 account")
    page.get_by_label("Login").fill("5012345")
    page.get_by_label("Broker server").fill("Broker-Live01")
    page.get_by_role("combobox", name="Owner").select_option(label="semeru.dewi")
    shoot(page, tmp_path, "4-account")
    save(page)
    expect(page.get_by_role("link", name="5012345", exact=True)).to_be_visible()

    step(page, "Choose the pairs whose data is taken")
    page.get_by_role("textbox", name="Active pairs").fill("EURUSD, XAUUSD")
    shoot(page, tmp_path, "5-pairs")
    save(page)
    expect(page.locator(".success")).to_be_visible()

    step(page, "Issue an API key and enter it at the terminal")
    # The only account there is has been chosen already, and says whose key it is.
    expect(page.get_by_role("combobox", name="MT5 account")).to_have_value(re.compile(r"\d+"))
    page.get_by_role("textbox", name="Name").fill("VPS Jakarta")
    shoot(page, tmp_path, "6-key")
    save(page)
    key, address = page.locator("#console-key").inner_text(), page.locator("#console-address").inner_text()
    shoot(page, tmp_path, "7-key-shown")

    expect(page.locator("#console-seen")).to_contain_text("nobody has used this key yet")
    # Address and key are all that it needs, and the page says by itself that it is there.
    with Terminal(address, key) as terminal:
        until(lambda: terminal.acknowledged > 5, 20, "messages that Kafka has")
        expect(page.locator("#console-seen")).to_contain_text("5012345 is online", timeout=_WAIT)
        shoot(page, tmp_path, "7-seen")
        began = time.monotonic()
        page.get_by_role("link", name="Live connections").first.click()
        row = page.get_by_role("row").filter(has_text="semeru.dewi")
        # By its own script: nobody loads the page again.
        expect(row).to_contain_text("5012345", timeout=_WAIT)
        expect(row).to_contain_text("streaming", timeout=_WAIT)
        assert time.monotonic() - began < 20
        shoot(page, tmp_path, "8-live")
        until(lambda: "True" in _online(page, office), 20, "the account online in the list")
        shoot(page, tmp_path, "9-accounts")
        page.get_by_role("link", name="Trading gateway").first.click()
        expect(page.get_by_role("heading", name="Everything is set up")).to_be_visible()
        shoot(page, tmp_path, "10-all-done")
        _look_at_all(browser, context, office, tmp_path)
    assert errors == []
    assert [line for line in office.gateway.errors() if not _is_of_static_files(line)] == []


def test_invited_trader_learns_what_to_do_next(office: Office, browser: Browser, tmp_path: Path) -> None:
    """On a telephone in the dark: the pages of a person who has no business in the admin."""
    context, page = opened(browser, viewport=_DESKTOP)
    choose_password(page, office.link_for("admin@semeru.example"))
    page.get_by_role("link", name="Invite a user").click()
    page.get_by_label("Username").fill("budi")
    page.get_by_label("Email address").fill("budi@semeru.example")
    save(page)
    context.close()
    _, phone = opened(browser, viewport=_PHONE, color_scheme="dark")
    errors = complaints(phone)
    choose_password(phone, office.link_for("budi@semeru.example"))
    expect(phone.get_by_role("heading", name="Connect your terminal")).to_be_visible()
    expect(phone.get_by_text("semeru.budi")).to_be_visible()
    _fits(phone)
    shoot(phone, tmp_path, "trader")
    # The link works once, and says what to do then.
    phone.goto(office.link_for("budi@semeru.example"))
    expect(phone.get_by_text("Ask your company's admin for a new invitation.")).to_be_visible()
    assert [text for text in errors if "410" not in text] == []


def _is_of_static_files(line: str) -> bool:
    """Django warns once a process, in two lines, that WhiteNoise sends its files without being asynchronous."""
    return "StreamingHttpResponse must consume synchronous iterators" in line or line.strip() == _WARNED_OF


def _online(page: Page, office: Office) -> str:
    """What the list of accounts says of the one there is, as the check mark's own word."""
    page.goto(f"{office.address}/admin/tenants/mt5account/")
    return page.locator("td.field-is_online img").first.get_attribute("alt") or ""


def _look_at_all(browser: Browser, context: BrowserContext, office: Office, folder: Path) -> None:
    """Each page once in the other clothes: nothing sticks out, nothing is refused by the page's own policy."""
    state = context.storage_state()
    for number, how in enumerate((
        {"viewport": _PHONE, "color_scheme": "dark", "locale": "id-ID"},
        {"viewport": _PHONE, "color_scheme": "light", "locale": "en-US"},
        {"viewport": _DESKTOP, "color_scheme": "dark", "locale": "id-ID"},
    )):  # fmt: skip
        other, page = opened(browser, storage_state=state, **how)
        errors = complaints(page)
        for name in _PAGES:
            answer = page.goto(f"{office.address}/admin/{name}")
            assert answer is not None and answer.status == 200, name
            assert page.locator("html").get_attribute("lang") == str(how["locale"])[:2], name
            shoot(page, folder, f"look-{number}-{name.strip('/').replace('/', '-') or 'index'}")
            if how["viewport"] is _PHONE:
                _fits(page)
        _look_at_a_preview(page, office, folder / f"look-{number}-preview.png")
        assert errors == []
        other.close()


def _look_at_a_preview(page: Page, office: Office, picture: Path) -> None:
    """What happens to each row is in sight, on a telephone too."""
    page.goto(f"{office.address}/admin/tenants/mt5account/import/")
    rows = b"login,broker_server,owner\n5012346,Broker-Live01,semeru.dewi\n5012347,Broker-Live01,nobody.there\n"
    page.locator("input[type=file]").set_input_files({"name": "a.csv", "mimeType": "text/csv", "buffer": rows})
    page.locator(".submit-row [type=submit]").click()
    for row in page.locator(".console-cards tbody tr").all():
        box = row.locator("td").last.bounding_box()
        assert box is not None and box["x"] + box["width"] <= page.evaluate("window.innerWidth")
    page.screenshot(path=picture, full_page=True)
    _fits(page)


def _fits(page: Page) -> None:
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"{page.url} is {wide} px wider than a telephone"
