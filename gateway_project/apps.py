"""The composition root as a Django app: its system checks and commands. Room: gateway_project."""

from django.apps import AppConfig


class GatewayProjectConfig(AppConfig):
    name = "gateway_project"

    def ready(self) -> None:
        from gateway_project import checks, deploy_checks  # noqa: F401  # register themselves
