"""What an editor may follow: exactly what Wagtail's page permissions let them see."""

from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest
from wagtail.models import GroupPagePermission

from . import topics

EXPLORE = ("add", "change", "publish", "lock", "unlock", "bulk_delete")


def grants(request: HttpRequest) -> dict[str, Any] | None:
    """The claims of a token; None for who has no access to the admin."""
    user = request.user
    if not (user.is_active and user.has_perm("wagtailadmin.access_admin")):
        return None
    if user.is_superuser:
        return {"topics": [f"{area}:*" for area in topics.AREAS]}
    return {"topics": sorted({*_pages(user), *_snippets(user)})}


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


