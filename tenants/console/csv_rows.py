"""An uploaded list of MT5 accounts, read and judged row by row. Room: tenants."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from tenants.access import Actor, username_prefix, visible
from tenants.bodies import CSV_SIZE_LIMIT
from tenants.console.exports import unguarded
from tenants.models import Company, MT5Account, User, limits_of
from tenants.models.places import full_text

ROW_LIMIT = 2_000
_NEEDED = ("login", "broker_server", "owner")
_BATCH = 400
_YES = frozenset({"yes", "y", "true", "1", "on", "active", "ya", "aktif"})
_NO = frozenset({"no", "n", "false", "0", "off", "inactive", "tidak", "nonaktif"})

Verdict = Literal["add", "change", "skip", "error"]


class Row(NamedTuple):
    """A line of the file as text. ``number``: the line where it begins, the header being line 1."""

    number: int
    login: str
    broker_server: str
    owner: str
    active: str


@dataclass(frozen=True, slots=True)
class Judged:
    """``text``: what will happen, or what is wrong. ``account``: ready for the door when it is to add or change."""

    row: Row
    verdict: Verdict
    text: str
    account: MT5Account | None = None


def read_rows(content: bytes) -> list[Row]:
    """Raises ValidationError, in words for whoever made the file."""
    if len(content) > CSV_SIZE_LIMIT:
        raise ValidationError(_("The file is larger than 1 MB: split it."))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValidationError(_("The file is not UTF-8: save it as “CSV UTF-8” and upload it again.")) from None
    if "\x00" in text:
        raise ValidationError(_("This is no CSV file: save the list as “CSV UTF-8” and upload it again."))
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ",")
    try:
        return _rows(reader)
    except csv.Error:
        text = _("Line %(number)d cannot be read: look for a quotation mark that is not closed.")
        raise ValidationError(text % {"number": reader.line_num}) from None


def _rows(reader: Any) -> list[Row]:
    header = [cell.strip().lower() for cell in next(reader, [])]
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        text = _("The first line must name the columns login, broker_server and owner; missing: %(names)s.")
        raise ValidationError(text % {"names": ", ".join(missing)})
    places = {name: header.index(name) for name in (*_NEEDED, "active") if name in header}
    rows: list[Row] = []
    begins = reader.line_num + 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            if len(rows) == ROW_LIMIT:
                raise ValidationError(_("The file has more than %(limit)d rows: split it.") % {"limit": ROW_LIMIT})
            values = {name: unguarded(cells[at].strip()) for name, at in places.items() if at < len(cells)}
            rows.append(Row(begins, *(values.get(name, "") for name in (*_NEEDED, "active"))))
        begins = reader.line_num + 1
    if not rows:
        raise ValidationError(_("The file has no rows below its header."))
    return rows


def judge(actor: Actor, rows: Sequence[Row]) -> list[Judged]:
    """What would become of each row if they were taken in this order; writes nothing."""
    return _Judge(actor, rows).verdicts()


class _Judge:
    def __init__(self, actor: Actor, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._prefix = ""
        if actor.company_id is not None:
            self._prefix = username_prefix(visible(actor, Company).get(pk=actor.company_id))
        names = {name for row in rows for name in (row.owner, self._prefix + row.owner)}
        people: list[User] = []
        for batch in _batches(sorted(names)):
            found = visible(actor, User).filter(username__in=batch, company__isnull=False)
            people += found.select_related("company__tier", "company__override")
        self._people = {user.username: user for user in people}
        companies = {user.company for user in people if user.company is not None}
        self._limits = {company.pk: limits_of(company) for company in companies}
        held = visible(actor, MT5Account).filter(company__in=[company.pk for company in companies])
        self._held: dict[Any, list[MT5Account]] = {}
        self._of_company: Counter[Any] = Counter()
        self._of_owner: Counter[Any] = Counter()
        for row in held:
            self._held.setdefault(_place(row.company_id, row.login, row.broker_server), []).append(row)
            self._of_company[row.company_id] += 1
            self._of_owner[row.owner_id] += 1
        self._seen: dict[Any, int] = {}

    def verdicts(self) -> list[Judged]:
        judged = []
        for row in self._rows:
            try:
                judged.append(self._judge(row))
            except ValidationError as error:
                judged.append(Judged(row, "error", " ".join(error.messages)))
        return judged

    def _judge(self, row: Row) -> Judged:
        owner = self._people.get(row.owner) or self._people.get(self._prefix + row.owner)
        if owner is None or owner.company is None:
            # Of another company or of none: the same.
            raise ValidationError(_("there is no user “%(name)s”: add the user first") % {"name": row.owner[:150]})
        is_active = _active(row.active)
        key = _place(owner.company.pk, row.login, row.broker_server)
        if key in self._seen:
            raise ValidationError(_("the same account as in line %(number)d") % {"number": self._seen[key]})
        same = self._held.get(key, [])
        # Where two spellings are there from before, a row means its own.
        held = next((one for one in same if one.broker_server == row.broker_server), same[0] if same else None)
        account = held or MT5Account(company=owner.company, login=row.login, broker_server=row.broker_server)
        before = (account.owner_id, account.is_active)
        account.owner = owner
        account.is_active = account.is_active if is_active is None else is_active
        _check_fields(account)
        if held is not None and before == (account.owner_id, account.is_active):
            self._seen[key] = row.number
            return Judged(row, "skip", _("is registered like this already"))
        self._take_place(account, owner.company.pk, None if held is None else before[0])
        self._seen[key] = row.number
        if held is None:
            return Judged(row, "add", _("will be added"), account)
        return Judged(row, "change", self._change_text(before, account), account)

    def _take_place(self, account: MT5Account, company_id: Any, owner_before: Any) -> None:
        """Counts the row; raises ValidationError when the plan has no place left for it."""
        limits = self._limits[company_id]
        if owner_before is None and self._of_company[company_id] >= limits.company_account_limit:
            taken, limit = self._of_company[company_id], limits.company_account_limit
            raise ValidationError(full_text("company_account_limit", taken, limit))
        if owner_before != account.owner_id and self._of_owner[account.owner_id] >= limits.user_account_limit:
            taken, limit = self._of_owner[account.owner_id], limits.user_account_limit
            raise ValidationError(full_text("user_account_limit", taken, limit))
        if owner_before is None:
            self._of_company[company_id] += 1
        if owner_before != account.owner_id:
            self._of_owner[account.owner_id] += 1
            self._of_owner[owner_before] -= 1

    def _change_text(self, before: tuple[Any, bool], account: MT5Account) -> str:
        texts = []
        if before[0] != account.owner_id:
            texts.append(_("gets the owner %(name)s") % {"name": account.owner.username})
        if before[1] != account.is_active:
            texts.append(_("will be active") if account.is_active else _("will be disabled"))
        return ", ".join(texts)


def _place(company_id: Any, login: str, broker_server: str) -> tuple[Any, str, str]:
    """What two rows of one account have in common: broker servers that differ in case only are one."""
    return company_id, login, broker_server.casefold()


def _check_fields(account: MT5Account) -> None:
    """Raises ValidationError that says of which column it speaks."""
    try:
        account.clean_fields(exclude={"company", "owner"})
    except ValidationError as error:
        texts = [f"{name}: {text}" for name, found in error.message_dict.items() for text in found]
        raise ValidationError(texts) from None


def _active(text: str) -> bool | None:
    """None where the column is empty: as it is; new accounts are active."""
    word = text.lower()
    if not word:
        return None
    if word in _YES or word in _NO:
        return word in _YES
    raise ValidationError(_("active must be yes or no, not “%(text)s”") % {"text": text[:20]})


def _batches(names: list[str]) -> list[list[str]]:
    return [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
