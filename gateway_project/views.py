"""What the product says of itself. Room: gateway_project."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from gateway_project.version import VERSION


@require_safe
async def version(_request: HttpRequest) -> HttpResponse:
    return JsonResponse({"name": "trading-gateway", "version": VERSION, "protocol": "gateway.v1"})
