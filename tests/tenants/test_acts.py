"""The acts that have a name: enable, suspend, change the plan, choose pairs, revoke, kick."""

import datetime
import time
from collections.abc import Callable

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from tenants import access
from tenants.access import Actor, NotVisible
from tenants.models import ActivePair, ApiKey, AuditEntry, Company, CompanyOverride, Kick, RevokedToken, User
from tests.tenants.acts import SYSTEM
from tests.tenants.cast import Cast, make_trader, tier, version_of
from tests.tenants.rows import announced, everything, just_before_the_lock, told

pytestmark = pytest.mark.django_db
UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def admin(cast: Cast) -> Actor:
    return Actor.of(cast.alice)


@pytest.fixture
def dora(cast: Cast) -> User:
    return make_trader("dora", cast.alpha)


def test_company_admin_disables_people_and_each_is_noted(cast: Cast, admin: Actor, dora: User) -> None:
    assert access.set_users_active(admin, [cast.bob, dora], is_active=False) == 2
    assert set(User.objects.filter(is_active=False)) == {cast.bob, dora}
    assert (version_of(cast.alpha), version_of(cast.beta), len(told())) == (2, 1, 1)
    entries = {entry.object_name: entry for entry in AuditEntry.objects.all()}
    assert set(entries) == {"bob", "dora"}
    assert (entries["bob"].action, entries["bob"].actor) == ("disable", "alice")
    assert (entries["bob"].before, entries["bob"].after) == ({"is_active": "True"}, {"is_active": "False"})


def test_user_who_is_disabled_already_is_not_disabled_again(cast: Cast, admin: Actor, dora: User) -> None:
    access.set_users_active(admin, [cast.bob], is_active=False)
    before = everything()
    assert access.set_users_active(admin, [cast.bob], is_active=False) == 0
    assert everything() == before
    assert access.set_users_active(admin, [cast.bob, dora], is_active=True) == 1
    assert [entry.action for entry in AuditEntry.objects.all()] == ["enable", "disable"]


def test_people_are_disabled_all_or_none(cast: Cast, admin: Actor) -> None:
    before = everything()
    for users in ([cast.bob, cast.charlie], [cast.bob, User(username="x")]):
        with pytest.raises(NotVisible, match="there is no such user"):
            access.set_users_active(admin, users, is_active=False)
    for actor in (Actor.of(cast.charlie), Actor.of(AnonymousUser())):
        with pytest.raises(NotVisible, match="there is no such user"):
            access.set_users_active(actor, [cast.bob], is_active=False)
    assert everything() == before


def test_nobody_disables_their_own_account_among_others(cast: Cast, admin: Actor, operator: User) -> None:
    before = everything()
    for actor, user in ((admin, cast.alice), (Actor.of(operator), operator), (Actor.of(cast.bob), cast.bob)):
        with pytest.raises(PermissionDenied, match="own account"):
            access.set_users_active(actor, [user], is_active=False)
    assert everything() == before


def test_operator_disables_people_of_two_companies(cast: Cast, operator: User) -> None:
    assert access.set_users_active(Actor.of(operator), [cast.bob, cast.charlie], is_active=False) == 2
    assert (version_of(cast.alpha), version_of(cast.beta)) == (2, 2)


@pytest.mark.parametrize("status", list(Company.Status))
def test_operator_sets_the_status_with_a_reason(cast: Cast, operator: User, status: Company.Status) -> None:
    access.set_company_status(Actor.of(operator), cast.alpha, status, "r" * 201)
    row = Company.objects.get(pk=cast.alpha.pk)
    assert (row.status, row.status_reason) == (status, "r" * 200) == (cast.alpha.status, cast.alpha.status_reason)
    [event] = told()
    assert (event.status, event.access_version, event.company_id) == (status.value, 2, str(cast.alpha.pk))
    [entry] = AuditEntry.objects.all()
    assert entry.action == {"suspended": "suspend", "active": "resume", "unpaid": "mark_unpaid"}[status]
    assert entry.after["status_reason"] == "r" * 200
    assert version_of(cast.beta) == 1


@pytest.mark.parametrize(
    "act",
    [
        lambda actor, company: access.set_company_status(actor, company, Company.Status.ACTIVE),
        lambda actor, company: access.set_tier(actor, company, tier("ENTERPRISE")),
        lambda actor, company: access.set_paid_until(actor, company, None),
    ],
    ids=["status", "tier", "paid_until"],
)
def test_nobody_but_an_operator_and_the_product_touches_what_is_paid(
    cast: Cast, act: Callable[[Actor, Company], None]
) -> None:
    before = everything()
    for user in (cast.alice, cast.bob, cast.charlie, AnonymousUser()):
        with pytest.raises(PermissionDenied):
            act(Actor.of(user), cast.alpha)
    with pytest.raises(NotVisible):
        act(SYSTEM, Company(name="Gamma", slug="gamma", tier=tier("FREE")))
    assert everything() == before


def test_other_plan_holds_at_once(cast: Cast) -> None:
    access.set_tier(SYSTEM, cast.alpha, tier("ENTERPRISE"))
    [event] = told()
    assert (event.tier, event.access_version) == ("ENTERPRISE", 2)
    [entry] = AuditEntry.objects.all()
    assert (entry.action, entry.actor) == ("set_tier", "tests")
    assert (entry.before, entry.after) == ({"tier": str(tier("PRO").pk)}, {"tier": str(tier("ENTERPRISE").pk)})
    assert (version_of(cast.alpha), version_of(cast.beta)) == (2, 1)


@pytest.mark.parametrize(("status", "after"), [("active", "active"), ("unpaid", "active"), ("suspended", "suspended")])
def test_payment_lets_an_unpaid_company_in_and_a_suspended_one_not(cast: Cast, status: str, after: str) -> None:
    Company.objects.filter(pk=cast.alpha.pk).update(status=status, status_reason="why")
    paid_until = timezone.now() + datetime.timedelta(days=30)
    access.set_paid_until(SYSTEM, cast.alpha, paid_until)
    row = Company.objects.get(pk=cast.alpha.pk)
    assert (row.paid_until, row.status) == (paid_until, after)
    assert row.status_reason == ("" if status == "unpaid" else "why")
    [event] = told()
    assert (event.status, event.paid_until) == (after, int(paid_until.timestamp() * 1000))
    access.set_paid_until(SYSTEM, cast.alpha, None)
    assert Company.objects.get(pk=cast.alpha.pk).paid_until is None


@pytest.mark.parametrize(
    "act",
    [
        lambda company: access.set_tier(SYSTEM, company, tier("FREE")),
        lambda company: access.set_paid_until(SYSTEM, company, None),
    ],
    ids=["tier", "paid_until"],
)
def test_suspension_that_came_while_waiting_for_the_lock_is_not_taken_back(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, act: Callable[[Company], None]
) -> None:
    suspended = {"status": Company.Status.SUSPENDED, "status_reason": "fraud"}
    just_before_the_lock(monkeypatch, lambda: Company.objects.filter(pk=cast.alpha.pk).update(**suspended))
    act(cast.alpha)
    row = Company.objects.get(pk=cast.alpha.pk)
    assert (row.status, row.status_reason) == (Company.Status.SUSPENDED, "fraud")


def test_user_has_exactly_the_chosen_pairs(cast: Cast, admin: Actor) -> None:
    ActivePair.objects.create(user=cast.alice, symbol="USDJPY")
    assert access.set_pairs(admin, cast.bob, ["EURUSD", "GBPUSD", "EURUSD"]) == (2, 0)
    assert access.set_pairs(admin, cast.bob, {"GBPUSD", "XAUUSD"}) == (1, 1)
    assert {pair.symbol for pair in cast.bob.active_pairs.all()} == {"GBPUSD", "XAUUSD"}
    assert {pair.symbol for pair in cast.alice.active_pairs.all()} == {"USDJPY"}
    # One version and one event for each choice, however many pairs.
    assert (version_of(cast.alpha), version_of(cast.beta), len(told())) == (3, 1, 2)
    assert [entry.action for entry in AuditEntry.objects.order_by("id")] == ["add", "add", "delete", "add"]


def test_same_choice_again_changes_nothing(cast: Cast, admin: Actor) -> None:
    access.set_pairs(admin, cast.bob, ["EURUSD"])
    before = everything()
    assert access.set_pairs(admin, cast.bob, ["EURUSD"]) == (0, 0)
    assert everything() == before


def test_full_user_swaps_one_pair_for_another_and_takes_no_more(cast: Cast, admin: Actor) -> None:
    CompanyOverride.objects.create(company=cast.alpha, pair_limit=2)
    access.set_pairs(admin, cast.bob, ["EURUSD", "GBPUSD"])
    assert access.set_pairs(admin, cast.bob, ["EURUSD", "XAUUSD"]) == (1, 1)
    before = everything()
    with pytest.raises(ValidationError, match="2 of 2 active pairs"):
        access.set_pairs(admin, cast.bob, ["EURUSD", "GBPUSD", "USDJPY"])
    assert everything() == before


def test_nobody_else_chooses_a_users_pairs(cast: Cast, admin: Actor) -> None:
    access.set_pairs(admin, cast.bob, ["EURUSD"])
    before = everything()
    for symbols in ([], ["EURUSD", "GBPUSD"]):
        with pytest.raises(PermissionDenied):
            access.set_pairs(Actor.of(cast.bob), cast.bob, symbols)
        with pytest.raises(NotVisible, match="there is no such user"):
            access.set_pairs(Actor.of(cast.charlie), cast.bob, symbols)
    with pytest.raises(NotVisible, match="there is no such user"):
        access.set_pairs(admin, cast.charlie, ["EURUSD"])
    assert everything() == before


def test_token_is_revoked_once(
    cast: Cast, admin: Actor, settings: Settings, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    expires_at = float(int(time.time()) + 60)
    with django_capture_on_commit_callbacks() as callbacks:
        access.revoke_token(admin, "a" * 32, cast.bob, expires_at)
    row = RevokedToken.objects.get()
    assert announced(callbacks) == [{"kind": "token", "jti": "a" * 32, "expires_at": expires_at}]
    assert (row.user, row.expires_at.timestamp()) == (cast.bob, expires_at)
    [entry] = AuditEntry.objects.all()
    assert (entry.action, entry.company_id) == ("revoke", cast.alpha.pk)
    before = everything()
    with django_capture_on_commit_callbacks() as callbacks:
        access.revoke_token(admin, "a" * 32, cast.bob, expires_at + 60)
    assert (everything(), announced(callbacks)) == (before, [])


def test_token_and_keys_and_connections_of_another_company_are_left_alone(cast: Cast, admin: Actor) -> None:
    _, key = access.create_api_key(SYSTEM, cast.charlie, "VPS")
    before = everything()
    texts = set()
    for user_id in (cast.charlie.pk, UNKNOWN):
        with pytest.raises(NotVisible) as caught:
            access.revoke_token(admin, "a" * 32, User(pk=user_id), time.time() + 60)
        texts.add(str(caught.value))
        with pytest.raises(NotVisible) as caught:
            access.kick(admin, str(user_id))
        texts.add(str(caught.value))
    assert access.revoke_api_keys(admin, [key, ApiKey(pk=10_000_000)]) == 0
    assert texts == {"there is no such user"}
    assert everything() == before


def test_trader_acts_on_own_connections_and_keys_and_no_colleagues(cast: Cast) -> None:
    trader = Actor.of(cast.bob)
    _, mine = access.create_api_key(trader, cast.bob, "VPS")
    _, colleagues = access.create_api_key(SYSTEM, cast.alice, "VPS")
    access.kick(trader, str(cast.bob.pk), "session-1")
    access.revoke_token(trader, "a" * 32, cast.bob, time.time() + 60)
    assert access.revoke_api_keys(trader, [mine, colleagues]) == 1
    before = everything()
    with pytest.raises(NotVisible):
        access.kick(trader, str(cast.alice.pk))
    with pytest.raises(NotVisible):
        access.revoke_token(trader, "b" * 32, cast.alice, time.time() + 60)
    with pytest.raises(NotVisible):
        access.create_api_key(trader, cast.alice, "VPS")
    assert everything() == before


def test_kick_reaches_the_gateways_by_both_ways(
    cast: Cast, admin: Actor, settings: Settings, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    with django_capture_on_commit_callbacks() as callbacks:
        access.kick(admin, cast.bob.pk.hex.upper(), "s" * 40)
        access.kick(admin, str(cast.bob.pk))
    user_id, kicks = str(cast.bob.pk), list(Kick.objects.order_by("pk"))
    assert [kick.session_id for kick in kicks] == ["s" * 32, ""]
    assert announced(callbacks) == [
        {
            "kind": "kick",
            "id": kick.pk,
            "user_id": user_id,
            "session_id": kick.session_id,
            "at": kick.created_at.timestamp(),
        }
        for kick in kicks
    ]
    # Who missed the broadcast finds the same in the database.
    assert [row[:3] for row in access.kicks(0)] == [(kick.pk, kick.session_id, user_id) for kick in kicks]
    [entry] = AuditEntry.objects.filter(after__session_id="s" * 32)
    assert (entry.action, entry.company_id, entry.after["user"]) == ("kick", cast.alpha.pk, "bob")
    # The client may come back: nothing has changed for it.
    assert version_of(cast.alpha) == 1 and told() == []


def test_kick_is_listed_for_a_minute_and_kept_for_an_hour(cast: Cast, admin: Actor) -> None:
    access.kick(admin, str(cast.bob.pk))
    row = Kick.objects.get()
    for age, is_listed in ((59, True), (61, False)):
        Kick.objects.update(created_at=timezone.now() - datetime.timedelta(seconds=age))
        assert bool(access.kicks(0)) is is_listed
    Kick.objects.update(created_at=timezone.now() - datetime.timedelta(minutes=59))
    access.kick(admin, str(cast.bob.pk))
    assert Kick.objects.count() == 2
    Kick.objects.filter(pk=row.pk).update(created_at=timezone.now() - datetime.timedelta(minutes=61))
    access.kick(admin, str(cast.bob.pk))
    assert Kick.objects.count() == 2 and not Kick.objects.filter(pk=row.pk).exists()


def test_kick_that_was_committed_late_is_still_listed(cast: Cast, admin: Actor) -> None:
    access.kick(admin, str(cast.bob.pk))
    low = Kick.objects.get().pk
    assert [row[0] for row in access.kicks(low + 199)] == [low]
    assert access.kicks(low + 200) == []
