"""The pages of the import of MT5 accounts: upload, preview, done. Room: tenants."""

import hashlib
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.core import signing
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants import access
from tenants.access import Actor, NotVisible, visible
from tenants.bodies import CSV_SIZE_LIMIT, is_trimmed
from tenants.changes import lock
from tenants.console.csv_rows import Judged, Row, judge, read_rows
from tenants.console.exports import csv_answer
from tenants.console.pages import page_context
from tenants.console.places import accounts_place, own_company
from tenants.console.scoping import actor_of
from tenants.models import User

_SALT = "tenants.console.csv_import"
# Seconds between the preview and its button.
_PREVIEW_TTL = 3_600


class UploadForm(forms.Form):
    file = forms.FileField(
        label=gettext_lazy("CSV file"),
        help_text=gettext_lazy("At most 1 MB and 2,000 rows, UTF-8, with commas or semicolons."),
        widget=forms.FileInput(attrs={"accept": ".csv,text/csv"}),
    )

    def clean_file(self) -> list[Row]:
        file = self.cleaned_data["file"]
        if file.size > CSV_SIZE_LIMIT:
            raise ValidationError(_too_large())
        return read_rows(file.read())


def _too_large() -> str:
    return _("The file is larger than 1 MB: split it.")


def import_page(model_admin: ModelAdmin[Any], request: HttpRequest) -> HttpResponse:
    if request.method == "POST" and "preview" in request.POST:
        return _take(model_admin, request)
    form = UploadForm(request.POST, request.FILES) if request.method == "POST" else UploadForm()
    if is_trimmed(request):
        # Django leaves out a file whose end is not there.
        form.errors["file"] = form.error_class([_too_large()])
    elif request.method == "POST" and form.is_valid():
        return _preview(model_admin, request, form.cleaned_data["file"])
    company = own_company(request)
    context = {
        **page_context(model_admin, request, _("Import MT5 accounts")),
        "form": form,
        "places": [] if company is None else [accounts_place(company)],
        "sample_url": reverse("admin:tenants_mt5account_sample"),
    }
    return TemplateResponse(request, "admin/tenants/import.html", context)


def sample_file(actor: Actor) -> HttpResponse:
    """Two rows with owners that are really there, so that it can be tried at once."""
    people = visible(actor, User).filter(company__isnull=False, is_active=True).order_by("username")
    names = list(people.values_list("username", flat=True)[:2]) or ["company.name"]
    rows = [("1000001", "Broker-Live01", names[0], "yes"), ("1000002", "Broker-Live01", names[-1], "no")]
    return csv_answer("mt5-accounts-sample.csv", ("login", "broker_server", "owner", "active"), rows)


def _preview(model_admin: ModelAdmin[Any], request: HttpRequest, rows: list[Row], note: str = "") -> HttpResponse:
    actor = actor_of(request)
    judged = judge(actor, rows)
    # Signed for this person alone: what is imported is what was looked at.
    signed = signing.dumps([str(actor.user_id), _digest(judged), rows], salt=_SALT, compress=True)
    counts = dict.fromkeys(("add", "change", "skip", "error"), 0)
    for one in judged:
        counts[one.verdict] += 1
    context = {
        **page_context(model_admin, request, _("Import MT5 accounts: preview")),
        "judged": judged,
        "counts": counts,
        "good": counts["add"] + counts["change"],
        "signed": signed,
        "note": note,
        "import_url": reverse("admin:tenants_mt5account_import"),
    }
    return TemplateResponse(request, "admin/tenants/import_preview.html", context)


def _take(model_admin: ModelAdmin[Any], request: HttpRequest) -> HttpResponse:
    """Imports what was previewed; shows the preview anew when something has changed since."""
    actor = actor_of(request)
    try:
        user_id, digest, cells = signing.loads(request.POST["preview"], salt=_SALT, max_age=_PREVIEW_TTL)
    except signing.BadSignature:
        user_id, digest, cells = "", "", []
    if user_id != str(actor.user_id):
        messages.error(request, _("This preview is too old: upload the file again."))
        return HttpResponseRedirect(request.path)
    rows = [Row(*row) for row in cells]
    changed_since = _("Something has changed since the preview, and nothing was imported: look again.")
    try:
        with transaction.atomic():
            lock(_companies(actor, rows))
            judged = judge(actor, rows)
            if _digest(judged) != digest:
                return _preview(model_admin, request, rows, changed_since)
            for one in judged:
                if one.account is not None:
                    access.save_row(actor, one.account, action="import")
    except (ValidationError, NotVisible):
        return _preview(model_admin, request, rows, changed_since)
    count = sum(one.account is not None for one in judged)
    messages.success(request, _("Imported: %(count)d MT5 accounts added or changed.") % {"count": count})
    return HttpResponseRedirect(reverse("admin:tenants_mt5account_changelist"))


def _companies(actor: Actor, rows: list[Row]) -> set[Any]:
    if actor.company_id is not None:
        return {actor.company_id}
    companies = {one.account.company_id for one in judge(actor, rows) if one.account is not None}
    return set(companies)


def _digest(judged: list[Judged]) -> str:
    """Of everything that the preview says."""
    lines = (f"{one.row.number} {one.verdict} {one.account and one.account.owner_id}" for one in judged)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
