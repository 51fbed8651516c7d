"""A company admin buys a plan in a real browser; the page and a terminal that is connected have it at once."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support.children import start_child, stop_child
from tests.support.chromium import chromium, complaints
from tests.support.gateway import ROOT, Gateway
from tests.support.midtrans import SERVER_KEY, StandIn
from tests.support.terminal import Terminal

WHO = "merapi-admin"
_WAIT = 20_000


@dataclass
class Shop:
    """A gateway, its worker and the stand-in for Midtrans, which know each other."""

    gateway: Gateway
    stand_in: StandIn

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    def sign_in(self, browser: Browser, **how: object) -> tuple[BrowserContext, Page]:
        password = json.loads((self.gateway.state_dir / "demo.json").read_text())[WHO]["password"]
        context = browser.new_context(**how)  # type: ignore[arg-type]  # passed on
        context.set_default_timeout(_WAIT)
        page = context.new_page()
        page.goto(f"{self.address}/admin/login/")
        page.fill("input[name=username]", WHO)
        page.fill("input[name=password]", password)
        page.press("input[name=password]", "Enter")
        page.wait_for_url(re.compile(r"/admin/$"))
        return context, page


@pytest.fixture
def shop(make_gateway: Callable[..., Gateway], tmp_path: Path) -> Iterator[Shop]:
    gateway = make_gateway()
    told = f"http://127.0.0.1:{gateway.port}/billing/midtrans/notifications/"
    stand_in = StandIn(tmp_path, told)
    gateway.environment |= {"MIDTRANS_BASE_URL": stand_in.url, "MIDTRANS_SERVER_KEY": SERVER_KEY}
    stand_in.wait_ready()
    gateway.start()
    command = [sys.executable, str(ROOT / "manage.py"), "worker"]
    worker = start_child(command, tmp_path / "worker.log", gateway.environment)
    yield Shop(gateway, stand_in)
    stop_child(worker)
    stand_in.stop()


def test_company_admin_buys_pro_by_qris_and_page_and_live_terminal_have_it_at_once(shop: Shop) -> None:
    terminal = Terminal(shop.gateway, shop.gateway.manage("issue_token", "--user", WHO).strip())
    assert terminal.welcome["policy"]["tier"] == "FREE"
    with chromium() as browser:
        context, page = shop.sign_in(browser)
        errors = complaints(page)
        page.get_by_role("link", name="Plan and payment").first.click()
        expect(page.get_by_role("heading", name="You use the plan FREE.")).to_be_visible()
        # Somebody else of the company looks at the plan meanwhile.
        watched = context.new_page()
        watched.goto(page.url)

        page.get_by_role("link", name="Choose Pro, monthly").click()
        expect(page.get_by_text("Rp49.450")).to_be_visible()
        page.get_by_role("button", name="Pay Rp499.000").click()
        expect(page.get_by_text("Test payments: no money moves here.")).to_be_visible()
        page.get_by_role("group", name="QRIS").get_by_role("button", name="Pay", exact=True).click()
        paid_at = time.monotonic()

        # Within the terminal's own time limit; most often in a few hundred milliseconds.
        policy = terminal.hear_until("gateway.policy")
        while policy["tier"] != "PRO":
            policy = terminal.hear_until("gateway.policy")
        assert policy["message_rate_limit"] == 50
        page.get_by_role("link", name="Back to the shop").click()
        expect(page.get_by_role("heading", name="Paid: Pro is in force")).to_be_visible(timeout=_WAIT)
        # By its own script: nobody loads this page again.
        expect(watched.get_by_role("heading", name=re.compile("^Pro, paid until "))).to_be_visible(timeout=_WAIT)
        assert time.monotonic() - paid_at < 20
        assert errors == []
    terminal.close()


def test_waiting_page_shows_the_payment_without_being_loaded_again(shop: Shop) -> None:
    """On a telephone, in Indonesian."""
    with chromium() as browser:
        phone = {"width": 390, "height": 800}
        context, page = shop.sign_in(browser, viewport=phone, locale="id-ID", color_scheme="dark")
        errors = complaints(page)
        page.goto(f"{shop.address}/admin/billing/account/")
        page.get_by_role("link", name="Pilih Pro, bulanan").click()
        page.get_by_role("button", name="Bayar Rp499.000").click()
        page.get_by_role("group", name="QRIS").get_by_role("button", name="Leave pending").click()

        waiting = context.new_page()
        waiting_errors = complaints(waiting)
        waiting.goto(f"{shop.address}/admin/billing/account/")
        waiting.get_by_role("link", name="Ke faktur").click()
        expect(waiting.get_by_role("heading", name="Kami menunggu konfirmasi pembayaran Anda")).to_be_visible()
        page.get_by_role("button", name="Pay", exact=True).click()
        expect(waiting.get_by_role("heading", name="Lunas: Pro berlaku")).to_be_visible(timeout=_WAIT)
        for shown in (waiting, page):
            wide = shown.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0, "the page is wider than the telephone"
        assert errors == waiting_errors == []
