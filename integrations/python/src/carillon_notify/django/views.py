"""The token view: turns the CMS' own sign-in into a token for the nodes."""

from collections.abc import Callable, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.module_loading import import_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from ..tokens import mint
from . import conf
from .nodes import sign_in_id

Grants = Callable[[HttpRequest], Mapping[str, Any] | None]


@never_cache
@require_GET
def token(request: HttpRequest, grants: Grants | None = None) -> HttpResponse:
    """A token for whoever is signed in, as plain text. `grants` takes the place of `CARILLON["GRANTS"]`.

    401 where nobody is: no redirect to a sign-in page, which would arrive as a token of 100 KB. 403 where
    `CARILLON["GRANTS"]` gives None. 503 where Carillon is switched off or has no secret.
    """
    if not conf.get("ENABLED") or not conf.get("SECRET"):
        return JsonResponse({"error": "Carillon is switched off, or CARILLON['SECRET'] is not set"}, status=503)
    user = request.user
    if not user.is_authenticated:
        return JsonResponse({"error": "not signed in"}, status=401)
    if grants is None and conf.get("GRANTS"):
        grants = _grants()
    claims = grants(request) if grants else {}
    if claims is None:
        return JsonResponse({"error": "no rights here"}, status=403)
    text = mint(conf.get("SECRET"), user.pk, ttl=conf.get("TOKEN_SECONDS"), jti=sign_in_id(request), **claims)
    return HttpResponse(text, content_type="text/plain; charset=us-ascii")


def _grants() -> Grants:
    found = conf.get("GRANTS")
    grants: Grants = import_string(found) if isinstance(found, str) else found
    return grants
