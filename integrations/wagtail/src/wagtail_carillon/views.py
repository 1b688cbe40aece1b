"""What a page asks Wagtail for when an event says that something changed. Each answer has the editor's own rights."""

import hashlib
import json
from html import unescape
from typing import Any

from carillon_notify.django.outbox import emit_many
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.utils.html import strip_tags
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods
from wagtail.admin.utils import get_user_display_name
from wagtail.models import Page, Revision

from . import notices, topics
from .models import Notification

LISTED = 15
"""How many notifications the bell shows."""

# Saved with a page, and not what an editor typed. Comments are saved with the page too, as a new revision.
_BOOKKEEPING = {
    "pk", "path", "depth", "numchild", "url_path", "latest_revision", "latest_revision_created_at", "live_revision", "draft_title",
    "has_unpublished_changes", "last_published_at", "first_published_at", "live", "locked", "locked_at", "locked_by", "expired",
    "go_live_at", "expire_at", "wagtail_admin_comments", "comments",
}


@never_cache
@require_GET
def state(request: HttpRequest, page_id: int) -> HttpResponse:
    """Where a page stands, with its comments where `?comments=1` asks for them: one answer for one change.

    `hash` is of the content alone: equal hashes mean that only comments are new. `?mine=<revision>` asks for the hash of
    the revision that the asking form has autosaved.
    """
    page = Page.objects.filter(pk=page_id).first()
    if page is None:
        return JsonResponse({"exists": False})
    _may_edit(request, page)
    revision = page.get_latest_revision()
    lock = page.get_lock()
    answer: dict[str, Any] = {
        "exists": True,
        "topics": topics.followed(topics.chain_of(page)),
        "published": page.live,
        "url_path": page.url_path,
        "revision": revision and revision.pk,
        "revision_created_at": revision and revision.created_at.isoformat(),
        "live_revision": page.live_revision_id,
        "by": get_user_display_name(revision.user) if revision and revision.user else _("The system"),
        "hash": revision and content_hash(revision),
        "locked": bool(lock),
        "lock_message": unescape(strip_tags(lock.get_message(request.user) or "")) if lock else "",
    }
    if (mine := request.GET.get("mine", "")).isdecimal():
        own = page.revisions.filter(pk=mine).first()
        answer["mine_hash"] = own and content_hash(own)
    if request.GET.get("comments"):
        answer["comments"] = _comments(request, page)
    return JsonResponse(answer)


@never_cache
@require_GET
def tree(request: HttpRequest, page_id: int) -> HttpResponse:
    """The topics of a page's tree, from the top down to itself: what its listing in the explorer follows."""
    page = Page.objects.filter(pk=page_id).first()
    if page is None:
        raise Http404
    return JsonResponse({"topics": topics.followed(topics.chain_of(page))["tree"]})


@never_cache
@require_http_methods(["GET", "POST"])
def bell(request: HttpRequest) -> HttpResponse:
    """An editor's notifications; POST marks them all as read."""
    mine = Notification.objects.filter(recipient=request.user)
    if request.method == "POST":
        with transaction.atomic():
            if mine.filter(read=None).update(read=timezone.now()):
                emit_many(notices.read(request.user.pk))
    items = list(mine.select_related("actor").order_by("-id")[:LISTED])
    found = Page.objects.filter(pk__in={item.page_id for item in items})
    pages = {page.pk: page.draft_title for page in found if page.permissions_for_user(request.user).can_edit()}
    return JsonResponse({
        "unread": notices.unread(request.user.pk),
        "items": [
            {
                "text": _sentence(item, pages.get(item.page_id)),
                "page": item.page_id if item.page_id in pages else None,
                "read": item.read is not None,
                "created": item.created.isoformat(),
            }
            for item in items
        ],
    })


def content_hash(revision: Revision) -> str:
    """A fingerprint of what an editor typed."""
    content = {name: value for name, value in revision.content.items() if name not in _BOOKKEEPING}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _comments(request: HttpRequest, page: Page) -> dict[str, Any]:
    """The comments of a page, as Wagtail's own editor reads them."""
    latest = page.get_latest_revision_as_object()
    form_class = latest.get_edit_handler().get_form_class()
    form = form_class(instance=latest, for_user=request.user, parent_page=latest.get_parent())
    found: dict[str, Any] = form.serialize_comments(request.user)
    return found


def _may_edit(request: HttpRequest, page: Page) -> None:
    if not page.permissions_for_user(request.user).can_edit():
        raise Http404


def _sentence(item: Notification, title: str | None) -> str:
    values: dict[str, Any] = {
        "who": get_user_display_name(item.actor) if item.actor else _("The system"),
        "what": item.get_kind_display(),
        "page": title or _("a page that is gone, or no longer yours to edit"),
    }
    return _("%(who)s %(what)s “%(page)s”") % values
