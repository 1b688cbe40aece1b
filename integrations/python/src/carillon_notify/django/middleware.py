"""Which browser view a change comes from, so that it can drop its own echo."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

HEADER = "X-Carillon-Origin"
"""Sent by scripts: `rt.id` of the page."""
FIELD = "carillon_origin"
"""Sent by forms, in a hidden field."""
LONGEST = 100

_origin: ContextVar[str | None] = ContextVar("carillon_origin", default=None)


def current_origin() -> str | None:
    """The origin of the request that is being served."""
    return _origin.get()


class CarillonMiddleware:
    """Remembers the origin of each request, for `emit`. Works in WSGI and ASGI."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._serve_async(request)
        token = _origin.set(origin_of(request))
        try:
            response: HttpResponseBase = self.get_response(request)
            return response
        finally:
            _origin.reset(token)

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        token = _origin.set(origin_of(request))
        try:
            response: HttpResponseBase = await self.get_response(request)
            return response
        finally:
            _origin.reset(token)


def origin_of(request: HttpRequest) -> str | None:
    """What a request says of its origin. The body is looked at only where it is a form that Django reads anyway."""
    found = request.headers.get(HEADER)
    form = request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data")
    if not found and request.method == "POST" and form:
        found = request.POST.get(FIELD)
    return found[:LONGEST] if found else None
