"""Django's entry: checks, and the drainer's start with the first request."""

from django.apps import AppConfig
from django.core import checks
from django.core.signals import request_started


class CarillonConfig(AppConfig):
    """The app. Its label is `carillon`, its tables begin with `carillon_`."""

    name = "carillon_notify.django"
    label = "carillon"
    verbose_name = "Carillon"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Registers the checks. The drainer starts with the first request, so never in `migrate` or a shell."""
        from . import drainer
        from .checks import check_settings

        checks.register(check_settings)
        request_started.connect(drainer.on_request, dispatch_uid="carillon.drainer")
