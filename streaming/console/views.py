"""Pages of the admin: live connections, ending them, following one user's messages. Room: streaming.

A user of another company, one that does not exist and an id that is none answer alike.
"""

import re
import time
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from streaming.cluster.live import LiveConnection
from streaming.console import table
from streaming.console.following import TIME_LIMIT, Look, followers
from streaming.console.listing import Wanted, age_of, connections_for
from streaming.live import LiveUnavailable
from tenants import access
from tenants.access import Actor, NotVisible

# Asked for by the page's own script: the table alone.
PART_HEADER = "X-Live-Part"
_SESSION_ID = re.compile(r"[0-9a-f]{16}")
_REASON_LIMIT = 200


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """The list; with Redis away a page that says so."""
    actor = _actor(request)
    companies = access.companies(actor) if actor.sees_all else []
    wanted = table.wanted(request.GET, companies)
    names = {one.company_id: one.name for one in companies}
    found: list[LiveConnection] | None
    try:
        found = connections_for(actor, wanted, names)
    except LiveUnavailable:
        found = None
    context = {
        **_context(request, _("Live connections")),
        "is_unavailable": found is None,
        "has_redis": bool(settings.REDIS_URL),
        "count": len(found or ()),
        "columns": table.columns(request.GET, wanted, with_company=actor.sees_all),
        "rows": [table.Row.of(one, names) for one in (found or ())[: table.SHOWN_LIMIT]],
        "shown_limit": table.SHOWN_LIMIT,
        "age": round(max(0.0, age_of(found or (), time.time()))),
        "sees_all": actor.sees_all,
        "companies": companies,
        "filters": table.filters(request.GET),
        "is_filtered": any(request.GET.get(name) for name in table.FILTERS),
        "states": table.states(),
        "back": table.kept(request.GET),
    }
    is_part = PART_HEADER in request.headers
    return TemplateResponse(request, "live/rows.html" if is_part else "live/list.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def kick(request: HttpRequest, user_id: str, session_id: str = "") -> HttpResponse:
    """Asks first, then ends one connection of a user, or all of them."""
    actor = _actor(request)
    try:
        person = access.person(actor, user_id)
    except NotVisible:
        return _not_found(request)
    if session_id and not _SESSION_ID.fullmatch(session_id):
        return _not_found(request)
    asked = request.POST if request.method == "POST" else request.GET
    back = f"{reverse('live:list')}?{table.kept(QueryDict(asked.get('back', '')))}".rstrip("?")
    if request.method == "POST":
        access.kick(actor, str(person.pk), session_id, reason=request.POST.get("reason", "").strip()[:_REASON_LIMIT])
        text = _("The connection of %(user)s ends within seconds.") if session_id else _(
            "All connections of %(user)s end within seconds."
        )  # fmt: skip
        messages.success(request, text % {"user": person.get_username()})
        return HttpResponseRedirect(back)
    found: list[LiveConnection] | None
    try:
        found = connections_for(actor, Wanted(user_id=str(person.pk)))
    except LiveUnavailable:
        found = None
    concerned = [one for one in found or () if session_id in ("", one.session_id)]
    title = _("End a connection") if session_id else _("End all connections of a user")
    context = {
        **_context(request, title),
        "person": person,
        "session_id": session_id,
        "rows": [table.Row.of(one, {}) for one in concerned],
        "is_unavailable": found is None,
        "back": back,
        "back_query": table.kept(QueryDict(asked.get("back", ""))),
        "reason_limit": _REASON_LIMIT,
    }
    return TemplateResponse(request, "live/kick.html", context)


@require_safe
def follow(request: HttpRequest, user_id: str) -> HttpResponse:
    """The page on which one user's messages appear."""
    actor = _actor(request)
    try:
        person = access.person(actor, user_id)
    except NotVisible:
        return _not_found(request)
    context = {
        **_context(request, _("Messages of %(user)s") % {"user": person.get_username()}),
        "person": person,
        "may_see_prices": actor.sees_all,
        "has_redis": bool(settings.REDIS_URL),
        "minutes": round(TIME_LIMIT / 60),
    }
    return TemplateResponse(request, "live/follow.html", context)


@require_safe
def follow_events(request: HttpRequest, user_id: str) -> HttpResponseBase:
    """The stream behind that page; prices for an operator who asks for them, whatever else is asked."""
    actor = _actor(request)
    try:
        person = access.person(actor, user_id)
    except NotVisible:
        return _not_found(request)
    with_prices = actor.sees_all and request.GET.get("prices") == "1"
    company_id = str(actor.company_id or "")
    look = Look(request.session.session_key or "", actor.address, company_id, str(person.pk), with_prices)
    answer = StreamingHttpResponse(followers.events(look), content_type="text/event-stream")
    # nginx would gather the events.
    answer["X-Accel-Buffering"] = "no"
    # The stream goes on for minutes and asks the database by itself.
    close_old_connections()
    return answer


def _actor(request: HttpRequest) -> Actor:
    return Actor.of(request.user, request.META.get("REMOTE_ADDR", ""))


def _context(request: HttpRequest, title: str) -> dict[str, Any]:
    request.current_app = admin.site.name
    return {**admin.site.each_context(request), "title": title}


def _not_found(request: HttpRequest) -> TemplateResponse:
    return TemplateResponse(request, "live/not_found.html", _context(request, _("Not found")), status=404)
