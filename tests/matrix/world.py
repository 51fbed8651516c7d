"""Three companies, everybody who may knock, and a request that is watched from all sides."""

import html
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pytest
from django.contrib.messages import get_messages
from django.contrib.sessions.backends.base import SessionBase
from django.db import connection, transaction
from django.db.models import Model
from django.test import Client

from tenants.models import User
from tenants.signin.invitations import invitation_limiters
from tenants.signin.passwords import reset_limiter
from tenants.signin.views import sign_in_limiter
from tenants.views import _limiter as token_limiter
from tests.matrix.marks import COMPANIES, NOBODY, Marks, found_in
from tests.matrix.rows import SHARED, Made, make_rows, make_shared, marked_models, unknown_key

Send = Callable[[Client], Any]
_MARKED = "|".join(one.hex for one in (*COMPANIES, NOBODY))
# Of two equal requests these differ: times of day and what is made by chance, such as the ids of new rows.
_CHANCE = re.compile(
    r'name="csrfmiddlewaretoken" value="\w+"|csrftoken=\w+|sessionid=\w+|expires=[^;\n]+|messages=[^;\n]+'
    r"|(?<=/)\d{1,6}(?=/change/)"
    r'|\d\d:\d\d:\d\d(?:\.\d+)?|name="preview" value="[^"]+"|gwk_[a-z0-9]{8}_[\w-]{43}|gwk_[a-z0-9]{8}…'
    rf"|\b(?!{_MARKED})[0-9a-f]{{8}}-[0-9a-f]{{4}}-4[0-9a-f]{{3}}-[0-9a-f-]{{17}}"
)
# Shorter than that nothing that is sent can be told from the rest of a page.
_SENT_LIMIT = 4


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

    @property
    def targets(self) -> tuple[Marks, ...]:
        """Whose rows are tried: who is let in tries all others', who is not gets the same answer everywhere."""
        return self.others if self.role == "company_admin" else self.others[:1]


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
        return _CHANCE.sub("", _without(self.said, ids))


class World:
    """The rows of the three companies, and a session for each person."""

    def __init__(self) -> None:
        make_shared()
        self.made: dict[str, Made] = {marks.word: make_rows(marks) for marks in COMPANIES}
        _count_on_from_far_away()
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

    def keys(self, marks: Marks, model: type[Model], name: str = "") -> list[str]:
        """The ids of the company's rows, or what they have in the field ``name``; of NOBODY one that never was.

        Rows of a shared table are everybody's.
        """
        if marks is NOBODY:
            return [unknown_key(model, NOBODY, name)]
        if model in SHARED:
            return [str(key) for key in model._default_manager.order_by("pk").values_list("pk", flat=True)]
        return [str(getattr(row, name or "pk")) for row in self.made[marks.word][model]]

    def client(self, person: Person) -> Client:
        client = Client()
        if key := self._sessions[person.name]:
            client.cookies["sessionid"] = key
        return client

    def ask(
        self, person: Person, send: Send, *, sent: tuple[str, ...] = (), may_change: tuple[Marks, ...] | None = None
    ) -> Answer:
        """Sends one request and takes back what it did.

        Fails when anything that came of it carries a mark of somebody else's company, unless it was ``sent`` along, and
        when a row of a company that the person ``may_change`` nothing of has changed, or a new one points at one.
        """
        # Nobody is held back for what another request has asked.
        for limiters in (reset_limiter, invitation_limiters, sign_in_limiter, token_limiter):
            limiters.cache_clear()
        kept = person.others if may_change is None else tuple(one for one in COMPANIES if one not in may_change)
        with rolled_back(), _overheard() as lines, _writes() as wrote:
            response = send(self.client(person))
            answer = _answer_of(response, lines)
            assert answer.status < 500, answer.body[-2000:]
            leaked = found_in(_without(answer.said, sent), person.others)
            assert not leaked, f"{person.name} reads of somebody else's company: {sorted(set(leaked))[:10]}"
            if wrote and kept:
                self.check_rows(person, kept)
        return answer

    def check_rows(self, person: Person, kept: tuple[Marks, ...]) -> None:
        """Fails when something of these companies' or of everybody's has changed, by what is in the tables now."""
        others = {marks.word for marks in kept}
        for model, before in self._as_made.items():
            now = _rows_of(model)
            for key, row in before.items():
                if model in SHARED or self._owners.get((model, key)) in others:
                    assert now.get(key) == row, f"{person.name} has changed {model._meta.label} {key}"
            for key in now.keys() - before.keys():
                assert not found_in(now[key], kept), f"{person.name} has made {model._meta.label}: {now[key]}"
                assert model not in SHARED, f"{person.name} has made {model._meta.label}: {now[key]}"

    def _sign_in(self, person: Person) -> str:
        user = self.user_of(person)
        if user is None:
            return ""
        client = Client()
        client.force_login(user)
        session: SessionBase = client.session
        return session.session_key or ""


def _count_on_from_far_away() -> None:
    """SQLite gives new rows the ids after the highest: they would look like the last company's."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("UPDATE sqlite_sequence SET seq = 900000000")


@contextmanager
def rolled_back() -> Iterator[None]:
    """What happens inside has never happened."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def _plain(text: str) -> str:
    """As a person reads it: an address inside an address inside HTML is encoded three times."""
    return unquote(unquote(html.unescape(text)))


def _without(text: str, sent: tuple[str, ...]) -> str:
    for word in sorted({_plain(one) for one in sent}, key=len, reverse=True):
        if len(word) >= _SENT_LIMIT:
            text = re.sub(re.escape(word), "SENT", text, flags=re.IGNORECASE)
    return text


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
    location = response.get("Location", "")
    return Answer(response.status_code, location, body, _plain("\n".join([*parts, *lines])))


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Every line that is logged meanwhile, from INFO up, with its fields."""
    lines: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            event = record.msg if isinstance(record.msg, dict) else record.getMessage()
            trace = self._forms.formatException(record.exc_info) if record.exc_info else ""
            lines.append(f"log {record.name} {json.dumps(event, default=str)} {trace}")

        _forms = logging.Formatter()

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


def get(path: str, query: Mapping[str, str] | None = None, *, follow: bool = False) -> Send:
    return lambda client: client.get(path, query, follow=follow)


def post(path: str, body: Mapping[str, Any] | None = None, *, follow: bool = False) -> Send:
    return lambda client: client.post(path, body or {}, follow=follow)


def expect_same(answers: Sequence[Answer], ids: tuple[str, ...], twins: tuple[str, ...], what: str) -> None:
    """Fails when two answers differ in more than the ids that were sent: one of another company's, one of nobody's."""
    first, second = answers
    one, two = first.without(*ids), second.without(*twins)
    if one == two:
        return
    lines = [(a, b) for a, b in zip(one.splitlines(), two.splitlines(), strict=False) if a != b]
    shown = lines[:3] or [(one[-300:], two[-300:])]
    pytest.fail(f"{what}: another company's row is not answered as one that never was: {shown}")
