"""What `manage.py check` finds wrong beside the settings of carillon-notify."""

from collections.abc import Sequence
from typing import Any

from carillon_notify.django import conf
from django.core.checks import CheckMessage, Warning


def check_nodes(app_configs: Sequence[Any] | None = None, **_: Any) -> list[CheckMessage]:
    """Without addresses of nodes, nothing is revoked at once."""
    if not conf.get("ENABLED") or conf.get("NODES"):
        return []
    return [
        Warning(
            "CARILLON['NODES'] is empty: who signs out or loses rights follows changes until their token ends.",
            hint="Name the internal addresses of nodes, and their internal.publish_token as NODE_TOKEN.",
            id="wagtail_carillon.W001",
        )
    ]
