"""Pages that several parts of the admin share. Room: tenants."""

from dataclasses import dataclass
from typing import Any

from django.contrib.admin import ModelAdmin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _


@dataclass(frozen=True, slots=True)
class Tool:
    """A button above a list or a form."""

    url: str
    label: str


def not_found(model_admin: ModelAdmin[Any], request: HttpRequest) -> TemplateResponse:
    """404, word for word the same for a row of another company and for one that never was."""
    context = page_context(model_admin, request, _("Not found"))
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "admin/tenants/not_found.html", context, status=404)


def confirm(
    model_admin: ModelAdmin[Any],
    request: HttpRequest,
    rows: QuerySet[Any],
    *,
    action: str,
    title: str,
    text: str,
    button: str,
    form: Form | None = None,
) -> TemplateResponse:
    """Asks once more before an action; the answer comes as the same action with ``post`` and the form's fields."""
    context = {
        **page_context(model_admin, request, title),
        "text": text,
        "button": button,
        "form": form,
        "rows": rows,
        "action": action,
        "checkbox_name": ACTION_CHECKBOX_NAME,
    }
    return TemplateResponse(request, "admin/tenants/confirm.html", context)


def is_confirmed(request: HttpRequest) -> bool:
    return request.POST.get("post") == "yes"


def page_context(model_admin: ModelAdmin[Any], request: HttpRequest, title: str) -> dict[str, Any]:
    return {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "has_view_permission": model_admin.has_view_permission(request),
    }
