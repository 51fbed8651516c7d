"""What every page of the admin asks before it shows or takes a row. Room: tenants."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.filters import RelatedFieldListFilter
from django.contrib.admin.utils import NestedObjects
from django.core.exceptions import ValidationError
from django.db import router
from django.db.models import Field, Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from tenants.access import Actor, visible
from tenants.models import MT5Account, User
from tenants.scope import is_tenant_model

# Rows of one kind that a page of what goes with a deletion names.
_NAMED_LIMIT = 50
# A filter with more choices than this is no help.
_FILTER_CHOICE_LIMIT = 200


def actor_of(request: HttpRequest) -> Actor:
    return Actor.of(request.user, request.META.get("REMOTE_ADDR", ""))


def choices_of(actor: Actor, model: type[Model]) -> QuerySet[Any]:
    """The rows that a form of this actor may point at."""
    if is_tenant_model(model):
        rows = visible(actor, model)
        return rows.order_by("username") if model is User else rows
    rows = model._default_manager.all()
    return rows if actor.sees_all else rows.none()


class ScopedForm(ModelForm[Any]):
    """A form that knows who fills it in; a company admin's new rows belong to the admin's company from the start."""

    # Set on the class that ScopedAdmin makes for each request.
    actor: Actor
    # What the door said to this very form a moment ago, see ScopedAdmin.changeform_view.
    refusal: ValidationError | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        row = self.instance
        if row._state.adding and isinstance(row, User | MT5Account) and self.actor.is_company_admin:
            row.company_id = self.actor.company_id

    def full_clean(self) -> None:
        super().full_clean()
        if self.refusal is not None and self.is_bound and not self.errors:
            self.add_error(None, self.refusal)

    def _get_validation_exclusions(self) -> set[str]:
        # The company counts for what must be unique in it, although it is no field of the form.
        exclusions: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return exclusions - {"company"} if getattr(self.instance, "company_id", None) else exclusions


class ScopedRelatedFilter(RelatedFieldListFilter):
    """A filter by what a row points at: names nothing that the actor does not see."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        rows = choices_of(actor_of(request), field.remote_field.model)[: _FILTER_CHOICE_LIMIT + 1]
        choices = [(str(row.pk), str(row)) for row in rows]
        return choices if len(choices) <= _FILTER_CHOICE_LIMIT else []


def deleted_with(actor: Actor, rows: Iterable[Model]) -> tuple[list[Any], dict[str, int], list[str]]:
    """What goes when ``rows`` go: a nested list of texts, how many of each kind, and what forbids it.

    Named and counted are rows that have a page, and of tenant rows only those that the actor sees.
    """
    chosen = list(rows)
    if not chosen:
        return [], {}, []
    collector = NestedObjects(using=router.db_for_write(type(chosen[0])), origin=chosen)
    collector.collect(chosen)
    texts: list[Any] = [_text(row) for row in chosen]
    counts: dict[str, int] = {str(chosen[0]._meta.verbose_name_plural): len(chosen)}
    kept = {row.pk for row in chosen}
    found_by_model: dict[type[Model], set[Any]] = collector.model_objs  # type: ignore[assignment]
    for model, found in found_by_model.items():
        others = [row for row in found if not (isinstance(row, type(chosen[0])) and row.pk in kept)]
        others = _only_visible(actor, model, others)
        if others:
            name = str(model._meta.verbose_name_plural)
            counts[name] = counts.get(name, 0) + len(others)
            texts.append(_named(others))
    return texts, counts, forbidding(actor, collector.protected)


def forbidding(actor: Actor, rows: Iterable[Model]) -> list[str]:
    """What has to stay, and keeps the rest: an operator reads what, others that there is something."""
    by_model: defaultdict[type[Model], list[Model]] = defaultdict(list)
    for row in rows:
        by_model[type(row)].append(row)
    if actor.sees_all:
        return [text for found in by_model.values() for text in _named(found)]
    texts = [text for model, found in by_model.items() for text in _named(_only_visible(actor, model, found))]
    return texts or ([_("records that have to be kept")] if by_model else [])


def _only_visible(actor: Actor, model: type[Model], rows: Sequence[Any]) -> list[Any]:
    if not admin.site.is_registered(model) or not (actor.sees_all or is_tenant_model(model)):
        return []
    if actor.sees_all:
        return list(rows)
    own = set(visible(actor, model).values_list("pk", flat=True))
    return [row for row in rows if row.pk in own]


def _named(rows: list[Any]) -> list[str]:
    texts = sorted(_text(row) for row in rows[:_NAMED_LIMIT])
    more = len(rows) - _NAMED_LIMIT
    if more > 0:
        texts.append(ngettext("and %(count)d more", "and %(count)d more", more) % {"count": more})
    return texts


def _text(row: Model) -> str:
    return f"{capfirst(str(row._meta.verbose_name))}: {row}"


def is_field_of(path: str, names: Iterable[str]) -> bool:
    """Whether a parameter of a list's address is one of the lookups that these filters make."""
    for name in names:
        if path == name or (path.startswith(f"{name}__") and path.removeprefix(f"{name}__") in _LOOKUPS):
            return True
    return False


_LOOKUPS = frozenset({"exact", "in", "isnull", "id__exact", "gte", "lt", "year", "month", "day"})


def writable_exclusions(model: type[Model], writable: Iterable[str]) -> list[str]:
    """The fields that a form must leave out."""
    kept = set(writable)
    return [field.name for field in model._meta.get_fields() if isinstance(field, Field) and field.name not in kept]
