"""Addresses of the demo, all below /cms/."""

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from django.views.static import serve
from wagtail import urls as wagtail_urls
from wagtail.admin import urls as admin_urls
from wagtail.documents import urls as document_urls


def health(request: HttpRequest) -> JsonResponse:
    """For the balancer: this instance answers. It asks no database, which all instances share."""
    return JsonResponse({"instance": settings.INSTANCE})


urlpatterns = [
    path("", RedirectView.as_view(url="/cms/admin/")),
    path("cms/health/", health),
    path("cms/admin/", include(admin_urls)),
    path("cms/documents/", include(document_urls)),
    re_path(r"^cms/media/(?P<path>.*)$", serve, {"document_root": settings.MEDIA_ROOT}),
    path("cms/", include(wagtail_urls)),
]
