"""MT5 accounts in from a CSV file and out into one."""

import csv
import datetime
import io
import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tenants.bodies import CSV_SIZE_LIMIT
from tenants.console.csv_rows import ROW_LIMIT
from tenants.console.exports import guarded, unguarded
from tenants.models import AuditEntry, MT5Account, SubscriptionTier, User
from tests.tenants.cast import Cast
from tests.tenants.console.conftest import client_of
from tests.tenants.rows import everything

pytestmark = pytest.mark.django_db
IMPORT = "/admin/tenants/mt5account/import/"
HEADER = "login,broker_server,owner,active\n"


def upload(client: Client, content: str | bytes) -> Any:
    data = content.encode() if isinstance(content, str) else content
    return client.post(IMPORT, {"file": SimpleUploadedFile("accounts.csv", data)})


def verdicts(answer: Any) -> list[tuple[int, str]]:
    assert answer.status_code == 200, answer
    return [(one.row.number, one.verdict) for one in answer.context["judged"]]


def errors(answer: Any) -> list[str]:
    return [one.text for one in answer.context["judged"] if one.verdict == "error"]


def signed(answer: Any) -> str:
    found = re.search(r'name="preview" value="([^"]+)"', answer.content.decode())
    assert found is not None
    return found[1]


def take(client: Client, answer: Any) -> Any:
    return client.post(IMPORT, {"preview": signed(answer)})


def held() -> set[tuple[str, str, str, bool]]:
    rows = MT5Account.objects.select_related("owner")
    return {(row.login, row.broker_server, row.owner.username, row.is_active) for row in rows}


def cells(answer: Any) -> list[list[str]]:
    return list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))


def test_company_admin_previews_then_imports(cast: Cast, alice_client: Client) -> None:
    text = HEADER + "1,B,bob,yes\n2,B,alice,no\n3,B,bob,\n"
    preview = upload(alice_client, text)
    assert verdicts(preview) == [(2, "add"), (3, "add"), (4, "add")]
    assert "Import 3 rows" in preview.content.decode()
    assert held() == set()
    assert take(alice_client, preview)["Location"] == reverse("admin:tenants_mt5account_changelist")
    assert held() == {("1", "B", "bob", True), ("2", "B", "alice", False), ("3", "B", "bob", True)}
    assert AuditEntry.objects.filter(action="import", actor="alice", company_id=cast.alpha.pk).count() == 3


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"], ids=["plain", "mark"])
@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_files_of_every_spreadsheet_are_read(
    cast: Cast, alice_client: Client, prefix: bytes, separator: str, end: str
) -> None:
    lines = [["Owner", " LOGIN", "broker_server", "note"], ["bob", "77", "Bröker", "x"], ["", "", "", ""]]
    content = prefix + end.join(separator.join(line) for line in lines).encode()
    take(alice_client, upload(alice_client, content))
    assert held() == {("77", "Bröker", "bob", True)}


def test_rows_that_are_there_are_changed_or_left(cast: Cast, alice_client: Client) -> None:
    for login in ("1", "2", "3"):
        MT5Account.objects.create(login=login, broker_server="B", company=cast.alpha, owner=cast.bob)
    preview = upload(alice_client, HEADER + "1,B,bob,\n2,B,alice,\n3,B,bob,no\n")
    assert verdicts(preview) == [(2, "skip"), (3, "change"), (4, "change")]
    text = preview.content.decode()
    assert "gets the owner alice" in text and "will be disabled" in text
    take(alice_client, preview)
    assert held() == {("1", "B", "bob", True), ("2", "B", "alice", True), ("3", "B", "bob", False)}


def test_each_bad_row_says_what_is_wrong_and_the_good_ones_go_in(cast: Cast, alice_client: Client) -> None:
    rows = ["x1,B,bob,yes", "1,,bob,yes", "2,B,nobody,yes", "3,B,bob,maybe", "4,B,bob,yes", "4,B,bob,no", "5,B"]
    preview = upload(alice_client, HEADER + "\n".join(rows) + "\n")
    assert [verdict for _, verdict in verdicts(preview)] == [*["error"] * 4, "add", "error", "error"]
    told = errors(preview)
    assert "an MT5 login is a number" in told[0]
    assert "broker_server: This field cannot be blank" in told[1]
    assert "there is no user “nobody”" in told[2]
    assert "active must be yes or no" in told[3]
    assert "the same account as in line 6" in told[4]
    take(alice_client, preview)
    assert held() == {("4", "B", "bob", True)}


def test_owner_of_another_company_looks_like_nobody(cast: Cast, alice_client: Client) -> None:
    told = errors(upload(alice_client, HEADER + "1,B,charlie,\n2,B,nobody,\n"))
    assert told[0].replace("charlie", "nobody") == told[1]


def test_owner_may_stand_without_the_prefix(cast: Cast, alice_client: Client) -> None:
    User.objects.create_user("alpha.dewi", company=cast.alpha)
    take(alice_client, upload(alice_client, HEADER + "1,B,dewi,\n2,B,alpha.dewi,\n"))
    assert {row[2] for row in held()} == {"alpha.dewi"}


def test_rows_up_to_the_limit_go_in_and_those_above_are_named(cast: Cast, alice_client: Client) -> None:
    SubscriptionTier.objects.update(company_account_limit=3, user_account_limit=2)
    preview = upload(alice_client, HEADER + "1,B,bob,\n2,B,bob,\n3,B,bob,\n4,B,alice,\n5,B,alice,\n")
    assert verdicts(preview) == [(2, "add"), (3, "add"), (4, "error"), (5, "add"), (6, "error")]
    told = errors(preview)
    assert "this user has 2 of 2 MT5 accounts" in told[0] and "3 of 3 MT5 accounts of the plan" in told[1]
    take(alice_client, preview)
    assert {row[0] for row in held()} == {"1", "2", "4"}


def test_account_that_moves_frees_its_place_for_the_next_row(cast: Cast, alice_client: Client) -> None:
    SubscriptionTier.objects.update(user_account_limit=1)
    MT5Account.objects.create(login="1", broker_server="B", company=cast.alpha, owner=cast.bob)
    preview = upload(alice_client, HEADER + "1,B,alice,\n2,B,bob,\n3,B,alice,\n")
    assert verdicts(preview) == [(2, "change"), (3, "add"), (4, "error")]
    take(alice_client, preview)
    assert held() == {("1", "B", "alice", True), ("2", "B", "bob", True)}


def test_what_has_changed_since_the_preview_is_shown_before_anything_is_imported(
    cast: Cast, alice_client: Client
) -> None:
    SubscriptionTier.objects.update(company_account_limit=2)
    preview = upload(alice_client, HEADER + "1,B,bob,\n2,B,bob,\n")
    MT5Account.objects.create(login="9", broker_server="B", company=cast.alpha, owner=cast.bob)
    again = take(alice_client, preview)
    assert verdicts(again) == [(2, "add"), (3, "error")]
    assert "nothing was imported" in again.content.decode()
    assert {row[0] for row in held()} == {"9"}
    take(alice_client, again)
    assert {row[0] for row in held()} == {"9", "1"}


def test_same_preview_sent_twice_imports_once(cast: Cast, alice_client: Client) -> None:
    preview = upload(alice_client, HEADER + "1,B,bob,no\n")
    take(alice_client, preview)
    MT5Account.objects.update(is_active=True)
    assert verdicts(take(alice_client, preview)) == [(2, "change")]
    assert held() == {("1", "B", "bob", True)}


@pytest.mark.parametrize("change", ["forged", "of another admin", "cut"])
def test_preview_that_is_not_the_persons_own_is_refused(cast: Cast, alice_client: Client, change: str) -> None:
    mine = signed(upload(alice_client, HEADER + "1,B,bob,\n"))
    beta_admin = User.objects.create_user("beta.zoe", company=cast.beta, role="company_admin")
    theirs = signed(upload(client_of(beta_admin), HEADER + "1,B,charlie,\n"))
    forged = mine[:-1] + ("A" if mine[-1] != "A" else "B")
    sent = {"forged": forged, "of another admin": theirs, "cut": mine[:9]}[change]
    before = everything()
    answer = alice_client.post(IMPORT, {"preview": sent}, follow=True)
    assert "upload the file again" in answer.content.decode()
    assert everything() == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "empty"),
        (HEADER.encode(), "no rows"),
        (b"login,owner\n1,bob\n", "missing: broker_server"),
        (HEADER.encode() + b"1,Br\xf6ker,bob,\n", "not UTF-8"),
        (HEADER.encode() + b"1,\x00,bob,\n", "no CSV file"),
        (HEADER.encode() + b'1,"B' + b"x" * 200_000, "Line"),
        (HEADER.encode() + b"x" * CSV_SIZE_LIMIT, "larger than 1 MB"),
        (HEADER.encode() + b"1,B,bob,\n" * (ROW_LIMIT + 1), "more than 2000 rows"),
    ],
    ids=["empty", "header alone", "column", "latin", "binary", "quote", "size", "rows"],
)
def test_file_that_cannot_be_read_says_what_to_do(
    cast: Cast, alice_client: Client, content: bytes, complaint: str
) -> None:
    answer = upload(alice_client, content)
    assert answer.status_code == 200 and "judged" not in (answer.context or {})
    assert complaint in str(answer.context["form"].errors)


def test_file_at_the_limit_of_rows_is_previewed(cast: Cast, alice_client: Client) -> None:
    rows = "".join(f"{number},B,bob,\n" for number in range(1, ROW_LIMIT + 1))
    preview = upload(alice_client, HEADER + rows)
    assert [verdict for _, verdict in verdicts(preview)].count("add") == 10
    assert errors(preview)[-1] == errors(preview)[0]


def test_operator_imports_for_the_company_of_each_owner(cast: Cast, operator: User, operator_client: Client) -> None:
    preview = upload(operator_client, HEADER + "1,B,bob,\n1,B,charlie,\n2,B,operator,\n")
    assert verdicts(preview) == [(2, "add"), (3, "add"), (4, "error")]
    take(operator_client, preview)
    assert set(MT5Account.objects.values_list("company__slug", flat=True)) == {"alpha", "beta"}


def test_sample_can_be_imported_at_once(cast: Cast, alice_client: Client) -> None:
    sample = alice_client.get(reverse("admin:tenants_mt5account_sample"))
    assert "attachment" in sample["Content-Disposition"]
    assert [verdict for _, verdict in verdicts(upload(alice_client, sample.content))] == ["add", "add"]


def test_export_can_be_imported_again(cast: Cast, alice_client: Client) -> None:
    MT5Account.objects.create(login="1", broker_server="=B", company=cast.alpha, owner=cast.bob, is_active=False)
    exported = alice_client.get(reverse("admin:tenants_mt5account_export"))
    assert cells(exported)[1][:4] == ["1", "'=B", "bob", "no"]
    assert [verdict for _, verdict in verdicts(upload(alice_client, exported.content))] == ["skip"]


def test_account_that_is_online_is_shown_as_seen_now(cast: Cast, alice_client: Client) -> None:
    """Nothing is written while it stays online."""
    hours_ago = timezone.now() - datetime.timedelta(hours=8)
    for login, is_online in (("1", True), ("2", False)):
        owner = {"company": cast.alpha, "owner": cast.bob, "broker_server": "B"}
        MT5Account.objects.create(login=login, is_online=is_online, last_seen_at=hours_ago, **owner)
    page = alice_client.get("/admin/tenants/mt5account/").content.decode()
    seen = re.findall(r'class="field-last_seen[^"]*">([^<]+)<', page)
    assert sorted(text == "now" for text in seen) == [False, True]
    one = MT5Account.objects.get(login="1")
    assert ">now<" in alice_client.get(f"/admin/tenants/mt5account/{one.pk}/change/").content.decode()
    moments = {row[0]: row[5] for row in cells(alice_client.get(reverse("admin:tenants_mt5account_export")))[1:]}
    assert moments["1"] > moments["2"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(cast: Cast, alice_client: Client, start: str) -> None:
    assert guarded(f"{start}cmd") == f"'{start}cmd" and unguarded(guarded(f"{start}cmd")) == f"{start}cmd"
    User.objects.filter(pk=cast.bob.pk).update(first_name=f"{start}HYPERLINK(1)")
    exported = cells(alice_client.get(reverse("admin:tenants_user_export")))
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in exported for cell in row)


@pytest.mark.parametrize("before", ["x;", "x\t", "x\n", "x\r\n", ";", "x;;"])
def test_no_cell_is_a_formula_to_a_spreadsheet_with_another_separator(
    cast: Cast, alice_client: Client, before: str
) -> None:
    name = f"{before}=HYPERLINK(A1)"
    assert unguarded(guarded(name)) == name
    User.objects.filter(pk=cast.bob.pk).update(first_name=name)
    text = alice_client.get(reverse("admin:tenants_user_export")).content.decode()
    # As one reads that knows semicolons and tabs alone, and no quotes but at a cell's beginning.
    assert not [cell for cell in re.split(r"[;\t\r\n]", text) if cell.startswith(("=", "+", "-", "@"))]


def test_export_of_users_holds_no_secret(cast: Cast, alice_client: Client) -> None:
    cast.bob.set_password("a long enough password")
    cast.bob.save()
    text = alice_client.get(reverse("admin:tenants_user_export")).content.decode()
    assert "bob" in text and "md5" not in text


def test_account_has_one_spelling(cast: Cast, alice_client: Client) -> None:
    """A login with zeros before it never comes online, and servers that differ in case only are one."""
    MT5Account.objects.create(login="7", broker_server="Broker-Live", company=cast.alpha, owner=cast.bob)
    rows = ["7,broker-live,bob,", "7,BROKER-LIVE,bob,no", "8,Broker,bob,", "8,broker,bob,", "007,B,bob,", "0,B,bob,"]
    preview = upload(alice_client, HEADER + "\n".join(rows) + "\n")
    assert [verdict for _, verdict in verdicts(preview)] == ["skip", "error", "add", "error", "error", "error"]
    told = errors(preview)
    assert "the same account as in line 2" in told[0] and "the same account as in line 4" in told[1]
    assert all("does not begin with 0" in text for text in told[2:])
    take(alice_client, preview)
    for login, server, words in (
        ("7", "broker-LIVE", "7@Broker-Live is registered already, and differs in case only"),
        ("7", "Broker-Live", "registered already"),
        ("07", "C", "does not begin with 0"),
    ):
        add = reverse("admin:tenants_mt5account_add")
        form = {"login": login, "broker_server": server, "owner": cast.bob.pk, "is_active": "on"}
        assert words in alice_client.post(add, form).content.decode()
    assert held() == {("7", "Broker-Live", "bob", True), ("8", "Broker", "bob", True)}


def test_old_doubles_of_an_account_stay_as_they_are(cast: Cast, alice_client: Client) -> None:
    for server in ("B", "b"):
        MT5Account.objects.create(login="7", broker_server=server, company=cast.alpha, owner=cast.bob)
    MT5Account.objects.create(login="07", broker_server="B", company=cast.alpha, owner=cast.bob)
    preview = upload(alice_client, HEADER + "7,b,bob,no\n7,B,bob,\n07,B,bob,no\n")
    assert [verdict for _, verdict in verdicts(preview)] == ["change", "error", "change"]
    take(alice_client, preview)
    assert held() == {("7", "B", "bob", True), ("7", "b", "bob", False), ("07", "B", "bob", False)}
