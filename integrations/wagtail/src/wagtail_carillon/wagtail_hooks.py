"""Wagtail's entry: addresses in the admin, and the script on every admin page."""

from carillon_notify.django import conf
from carillon_notify.django.views import token
from django.http import HttpRequest, HttpResponse
from django.templatetags.static import static
from django.urls import include, path, reverse
from django.utils.html import format_html, json_script
from django.utils.safestring import SafeString
from wagtail import hooks

from . import topics, views
from .grants import grants


def admin_token(request: HttpRequest) -> HttpResponse:
    """The token of a signed-in editor, with what Wagtail's permissions allow them."""
    return token(request, grants=grants)


@hooks.register("register_admin_urls")
def admin_urls() -> list[object]:
    """`…/admin/carillon/…`, behind Wagtail's sign-in."""
    if not conf.get("ENABLED"):
        return []
    patterns = [
        path("token/", admin_token, name="token"),
        path("pages/<int:page_id>/state/", views.state, name="state"),
        path("pages/<int:page_id>/topics/", views.tree, name="tree"),
        path("bell/", views.bell, name="bell"),
    ]
    return [path("carillon/", include((patterns, "wagtail_carillon")))]


@hooks.register("insert_global_admin_js")
def script() -> SafeString | str:
    """The script and its settings. No inline code: it works with a strict content security policy."""
    if not conf.get("ENABLED"):
        return ""
    settings = {
        "url": conf.get("URL"),
        "base": reverse("wagtail_carillon:bell").removesuffix("bell/"),
        "admin": reverse("wagtailadmin_home"),
        "areas": topics.AREAS,
    }
    return format_html(
        '{}<script type="module" src="{}"></script>',
        json_script(settings, "carillon-settings"),
        static("wagtail_carillon/admin.js"),
    )


@hooks.register("insert_global_admin_css")
def styles() -> SafeString | str:
    """The styles of the badge, the bell and the notes."""
    if not conf.get("ENABLED"):
        return ""
    return format_html('<link rel="stylesheet" href="{}">', static("wagtail_carillon/admin.css"))


@hooks.register("register_icons")
def icons(found: list[str]) -> list[str]:
    """The bell's icon, in Wagtail's sprite."""
    return [*found, "wagtail_carillon/bell.svg"]
