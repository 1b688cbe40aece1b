"""Which browser view a change comes from, so that it can drop its own echo.

The request is remembered, and looked at when an event is written: a view that changes nothing, or reads its body in a way of its
own, is never interfered with.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest, HttpResponseBase
from django.http.multipartparser import MultiPartParserError

HEADER = "X-Carillon-Origin"
"""Sent by scripts: `rt.id` of the page."""
FIELD = "carillon_origin"
"""Sent by forms, in a hidden field."""
LONGEST = 100

_request: ContextVar[HttpRequest | None] = ContextVar("carillon_request", default=None)


def current_origin() -> str | None:
    """The origin of the request that is being served."""
    request = _request.get()
    return origin_of(request) if request else None


class CarillonMiddleware:
    """Remembers the request that is being served, for `emit`. Works in WSGI and ASGI."""

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
        token = _request.set(request)
        try:
            response: HttpResponseBase = self.get_response(request)
            return response
        finally:
            _request.reset(token)

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        token = _request.set(request)
        try:
            response: HttpResponseBase = await self.get_response(request)
            return response
        finally:
            _request.reset(token)


def origin_of(request: HttpRequest) -> str | None:
    """What a request says of its origin, in a header or in a field of its form. A form that cannot be read says nothing."""
    found = request.headers.get(HEADER)
    form = request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data")
    if not found and request.method == "POST" and form:
        try:
            found = request.POST.get(FIELD)
        except (MultiPartParserError, SuspiciousOperation, BadRequest, OSError):
            return None
    return found[:LONGEST] if found else None
