"""Three companies, everybody who may knock, and a request that is watched from all sides."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.contrib.sessions.backends.base import SessionBase
from django.db import connection, transaction
from django.db.models import Model
from django.test import Client

from tenants.models import SubscriptionTier, User
from tests.matrix.marks import COMPANIES, NOBODY, Marks, found_in
from tests.matrix.rows import SHARED, Made, make_rows, make_shared, marked_models, unknown_key

Send = Callable[[Client], Any]
# Of two equal requests these differ: times of day and what is made by chance.
_CHANCE = re.compile(
    r'name="csrfmiddlewaretoken" value="\w+"|csrftoken=\w+|sessionid=\w+|expires=[^;\n]+|\d\d:\d\d:\d\d'
    r'|name="preview" value="[^"]+"'
)


@dataclass(frozen=True)
class Person:
    """``role``: operator, company_admin, trader or anonymous; ``marks``: of the own company, None for none."""

    name: str
    role: str
    marks: Marks | None

    @property
    def others(self) -> tuple[Marks, ...]:
        """The companies that are none of this person's business."""
        if self.role == "operator":
            return ()
        return tuple(marks for marks in COMPANIES if marks is not self.marks)


PEOPLE = [
    Person("operator", "operator", None),
    *(Person(f"{marks.word}-{role}", role, marks) for marks in COMPANIES for role in ("company_admin", "trader")),
    Person("anonymous", "anonymous", None),
]
COMPANY_ADMINS = [person for person in PEOPLE if person.role == "company_admin"]


@dataclass(frozen=True)
class Answer:
    """``said``: everything that came of a request, as one text: head, cookies, body, messages, where it led, logs."""

    status: int
    location: str
    body: str
    said: str

    def without(self, *ids: str) -> str:
        """What was said, with chance and these ids taken out: equal for two requests that are told the same."""
        text = self.said
        for key in sorted(ids, key=len, reverse=True):
            text = re.sub(re.escape(key), "SENT", text, flags=re.IGNORECASE)
        return _CHANCE.sub("", text)


class World:
    """The rows of the three companies, and a session for each person."""

    def __init__(self) -> None:
        make_shared()
        self.made: dict[str, Made] = {marks.word: make_rows(marks) for marks in COMPANIES}
        self.operator = User.objects.create_superuser("operator", password="a long enough password")
        self._sessions = {person.name: self._sign_in(person) for person in PEOPLE}
        self._as_made = {model: _rows_of(model) for model in [*marked_models(), *SHARED]}
        self._owners = {
            (model, row.pk): word for word, made in self.made.items() for model, rows in made.items() for row in rows
        }

    def user_of(self, person: Person) -> User | None:
        if person.role == "operator":
            return self.operator
        if person.marks is None:
            return None
        return next(user for user in self.made[person.marks.word][User] if user.role == person.role)  # type: ignore[attr-defined,return-value]

    def keys(self, marks: Marks, model: type[Model]) -> list[str]:
        """The ids of the company's rows; of a shared table, of those that there are; of nobody's, one that never was."""
        if model in SHARED:
            found = [str(key) for key in model._default_manager.order_by("pk").values_list("pk", flat=True)]
            return [unknown_key(model, NOBODY)] if marks is NOBODY else found
        if marks is NOBODY:
            return [unknown_key(model, NOBODY)]
        return [str(row.pk) for row in self.made[marks.word][model]]

    def client(self, person: Person) -> Client:
        client = Client()
        if key := self._sessions[person.name]:
            client.cookies["sessionid"] = key
        return client

    def ask(self, person: Person, send: Send, *, sent: tuple[str, ...] = ()) -> Answer:
        """Sends one request and takes back what it did.

        Fails when anything that came of it carries a mark of somebody else's company, unless it was ``sent`` along, and
        when a row of somebody else's company has changed or a new one points at one.
        """
        with rolled_back(), _overheard() as lines, _writes() as wrote:
            response = send(self.client(person))
            answer = _answer_of(response, lines)
            assert answer.status < 500, answer.body[-2000:]
            heard = answer.said
            for word in sorted(sent, key=len, reverse=True):
                heard = re.sub(re.escape(word), "SENT", heard, flags=re.IGNORECASE)
            leaked = found_in(heard, person.others)
            assert not leaked, f"{person.name} reads of somebody else's company: {sorted(set(leaked))[:10]}"
            if wrote:
                self.check_rows(person)
        return answer

    def check_rows(self, person: Person) -> None:
        """Fails when something of another company's has changed, by what is in the tables now."""
        if person.role == "operator":
            return
        others = {marks.word for marks in person.others}
        for model, before in self._as_made.items():
            now = _rows_of(model)
            for key, row in before.items():
                if model in SHARED or self._owners.get((model, key)) in others:
                    assert now.get(key) == row, f"{person.name} has changed {model._meta.label} {key}"
            for key in now.keys() - before.keys():
                assert not found_in(now[key], person.others), f"{person.name} has made {model._meta.label}: {now[key]}"
                assert model is not SubscriptionTier, f"{person.name} has made a tier"

    def _sign_in(self, person: Person) -> str:
        user = self.user_of(person)
        if user is None:
            return ""
        client = Client()
        client.force_login(user)
        session: SessionBase = client.session
        return session.session_key or ""


@contextmanager
def rolled_back() -> Iterator[None]:
    """What happens inside has never happened."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def _rows_of(model: type[Model]) -> dict[Any, str]:
    """Each row as text, by its id; bytes are shown as the characters they may be."""
    found = {}
    for row in model._default_manager.values():
        shown = {name: _shown(value) for name, value in row.items()}
        found[row[model._meta.pk.attname]] = repr(shown)
    return found


def _shown(value: Any) -> Any:
    return bytes(value).decode("latin-1") if isinstance(value, bytes | memoryview) else value


def _answer_of(response: Any, lines: list[str]) -> Answer:
    parts, body = [], ""
    for step in [*(one for one in getattr(response, "redirect_chain", [])), response]:
        if isinstance(step, tuple):
            parts.append(f"redirect {step}")
            continue
        parts.append(f"status {step.status_code}")
        parts += sorted(f"{name}: {value}" for name, value in step.items() if name != "Content-Length")
        parts += sorted(morsel.OutputString() for morsel in step.cookies.values())
        if getattr(step, "streaming", False):
            # What the stream says is asked of a real gateway.
            body = "" if step.is_async else b"".join(step.streaming_content).decode("utf-8", "replace")
        else:
            body = step.content.decode("utf-8", "replace")
        parts.append(body)
        request = getattr(step, "wsgi_request", None)
        if request is not None and hasattr(request, "_messages"):
            parts += [str(message) for message in get_messages(request)]
    response.close()
    location = response.get("Location", "")
    return Answer(response.status_code, location, body, "\n".join([*parts, *lines]))


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Every line that is logged meanwhile, from INFO up, with its fields."""
    lines: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            event = record.msg if isinstance(record.msg, dict) else record.getMessage()
            lines.append(f"log {record.name} {json.dumps(event, default=str)} {record.exc_info or ''}")

    ear, root = Ear(level=logging.INFO), logging.getLogger()
    root.addHandler(ear)
    try:
        yield lines
    finally:
        root.removeHandler(ear)


@contextmanager
def _writes() -> Iterator[list[str]]:
    """The statements that change rows, but for those of sessions."""
    wrote: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE") and "django_session" not in sql:
            wrote.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield wrote


def expect_same(first: Answer, second: Answer, ids: tuple[str, ...], twins: tuple[str, ...], what: str) -> None:
    """Fails when two answers differ in more than the ids that were sent: one of another company's, one of nobody's."""
    one, two = first.without(*ids), second.without(*twins)
    if one == two:
        return
    lines = [(a, b) for a, b in zip(one.splitlines(), two.splitlines(), strict=False) if a != b]
    shown = lines[:3] or [(one[-300:], two[-300:])]
    pytest.fail(f"{what}: another company's row is not answered as one that never was: {shown}")
