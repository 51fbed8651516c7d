"""Every address that the URL conf answers, and every page of every model in the admin."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.contrib.admin import ModelAdmin
from django.db.models import Model
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from tests.matrix.expectations import ADMIN, PAGES, Admin, Page

# The ends of the names of a model's own five pages.
_OWN_PAGES = ("changelist", "add", "change", "delete", "history")
_LETTER = {"changelist": "v", "add": "a", "change": "v", "delete": "d", "history": "v"}


@dataclass(frozen=True)
class Address:
    """``name``: with its namespaces, "" for none; ``route``: the path as the URL conf has it; ``arguments``: names."""

    name: str
    route: str
    arguments: tuple[str, ...]

    @property
    def key(self) -> str:
        """As PAGES names it."""
        return self.name or self.route

    def path(self, arguments: Mapping[str, Any]) -> str:
        if self.name:
            return reverse(self.name, kwargs={name: arguments[name] for name in self.arguments})
        path = self.route.replace("(?P<url>.*)$", "<url>")
        for name in self.arguments:
            for shown in (f"<path:{name}>", f"<str:{name}>", f"<int:{name}>", f"<{name}>"):
                path = path.replace(shown, str(arguments[name]))
        return f"/{path}"


def walk(patterns: Iterable[Any] | None = None, route: str = "", namespace: str = "") -> Iterator[Address]:
    found = get_resolver().url_patterns if patterns is None else patterns
    for one in found:
        here = route + str(one.pattern)
        if isinstance(one, URLResolver):
            inner = f"{namespace}{one.namespace}:" if one.namespace else namespace
            yield from walk(one.url_patterns, here, inner)
        elif isinstance(one, URLPattern):
            # The signing-out of the admin stands there twice; a request finds the first.
            arguments = tuple(_arguments(one))
            yield Address(namespace + one.name if one.name else "", here, arguments)


def addresses() -> list[Address]:
    """Each once."""
    return list({(one.key): one for one in walk()}.values())


def _arguments(pattern: URLPattern) -> list[str]:
    regex = pattern.pattern.regex
    return list(regex.groupindex)


def registered() -> dict[type[Model], ModelAdmin[Any]]:
    return dict(admin.site._registry)


def model_page(address: Address) -> tuple[type[Model], str] | None:
    """The model and which of its five pages this is; None for any other address."""
    for model in registered():
        start = f"admin:{model._meta.app_label}_{model._meta.model_name}_"
        if address.name.startswith(start) and address.name.removeprefix(start) in _OWN_PAGES:
            return model, address.name.removeprefix(start)
        if address.route == f"admin/{model._meta.app_label}/{model._meta.model_name}/<path:object_id>/":
            return model, ""
    return None


def expected(address: Address) -> Page | None:
    """The row of this address; for a page of a model what follows from the model's row. None: there is no row."""
    found = model_page(address)
    if found is None:
        return PAGES.get(address.key)
    model, page = found
    row = ADMIN.get(model)
    return None if row is None else _page_of(model, page, row)


def _page_of(model: type[Model], page: str, row: Admin) -> Page:
    ids = {"object_id": model} if page not in ("changelist", "add") else {}
    if not page:
        # An address of old, which leads on to the form without a look at the row.
        return Page(302, 302, ids=ids, foreign=302)
    letter = _LETTER[page]
    operator, company = (200 if letter in letters else 403 for letters in (row.operator, row.company_admin))
    if page == "changelist" and company == 200:
        company = row.company_list
    shows_own = page == "changelist" and company == 200
    return Page(operator, company, ids=ids, shows_own=shows_own)
