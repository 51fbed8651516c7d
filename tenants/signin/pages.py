"""How the pages of signing in are shown: in the admin's look, to people who are not in it yet. Room: tenants."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers


def show(request: HttpRequest, template: str, context: Mapping[str, Any], *, status: int = 200) -> HttpResponse:
    """A page that no cache keeps."""
    answer = render(request, template, {**base_context(request), **context}, status=status)
    add_never_cache_headers(answer)
    return answer


def too_many(request: HttpRequest, title: str, wait: float) -> HttpResponse:
    """429 for whoever asks too often; ``wait`` in seconds."""
    context = {"title": title, "minutes": max(1, round(wait / 60))}
    answer = show(request, "signin/too_many.html", context, status=429)
    answer["Retry-After"] = str(max(1, round(wait)))
    return answer


def base_context(request: HttpRequest) -> dict[str, Any]:
    """What admin/base_site.html wants, without asking which rows the person may see."""
    return {
        "site_title": admin.site.site_title,
        "site_header": admin.site.site_header,
        "has_permission": admin.site.has_permission(request),
        "is_nav_sidebar_enabled": False,
        "is_popup": False,
    }
