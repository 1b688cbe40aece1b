"""Carillon for Django: an outbox that is written in the same transaction as the change.

    INSTALLED_APPS += ["carillon_notify.django"]
    MIDDLEWARE += ["carillon_notify.django.middleware.CarillonMiddleware"]
    CARILLON = {"REDIS": "redis://redis:6379", "SECRET": env("CARILLON_SECRET"), "SOURCE": "cms"}

    from carillon_notify.django import emit
    emit("comments:42", "comment.created", {"comment": 7}, actor=request.user.pk)

`emit` costs the request one INSERT. A drainer publishes the rows in their order after the commit and removes them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .outbox import emit as emit
    from .outbox import emit_many as emit_many

__all__ = ["emit", "emit_many"]


def __getattr__(name: str) -> Any:
    # Models can be imported only when Django's apps are ready, this package sooner.
    if name in __all__:
        from . import outbox

        return getattr(outbox, name)
    raise AttributeError(name)
