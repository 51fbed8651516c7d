"""What an orchestrator, a load balancer and Prometheus ask a process. Room: streaming."""

import secrets

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from streaming.factory import process_runtime
from tenants.problems import problem


@require_safe
async def livez(_request: HttpRequest) -> HttpResponse:
    """The event loop turns; nothing else is asked."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
async def readyz(_request: HttpRequest) -> HttpResponse:
    """200 when new connections would be served at once, else 503 with what is missing. ``ill`` names what does not
    work for some users or messages although the process is of use to others."""
    runtime = process_runtime()
    problems = runtime.problems()
    answer = {"status": "unavailable" if problems else "ready", "problems": problems, "ill": runtime.ill_parts()}
    return JsonResponse(answer, status=503 if problems else 200, headers={"Cache-Control": "no-store"})


@require_safe
async def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus text; with GATEWAY_METRICS_TOKEN set only for who sends it as a bearer token."""
    wanted = settings.GATEWAY_METRICS_TOKEN
    sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if wanted and not secrets.compare_digest(sent.encode(), wanted.encode()):
        return problem(401, "token_invalid", "send the metrics token in the header Authorization: Bearer <token>")
    return HttpResponse(process_runtime().exposition(), content_type="text/plain; version=0.0.4; charset=utf-8")
