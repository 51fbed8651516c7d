"""The one kind of admin page: every path sees what the actor sees and writes through the door. Room: tenants.

A row of another company answers on every path as one that does not exist.
"""

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.admin.options import IncorrectLookupParameters, get_content_type_for_model
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import PAGE_VAR
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Model, Q, QuerySet
from django.forms import BaseModelFormSet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_protect

from tenants import access
from tenants.access import Actor, NotVisible, visible
from tenants.changes import COMPANY_WRITABLE, lock
from tenants.console.pages import Tool, not_found
from tenants.console.places import Place
from tenants.console.scoping import ScopedForm, actor_of, choices_of, deleted_with, is_field_of, writable_exclusions
from tenants.models import Company, User
from tenants.scope import company_ids_of

_REFUSAL = "_tenants_refusal"


class Scoped(admin.options.BaseModelAdmin[Any]):
    """What lists, forms and inlines have in common. ``operator_may``, ``company_may``: view, add, change, delete."""

    form: type[ScopedForm] = ScopedForm
    view_on_site = False
    operator_may: frozenset[str] = frozenset({"view", "add", "change", "delete"})
    company_may: frozenset[str] = frozenset()

    def may(self, request: HttpRequest, act: str, obj: Model | None = None) -> bool:
        actor = actor_of(request)
        if actor.sees_all:
            return act in self.operator_may
        if not actor.is_company_admin or act not in self.company_may:
            return False
        return obj is None or obj._state.adding or visible(actor, type(obj)).filter(pk=obj.pk).exists()

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "view")

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.may(request, "view", obj)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.may(request, "add", obj)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.may(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.may(request, "delete", obj)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = visible(actor_of(request), self.model)
        ordering = self.get_ordering(request)
        return rows.order_by(*ordering) if ordering else rows

    def get_exclude(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """A company admin's form has no field that is not a company admin's to write, whatever else is declared."""
        if actor_of(request).sees_all:
            return super().get_exclude(request, obj)
        return writable_exclusions(self.model, COMPANY_WRITABLE.get(self.model, frozenset()))

    def choices(self, request: HttpRequest, db_field: Any) -> QuerySet[Any]:
        """What a field may point at."""
        return choices_of(actor_of(request), db_field.remote_field.model)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = self.choices(request, db_field)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = self.choices(request, db_field)
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        return to_field == self.opts.pk.name


class ScopedAdmin(Scoped, admin.ModelAdmin[Any]):
    # Addresses of lists that our own pages link to, beyond those of the filters.
    linked_lookups: tuple[str, ...] = ()
    # What an empty list says to do next.
    empty_text: Any = ""
    change_list_template = "admin/tenants/change_list.html"
    change_form_template = "admin/tenants/change_form.html"

    # --- What a page adds ---------------------------------------------------------------------------------------------

    def tools(self, request: HttpRequest) -> list[Tool]:
        """More buttons above the list."""
        return []

    def object_tools(self, request: HttpRequest, obj: Any) -> list[Tool]:
        """More buttons above a row."""
        return []

    def places(self, request: HttpRequest, obj: Any = None) -> list[Place]:
        """What the plan has room for, where it binds this list or, with ``obj`` or on the add page, this form."""
        return []

    def not_found(self, request: HttpRequest) -> TemplateResponse:
        return not_found(self, request)

    # --- Lists --------------------------------------------------------------------------------------------------------

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return self._without_company(request, super().get_list_display(request))

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return self._without_company(request, super().get_list_filter(request))

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return self._without_company(request, super().get_search_fields(request))

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        if "\x00" in search_term:
            # PostgreSQL takes none; the list's own form refuses it, the search of a field does not.
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)

    def _without_company(self, request: HttpRequest, names: Sequence[Any]) -> list[Any]:
        if actor_of(request).sees_all:
            return list(names)
        return [name for name in names if "company" not in str(name[0] if isinstance(name, tuple) else name)]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Only what a filter, the dates or a link of ours asks: nobody probes a field by the rows that come."""
        if request is None or "\x00" in str(value):
            return False
        names: list[Any] = [self.date_hierarchy] if self.date_hierarchy else []
        for item in self.get_list_filter(request):
            name = item[0] if isinstance(item, tuple) else item
            names.append(getattr(name, "parameter_name", name))
        return lookup in self.linked_lookups or is_field_of(lookup, names)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        try:
            return super().get_changelist_instance(request)
        except OverflowError:
            # A year or an id beyond all numbers of dates and databases: as any other value that is none.
            raise IncorrectLookupParameters from None

    @method_decorator(csrf_protect)
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if request.method == "POST":
            self._drop_unreadable_ids(request)
        places = self.places(request)
        context = {"places": places, "is_full": any(place.is_full for place in places)}
        context |= {"tools": self.tools(request), "empty_text": self.empty_text}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def _drop_unreadable_ids(self, request: HttpRequest) -> None:
        """An id that is none chooses nothing, as one of a row that does not exist."""
        sent = request.POST.copy()
        readable = []
        for value in sent.getlist(admin.helpers.ACTION_CHECKBOX_NAME):
            try:
                key = self.opts.pk.to_python(value)
                self.opts.pk.run_validators(key)
                readable.append(str(key))
            except (ValidationError, ValueError):
                continue
        sent.setlist(admin.helpers.ACTION_CHECKBOX_NAME, readable)
        request.POST = sent  # type: ignore[assignment]

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:  # type: ignore[override]  # Django 5.2 has no action_location
        """An action happens to all of the chosen rows or to none."""
        try:
            with transaction.atomic():
                return super().response_action(request, queryset)
        except (ValidationError, NotVisible, PermissionDenied) as error:
            texts = error.messages if isinstance(error, ValidationError) else [_("These rows are not yours to change.")]
            self.message_user(request, _("Nothing was changed: %(why)s") % {"why": " ".join(texts)}, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    # --- Forms --------------------------------------------------------------------------------------------------------

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.actor, form.refusal = actor_of(request), getattr(request, _REFUSAL, None)
        return form

    def locked_companies(self, request: HttpRequest, obj: Model | None) -> set[Any]:
        """Whose places the form counts: the company before, and those that it is about to point at."""
        actor = actor_of(request)
        if actor.company_id is not None:
            return {actor.company_id}
        concerned = company_ids_of(obj) if obj is not None else set()
        if company := _named(actor, Company, request.POST.get("company")):
            concerned.add(company.pk)
        for name in ("owner", "user"):
            if person := _named(actor, User, request.POST.get(name)):
                concerned |= company_ids_of(person)
        return concerned

    @method_decorator(csrf_protect)
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        show: Callable[[], Any] = lambda: super(ScopedAdmin, self).changeform_view(  # noqa: E731
            request, object_id, form_url, self._form_context(request, object_id, extra_context)
        )
        if request.method != "POST":
            return show()
        try:
            return self._locked(request, object_id, show)
        except NotVisible:
            return self.not_found(request)
        except ValidationError as error:
            refusal = ValidationError(error.messages)
        except IntegrityError:
            refusal = ValidationError(_("Somebody else saved the same at the same moment: look again, then save."))
        # The form once more, with what the door has said: nothing typed is lost, nothing is saved.
        setattr(request, _REFUSAL, refusal)
        return self._locked(request, object_id, show)

    def _locked(self, request: HttpRequest, object_id: str | None, show: Callable[[], Any]) -> Any:
        """Validates and saves while nobody else takes a place: what the form has found stays true until it is saved."""
        with transaction.atomic():
            obj = None if object_id is None else self.get_object(request, unquote(object_id))
            lock(self.locked_companies(request, obj))
            return show()

    def _form_context(
        self, request: HttpRequest, object_id: str | None, extra: dict[str, Any] | None
    ) -> dict[str, Any]:
        obj = None if object_id is None else self.get_object(request, unquote(object_id))
        context: dict[str, Any] = {"places": [], "object_tools": []}
        if obj is not None:
            context = {"places": self.places(request, obj), "object_tools": self.object_tools(request, obj)}
        elif object_id is None:
            places = self.places(request)
            context["places"] = places
            if any(place.is_full for place in places):
                context |= {"show_save": False, "show_save_and_continue": False, "show_save_and_add_another": False}
        return {**context, **(extra or {})}

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> TemplateResponse:
        return self.not_found(request)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        access.save_row(actor_of(request), obj)

    def save_formset(self, request: HttpRequest, form: Any, formset: BaseModelFormSet[Any, Any], change: bool) -> None:
        changed = formset.save(commit=False)
        if formset.deleted_objects:
            access.delete_rows(actor_of(request), formset.deleted_objects)
        for row in changed:
            access.save_row(actor_of(request), row)
        formset.save_m2m()

    # --- Deleting and history -----------------------------------------------------------------------------------------

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        access.delete_rows(actor_of(request), [obj])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        access.delete_rows(actor_of(request), queryset)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        texts, counts, protected = deleted_with(actor_of(request), objs)
        return texts, counts, set(), protected

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        # Before whether one may: what does not exist cannot be forbidden either.
        if self.get_object(request, unquote(object_id)) is None:
            return self.not_found(request)
        return super().delete_view(request, object_id, extra_context)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            return self.not_found(request)
        actor = actor_of(request)
        entries = LogEntry.objects.filter(object_id=str(obj.pk), content_type=get_content_type_for_model(self.model))
        if not actor.sees_all:
            # A person who came from another company brings no names from there.
            entries = entries.filter(Q(user__company_id=actor.company_id) | Q(user__role=User.Role.OPERATOR))
        paginator = self.get_paginator(request, entries.select_related().order_by("action_time"), 100)
        page = paginator.get_page(request.GET.get(PAGE_VAR, 1))
        context = {
            "action_list": page,
            "page_range": paginator.get_elided_page_range(page.number),
            "pagination_required": paginator.count > 100,
        }
        return super().history_view(request, object_id, {**context, **(extra_context or {})})


def _named(actor: Actor, model: type[Any], key: str | None) -> Any:
    try:
        return access.find(actor, model, pk=key) if key else None
    except NotVisible:
        return None
