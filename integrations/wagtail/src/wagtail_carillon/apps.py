"""Django's entry: connects the receivers, unless Carillon is switched off."""

from django.apps import AppConfig


class WagtailCarillonConfig(AppConfig):
    """The app. Its tables begin with `wagtail_carillon_`."""

    name = "wagtail_carillon"
    verbose_name = "Carillon for Wagtail"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from carillon_notify.django import conf, drainer
        from django.core import checks

        from . import receivers, sweep
        from .checks import check_nodes

        checks.register(check_nodes)
        if conf.get("ENABLED"):
            receivers.connect()
            drainer.sweeps.append(sweep.sweep)
