"""The pages of live connections: who sees whom, filters, and ending connections."""

import re
import time
import uuid
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from streaming.console import table
from streaming.console.views import PART_HEADER
from tenants.models import AuditEntry, Kick, User
from tests.streaming.console.conftest import LiveRows, client_of
from tests.tenants.cast import Cast

LIST = "/admin/live/"


def names(client: Client, query: str = "") -> list[str]:
    """The users of the connections on the page, in its order."""
    answer = client.get(f"{LIST}{query}", headers={PART_HEADER: "1"})
    assert answer.status_code == 200
    return re.findall(r'data-key="user-\w+">([^<]+)<', answer.content.decode())


def plain(answer: Any) -> str:
    """A page without what is another each time: its token, and the address that was asked for."""
    return re.sub(r'name="(csrfmiddlewaretoken|next)" value="[^"]*"', "", answer.content.decode())


def test_operator_sees_all_connections_and_company_admin_those_of_the_company(
    cast: Cast, live: LiveRows, as_operator: Client, as_alice: Client
) -> None:
    for user in (cast.bob, cast.charlie, cast.alice):
        live.add(user)
    assert names(as_operator) == ["alice", "charlie", "bob"]
    assert names(as_alice) == ["alice", "bob"]
    # Others' are not even read.
    assert live.asked == [None, [str(cast.alpha.pk)]]


def test_row_of_another_company_in_the_wrong_place_is_not_shown(
    cast: Cast, live: LiveRows, as_alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.add(cast.charlie)
    monkeypatch.setattr(LiveRows, "__call__", lambda self, company_ids=None: list(self.rows))
    assert names(as_alice) == []


@pytest.mark.parametrize(
    "path", [LIST, f"{LIST}kick/x/", f"{LIST}kick/x/y/", f"{LIST}follow/x/", f"{LIST}follow/x/events/"]
)
def test_trader_and_stranger_are_led_to_the_sign_in(cast: Cast, live: LiveRows, path: str) -> None:
    for client in (Client(), client_of(cast.bob)):
        answer = client.get(path)
        assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, "/admin/login/")
    assert live.asked == []


def test_filters_find_what_they_say(cast: Cast, live: LiveRows, as_operator: Client) -> None:
    live.add(cast.bob, accounts=["1001", "1002"], state="streaming", address="192.0.2.10")
    live.add(cast.charlie, accounts=["100"], state="paused", address="2001:db8::1")
    live.add(cast.alice)
    assert names(as_operator, "?company=alpha") == ["alice", "bob"]
    assert names(as_operator, "?company=nobody") == []
    assert names(as_operator, "?user=LI") == ["alice", "charlie"]
    assert names(as_operator, "?user=%20bob%20") == ["bob"]
    assert names(as_operator, "?account=1002") == ["bob"]
    # A login is whole: 100 is not the beginning of 1001.
    assert names(as_operator, "?account=100") == ["charlie"]
    assert names(as_operator, "?state=paused") == ["charlie"]
    assert names(as_operator, "?state=nonsense") == ["alice", "charlie", "bob"]
    assert names(as_operator, "?address=192.0.2.1") == ["alice", "bob"]
    assert names(as_operator, "?company=alpha&state=streaming&user=b") == ["bob"]
    assert names(as_operator, "?state=idle&user=bob") == []


def test_company_admin_cannot_filter_by_company(cast: Cast, live: LiveRows, as_alice: Client) -> None:
    live.add(cast.bob)
    live.add(cast.charlie)
    page = as_alice.get(f"{LIST}?company=beta").content.decode()
    assert names(as_alice, "?company=beta") == ["bob"]
    assert 'name="company"' not in page and "Beta" not in page


def test_list_is_sorted_by_every_column_both_ways(cast: Cast, live: LiveRows, as_operator: Client) -> None:
    live.add(cast.charlie, messages=5, in_flight=1, state="streaming", address="10.0.0.1", accounts=["3"])
    live.add(cast.bob, messages=9, in_flight=0, state="idle", address="10.0.0.3", accounts=["2"])
    live.add(cast.alice, messages=7, in_flight=2, state="paused", address="10.0.0.2", accounts=["1"])
    up = {
        "user": ["alice", "bob", "charlie"],
        "company": ["alice", "bob", "charlie"],
        "messages": ["charlie", "alice", "bob"],
        "in_flight": ["bob", "charlie", "alice"],
        "state": ["charlie", "alice", "bob"],
        "address": ["charlie", "alice", "bob"],
        "accounts": ["alice", "bob", "charlie"],
        "opened": ["charlie", "bob", "alice"],
    }
    for column, expected in up.items():
        assert names(as_operator, f"?sort={column}") == expected, column
        assert names(as_operator, f"?sort=-{column}") == expected[::-1], column
    assert names(as_operator, "?sort=password") == names(as_operator)


def test_page_says_how_many_there_are_and_how_old_the_figures_are(
    cast: Cast, live: LiveRows, as_operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Nobody is connected" in as_operator.get(LIST).content.decode()
    live.add(cast.bob, seen_at=time.time() - 7)
    live.add(cast.alice)
    page = as_operator.get(LIST).content.decode()
    assert "2 connections" in page and re.search(r"up to [78] seconds old", page)
    monkeypatch.setattr(table, "SHOWN_LIMIT", 1)
    page = as_operator.get(LIST).content.decode()
    assert "2 connections" in page and "The first 1 are shown" in page
    assert names(as_operator) == ["alice"]
    assert "No connection matches" in as_operator.get(f"{LIST}?user=zoe").content.decode()


def test_refresh_brings_the_table_alone_and_keeps_the_filter_in_its_links(
    cast: Cast, live: LiveRows, as_operator: Client
) -> None:
    one = live.add(cast.bob, state="streaming")
    query = "?user=bob&state=streaming&sort=user"
    whole = as_operator.get(LIST + query).content.decode()
    part = as_operator.get(LIST + query, headers={PART_HEADER: "1"}).content.decode()
    assert "<html" in whole and "<html" not in part and "<form" not in part
    assert "user=bob&amp;state=streaming&amp;sort=-user" in part
    assert f"/admin/live/kick/{cast.bob.pk}/{one.session_id}/?back=user%3Dbob%26state%3Dstreaming%26sort%3Duser" in part
    assert f"/admin/tenants/user/{cast.bob.pk}/change/" in part
    assert 'name="sort" value="user"' in whole


def test_what_a_terminal_says_is_shown_as_text(cast: Cast, live: LiveRows, as_operator: Client) -> None:
    live.add(cast.bob, address="<script>alert(1)</script>", state="<b>")
    page = as_operator.get(f"{LIST}?address=%3Cscript").content.decode()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "<b>" not in page


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:1/0"], ids=["no redis", "redis away"])
def test_page_without_redis_says_so_and_what_it_means(
    cast: Cast, live: LiveRows, as_alice: Client, settings: Settings, url: str
) -> None:
    settings.REDIS_URL = url
    live.is_away = True
    answer = as_alice.get(LIST)
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "The list cannot be shown" in text and ("REDIS_URL" in text) == (not url)
    assert ("Terminals stay connected" in text) == bool(url)
    assert "Nobody is connected" not in text


# --- Ending connections -----------------------------------------------------------------------------------------------


def test_admin_asks_first_and_then_ends_one_connection(cast: Cast, live: LiveRows, as_alice: Client) -> None:
    one, other = live.add(cast.bob, address="192.0.2.7"), live.add(cast.bob, address="192.0.2.8")
    path = f"{LIST}kick/{cast.bob.pk}/{one.session_id}/"
    page = as_alice.get(f"{path}?back=user%3Dbob").content.decode()
    assert one.address in page and other.address not in page
    assert not Kick.objects.exists()
    answer = as_alice.post(path, {"reason": "for a test", "back": "user=bob&evil=//x"}, REMOTE_ADDR="198.51.100.4")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/live/?user=bob")
    kick = Kick.objects.get()
    assert (kick.user, kick.session_id) == (cast.bob, one.session_id)
    entry = AuditEntry.objects.get(action="kick")
    assert (entry.actor, entry.address, entry.company_id) == ("alice", "198.51.100.4", cast.alpha.pk)
    assert entry.after == {"user": "bob", "session_id": one.session_id, "reason": "for a test"}
    assert "ends within seconds" in as_alice.get(LIST).content.decode()


def test_operator_ends_all_connections_of_a_user_also_without_redis(
    cast: Cast, live: LiveRows, as_operator: Client
) -> None:
    live.is_away = True
    path = f"{LIST}kick/{cast.charlie.pk}/"
    assert "takes up to five seconds" in as_operator.get(path).content.decode()
    assert as_operator.post(path)["Location"] == LIST
    kick = Kick.objects.get()
    assert (kick.user, kick.session_id) == (cast.charlie, "")


def test_connection_that_is_gone_is_named_as_gone(cast: Cast, live: LiveRows, as_alice: Client) -> None:
    page = as_alice.get(f"{LIST}kick/{cast.bob.pk}/{'a' * 16}/").content.decode()
    assert "no such connection now" in page


def test_nobody_is_made_to_end_connections_by_another_page(cast: Cast, live: LiveRows) -> None:
    client = client_of(cast.alice, enforce_csrf_checks=True)
    assert client.post(f"{LIST}kick/{cast.bob.pk}/").status_code == 403
    assert not Kick.objects.exists()


@pytest.mark.parametrize("action", ["kick/{}/", "kick/{}/" + "a" * 16 + "/", "follow/{}/", "follow/{}/events/"])
def test_user_of_another_company_an_unknown_and_a_malformed_id_answer_alike(
    cast: Cast, live: LiveRows, as_alice: Client, operator: User, action: str
) -> None:
    live.add(cast.charlie, session_id="a" * 16)
    ids = [str(cast.charlie.pk), str(operator.pk), str(uuid.uuid4()), "nonsense", "%00", "1' OR 1=1", "é" * 40]
    methods = ["get", "post"] if action.startswith("kick") else ["get"]
    for method in methods:
        answers = [getattr(as_alice, method)(LIST + action.format(one)) for one in ids]
        assert {answer.status_code for answer in answers} == {404}
        assert len({plain(answer) for answer in answers}) == 1
    assert not Kick.objects.exists()


@pytest.mark.parametrize("session", ["nonsense", "A" * 16, "a" * 17, "%00"])
def test_malformed_id_of_a_connection_answers_404(cast: Cast, live: LiveRows, as_alice: Client, session: str) -> None:
    path = f"{LIST}kick/{cast.bob.pk}/{session}/"
    assert as_alice.get(path).status_code == as_alice.post(path).status_code == 404
    assert not Kick.objects.exists()


def test_only_reading_is_taken_where_nothing_changes(cast: Cast, live: LiveRows, as_alice: Client) -> None:
    for path in (LIST, f"{LIST}follow/{cast.bob.pk}/", f"{LIST}follow/{cast.bob.pk}/events/"):
        assert as_alice.post(path).status_code == 405


# --- Following --------------------------------------------------------------------------------------------------------


def test_only_an_operator_is_offered_prices(cast: Cast, as_operator: Client, as_alice: Client) -> None:
    path = f"{LIST}follow/{cast.bob.pk}/"
    assert 'id="follow-prices"' in as_operator.get(path).content.decode()
    page = as_alice.get(path).content.decode()
    assert 'id="follow-prices"' not in page and f"{path}events/" in page


def test_follow_page_without_redis_says_so(cast: Cast, as_alice: Client, settings: Settings) -> None:
    settings.REDIS_URL = ""
    page = as_alice.get(f"{LIST}follow/{cast.bob.pk}/").content.decode()
    assert "no Redis is configured" in page and "events/" not in page


# --- All pages --------------------------------------------------------------------------------------------------------


def test_pages_hold_no_script_and_no_style_of_their_own(cast: Cast, live: LiveRows, as_operator: Client) -> None:
    one = live.add(cast.bob)
    for path in (
        "",
        f"kick/{cast.bob.pk}/{one.session_id}/",
        f"kick/{cast.bob.pk}/",
        f"follow/{cast.bob.pk}/",
        "kick/x/",
    ):
        answer = as_operator.get(LIST + path)
        text = answer.content.decode()
        assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
        assert re.findall(r"<style|\sstyle=|\son\w+=", text) == []
        assert "script-src 'self'" in answer["Content-Security-Policy"]


def test_pages_speak_indonesian(cast: Cast, live: LiveRows, as_alice: Client) -> None:
    one = live.add(cast.bob)
    paths = ("", f"kick/{cast.bob.pk}/{one.session_id}/", f"follow/{cast.bob.pk}/")
    for path in paths:
        english, other = (
            as_alice.get(LIST + path, headers={"Accept-Language": language}).content.decode()
            for language in ("en", "id")
        )
        assert "Live connections" in english and "Live connections" not in other and "Koneksi langsung" in other


def test_admin_leads_to_the_live_pages(cast: Cast, as_alice: Client) -> None:
    assert 'href="/admin/live/"' in as_alice.get("/admin/").content.decode()
    page = as_alice.get(f"/admin/tenants/user/{cast.bob.pk}/change/").content.decode()
    assert f"/admin/live/follow/{cast.bob.pk}/" in page and f"/admin/live/kick/{cast.bob.pk}/" in page
