"""What an operator's browser sends to the admin."""

from html.parser import HTMLParser
from typing import Any

from django.db.models import Model
from django.test import Client
from django.urls import reverse


def page(model: type[Model], name: str, *args: Any) -> str:
    """The path of an admin page: changelist, add, change, delete."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def fill_in(client: Client, path: str, **changes: Any) -> Any:
    """Opens the form, changes some fields and sends it; None takes a field away. The answer redirects when saved."""
    sent = {**fields_of(client, path), **changes}
    return client.post(path, {name: value for name, value in sent.items() if value is not None})


def fields_of(client: Client, path: str) -> dict[str, Any]:
    """What the page's form would send unchanged."""
    opened = client.get(path)
    assert opened.status_code == 200
    reader = _FormReader()
    reader.feed(opened.content.decode())
    return reader.fields


def run_action(client: Client, model: type[Model], action: str, *rows: Model, **fields: Any) -> Any:
    """``action`` of the chosen rows in the changelist; what is asked once more is confirmed at once."""
    chosen = [str(row.pk) for row in rows]
    sent = {"action": action, "_selected_action": chosen, "post": "yes", **fields}
    return client.post(page(model, "changelist"), sent)


def delete(client: Client, row: Model) -> Any:
    return client.post(page(type(row), "delete", row.pk), {"post": "yes"})


def errors_of(answer: Any) -> str:
    """All that the form complains of; a saved form has no answer to complain in."""
    assert answer.status_code == 200, answer.get("Location", "")
    return str(answer.context["errors"])


class _FormReader(HTMLParser):
    """The fields of the page's main form as a browser would send them back unchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, Any] = {}
        self._is_inside = False
        self._select = ""
        self._text_of = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        name, value = found.get("name") or "", found.get("value") or ""
        if tag == "form":
            self._is_inside = (found.get("id") or "").endswith("_form")
        elif not self._is_inside:
            return
        elif tag == "input" and name and found.get("type") != "submit":
            if found.get("type") != "checkbox" or "checked" in found:
                self.fields[name] = value or ("on" if found.get("type") == "checkbox" else "")
        elif tag == "select":
            self._select = name
        elif tag == "option" and "selected" in found:
            self.fields[self._select] = value
        elif tag == "textarea" and name:
            self.fields[name] = ""
            self._text_of = name

    def handle_data(self, data: str) -> None:
        if self._text_of:
            self.fields[self._text_of] += data.lstrip("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._is_inside = False
        elif tag == "textarea":
            self._text_of = ""
