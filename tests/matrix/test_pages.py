"""Every address, by everybody: what it answers, what it gives away, what it changes."""

import pytest

from tenants.models import User
from tests.matrix.addresses import Address, addresses, expected, registered
from tests.matrix.expectations import ADMIN, PAGES, Page
from tests.matrix.marks import COMPANIES, NOBODY, Marks, found_in
from tests.matrix.rows import SHARED
from tests.matrix.world import PEOPLE, Person, World, expect_same, get, post

pytestmark = pytest.mark.django_db
_HERE = "tests/matrix/expectations.py"
_ADDRESSES = addresses()
# Of an own row too: there is nothing to see, or what is asked for is not there.
_SHUT = (403, 404)
_TRIES: tuple[tuple[str, dict[str, str]], ...] = (("get", {}), ("post", {"post": "yes", "_save": "1"}), ("post", {}))
# What a body names when somebody tries whether a page takes it: rows of another company under all the names there are.
_REFERENCES = ("user", "owner", "company", "subscription", "invoice", "method", "price", "_selected_action", "id")


def test_each_address_has_a_row() -> None:
    missing = [one.key for one in _ADDRESSES if expected(one) is None]
    assert not missing, f"add a row to PAGES (for a model's pages: to ADMIN) in {_HERE} for: {missing}"


def test_each_row_has_an_address() -> None:
    known = {one.key for one in _ADDRESSES}
    assert not PAGES.keys() - known, f"take out of PAGES in {_HERE}: {PAGES.keys() - known}"
    assert not ADMIN.keys() - registered().keys(), f"take out of ADMIN in {_HERE}: {ADMIN.keys() - registered().keys()}"


def test_each_argument_of_an_address_is_explained() -> None:
    for one in _ADDRESSES:
        row = expected(one)
        if row is not None:
            assert set(one.arguments) == {*row.ids, *row.fixed}, f"{one.key}: give ids or fixed in {_HERE}"


@pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.name)
@pytest.mark.parametrize("address", [one for one in _ADDRESSES if expected(one)], ids=lambda address: address.key)
def test_page_answers_each_person_with_what_is_theirs(world: World, address: Address, person: Person) -> None:
    row = expected(address)
    # test_each_address_has_a_row says what to do.
    assert row is not None
    own = person.marks or COMPANIES[0]
    for arguments in _rows_of(world, row, own):
        _ask_for_own(world, address, person, row, arguments)
    if row.ids:
        for other in person.targets:
            _ask_for_others(world, address, person, row, other)


def _ask_for_own(world: World, address: Address, person: Person, row: Page, arguments: dict[str, str]) -> None:
    path, wanted = address.path(arguments), row.status(person.role)
    sent = tuple(arguments.values()) if person.marks is None else ()
    answer = world.ask(person, get(path), sent=sent)
    allowed = (wanted,) if wanted != 403 else _SHUT
    assert answer.status in allowed or _is_own_self(world, address, person, arguments), f"GET {path}: {answer.status}"
    if wanted == 302 and row.company_admin != 302 and person.role in ("trader", "anonymous"):
        assert answer.location.startswith("/admin/login/"), answer.location
    if row.shows_own and person.role == "operator" and address.key.endswith("_changelist"):
        for marks in COMPANIES:
            assert found_in(answer.body, (marks,)), f"{path} shows the operator nothing of {marks.word}"
    elif row.shows_own and person.role == "company_admin" and person.marks is not None:
        assert found_in(answer.body, (person.marks,)), f"{path} is empty: the look for leaks would prove nothing"
    _post(world, person, path, sent, person.targets[:1])


def _post(world: World, person: Person, path: str, sent: tuple[str, ...], others: tuple[Marks, ...]) -> None:
    """Sends what no form would; ``ask`` looks that nothing of anybody else's is touched or told."""
    for other in others:
        users = world.keys(other, User)
        body = {"post": "yes", **dict.fromkeys(_REFERENCES, users[0])}
        world.ask(person, post(path, body), sent=(*sent, users[0]))
    if not others:
        world.ask(person, post(path), sent=sent)


def _ask_for_others(world: World, address: Address, person: Person, row: Page, other: Marks) -> None:
    nobodys_row = _rows_of(world, row, NOBODY)[0]
    twin, sent_twin = address.path(nobodys_row), tuple(nobodys_row.values())
    if all(model in SHARED for model in row.ids.values()):
        return
    gets_far = person.role == "company_admin" and row.company_admin not in _SHUT
    for method, body in _TRIES if gets_far else _TRIES[:2]:
        send = get if method == "get" else post
        nobodys = world.ask(person, send(twin, body), sent=sent_twin)
        for arguments in _rows_of(world, row, other):
            path, sent = address.path(arguments), tuple(arguments.values())
            theirs = world.ask(person, send(path, body), sent=sent)
            expect_same((theirs, nobodys), sent, sent_twin, f"{method.upper()} {path}")
            if method == "get":
                wanted = row.foreign if person.role == "company_admin" else row.status(person.role)
                may_not = person.role == "company_admin" and row.company_admin in _SHUT
                assert theirs.status in (_SHUT if may_not else (wanted,)), f"GET {path}: {theirs.status}"


def _rows_of(world: World, row: Page, marks: Marks) -> list[dict[str, str]]:
    """The arguments of an address for each row of this company; one set where it names no row."""
    made = [dict(row.fixed)]
    for name, model in row.ids.items():
        # The admin's own name for an id, whatever fields the row has.
        fields = {one.name for one in model._meta.concrete_fields} - {"id", "object_id"}
        field = name if name in fields else ""
        # Where an address names a company's row, what it names of a shared table is there.
        is_beside = model in SHARED and len(row.ids) > 1
        keys = world.keys(COMPANIES[0] if is_beside else marks, model, field)[: 1 if is_beside else 2]
        made = [{**one, name: key} for one in made for key in keys]
    return made


def _is_own_self(world: World, address: Address, person: Person, arguments: dict[str, str]) -> bool:
    """Nobody deletes themselves, and their own password is changed on another page."""
    user = world.user_of(person)
    is_self = user is not None and str(user.pk) in arguments.values()
    return is_self and address.key in ("admin:tenants_user_delete", "admin:tenants_user_password")
