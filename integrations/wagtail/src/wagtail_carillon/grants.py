"""What an editor may follow: exactly what Wagtail's page permissions let them see.

Prefixes for the subtrees of their groups. A page that they may edit for another reason (its review is theirs to do) is granted by
itself, where the page that asks for the token names it.
"""

from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest
from wagtail.models import GroupPagePermission, Page

from . import topics

NAMED = 50
"""How many pages a request for a token may name."""
EXPLORE = ("add", "change", "publish", "lock", "unlock", "bulk_delete")


def grants(request: HttpRequest) -> dict[str, Any] | None:
    """The claims of a token; None for who has no access to the admin."""
    user = request.user
    if not (user.is_active and user.has_perm("wagtailadmin.access_admin")):
        return None
    if user.is_superuser:
        return {"topics": [f"{area}:*" for area in topics.AREAS]}
    granted = {*_pages(user), *_snippets(user)}
    return {"topics": sorted({*granted, *_named(request, granted)})}


def _pages(user: Any) -> Iterator[str]:
    codenames = [f"{action}_page" for action in EXPLORE]
    permissions = GroupPagePermission.objects.filter(group__user=user, permission__codename__in=codenames)
    for page in {permission.page for permission in permissions.select_related("page")}:
        chain = topics.chain_of(page)
        for area in topics.AREAS:
            if not chain:
                yield f"{area}:*"
                continue
            yield topics.topic(area, chain)
            yield f"{topics.topic(area, chain)}/*"
        # Moves further up concern the subtree; these topics carry ids only.
        for above in topics.ancestors(chain):
            yield topics.topic(topics.TREE, above)


def _named(request: HttpRequest, granted: set[str]) -> Iterator[str]:
    prefixes = tuple(topic.removesuffix("*") for topic in granted if topic.endswith("*"))
    asked = [topic for topic in request.GET.getlist("topic")[:NAMED] if topic not in granted and not topic.startswith(prefixes)]
    ids = {topic.rsplit("/")[-1].removeprefix(f"{topics.CONTENT}:") for topic in asked if topic.startswith(f"{topics.CONTENT}:")}
    for page in Page.objects.filter(pk__in=[pk for pk in ids if pk.isdecimal() and len(pk) < 19]):
        if page.permissions_for_user(request.user).can_edit():
            chain = topics.chain_of(page)
            yield from (topics.topic(area, chain) for area in topics.AREAS)
            yield from (topics.topic(topics.TREE, above) for above in topics.ancestors(chain))


def _snippets(user: Any) -> Iterator[str]:
    from wagtail.snippets.models import get_snippet_models

    labels = {model._meta.app_label: [] for model in get_snippet_models()}
    for model in get_snippet_models():
        labels[model._meta.app_label].append(model._meta.model_name)
    if not labels:
        return
    held = user.get_all_permissions()
    for app, names in labels.items():
        for name in names:
            if any(f"{app}.{action}_{name}" in held for action in ("add", "change", "delete", "publish", "view")):
                yield f"{topics.CONTENT}:s/{app}.{name}/*"


