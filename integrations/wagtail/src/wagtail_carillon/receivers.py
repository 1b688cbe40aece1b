"""From a change in Wagtail to the outbox.

Wagtail's audit log is the one funnel that all changes of pages and snippets go through. An event is written *before* its
log entry: in autocommit, where the two are not one transaction, an instance that dies in between has told of a change
that is real, and never kept one to itself. Entries that came another way are found by the sweep.
"""

from collections.abc import Iterable
from typing import Any

from carillon_notify.django import nodes
from carillon_notify.django.outbox import emit_many, event_of
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.auth.signals import user_logged_out
from django.db.models import QuerySet
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from wagtail.log_actions import get_active_log_context
from wagtail.models import GroupPagePermission, ModelLogEntry, Page, PageLogEntry, TaskState, WorkflowState
from wagtail.signals import (
    page_slug_changed,
    post_page_move,
    task_approved,
    task_cancelled,
    task_rejected,
    task_submitted,
    workflow_approved,
    workflow_rejected,
)

from . import entries, notices, sweep, topics


def page_logged(sender: type, instance: PageLogEntry, raw: bool = False, **_: Any) -> None:
    """A change of a page, or of its comments."""
    if raw or not instance._state.adding or not (events := entries.of_page(instance)):
        return  # `raw`: `loaddata` puts back what happened long ago
    if (instance.data or {}).get("comment"):
        events += notices.about_comment(instance)
    emit_many(events)
    sweep.tells(instance)


def page_deleting(sender: type, instance: Page, **_: Any) -> None:
    """Remembers where a page stands: its ancestors may go with it."""
    instance._carillon_chain = topics.chain_of(instance)


def page_deleted(sender: type, instance: Page, **_: Any) -> None:
    """A page is gone. Its log entry comes before the deletion: who read the page at once would still find it."""
    user = get_active_log_context().user
    events = entries.of_change(topics.CONTENT, "content.deleted", instance._carillon_chain, {"page": instance.pk}, getattr(user, "pk", None))
    emit_many(events)


def page_moved(sender: type, instance: Any, parent_page_before: Any, parent_page_after: Any, **_: Any) -> None:
    """A page has another parent: told at its old place, its new place and both parents, in one event."""
    if parent_page_before.pk == parent_page_after.pk:
        return  # reordered: in the log
    before = (*topics.chain_of(parent_page_before), instance.pk)
    after = (*topics.chain_of(parent_page_after), instance.pk)
    moved = {"page": instance.pk, "from": parent_page_before.pk, "to": parent_page_after.pk}
    parents = [topics.topic(topics.TREE, chain[:-1]) for chain in (before, after)]
    here = [topics.topic(area, chain) for area in (topics.TREE, topics.CONTENT) for chain in (before, after)]
    user = get_active_log_context().user
    emit_many([(list(dict.fromkeys(here + parents)), event_of("content.moved", moved, actor=user))])
    # Grants name the places of pages: whoever has them for something in this branch needs new ones.
    branch = Page.objects.get(pk=instance.pk).get_descendants(inclusive=True)
    _refresh(get_user_model()._base_manager.filter(groups__page_permissions__page__in=branch))


def slug_changed(sender: type, instance: Any, **_: Any) -> None:
    """A new slug changes the addresses of all pages below, and a row of the listing above."""
    chain = topics.chain_of(instance)
    trees = [topics.topic(topics.TREE, place) for place in (chain[:-1], chain)]
    emit_many([(trees, event_of("tree.changed", {"page": instance.pk, "what": "content.slug_changed"}, actor=get_active_log_context().user))])


def snippet_logged(sender: type, instance: ModelLogEntry, raw: bool = False, **_: Any) -> None:
    """A change of a snippet."""
    if not raw and instance._state.adding and (events := entries.of_snippet(instance)):
        emit_many(events)
        sweep.tells(instance)


def submitted(sender: type, instance: TaskState, user: Any, **_: Any) -> None:
    """A task waits for its reviewers."""
    emit_many(notices.about_task(instance, user))


def task_ended(sender: type, instance: TaskState, user: Any = None, **_: Any) -> None:
    """A task was approved, sent back or cancelled: dashboards change, and who might edit as its reviewer only may no longer."""
    emit_many(notices.about_panels(instance, user))
    for reviewer in notices.guests(instance):
        nodes.refresh(reviewer)


def finished(kind: Any) -> Any:
    """A receiver for the end of a workflow."""

    def receive(sender: type, instance: WorkflowState, user: Any, **_: Any) -> None:
        emit_many(notices.about_workflow(instance, kind, user))

    return receive


approved, rejected = finished(notices.Kind.APPROVED), finished(notices.Kind.REJECTED)


def signed_out(sender: type, request: Any, user: Any, **_: Any) -> None:
    """One sign-in has ended: its sessions end, those of other browsers go on."""
    if user and request and (jti := nodes.sign_in_id(request)):
        # Django does this next. A page that is told now, and asks for a token at once, must not get one any more.
        request.session.delete()
        nodes.disconnect(jti=jti)


def groups_changed(sender: type, instance: Any, action: str, reverse: bool, pk_set: set[Any] | None, **_: Any) -> None:
    """Somebody joined or left a group."""
    if action == "pre_clear" and reverse:
        _refresh(instance.user_set.all())
    elif action in ("post_add", "post_remove", "post_clear"):
        for user in pk_set or () if reverse else (instance.pk,):
            nodes.refresh(user)


def permissions_changed(sender: type, instance: Any, action: str, pk_set: set[Any] | None, **_: Any) -> None:
    """A group, or a user by themselves, has other permissions. The permission may be the one whose holders were changed."""
    if action == "pre_clear" and isinstance(instance, Permission):
        held_by = instance.group_set if sender is Group.permissions.through else instance.user_set
        _refresh(_holders(sender, held_by.values("pk")))
    elif action in ("post_add", "post_remove", "post_clear"):
        _refresh(_holders(sender, (pk_set or ()) if isinstance(instance, Permission) else [instance.pk]))


def page_permission_changed(sender: type, instance: GroupPagePermission, raw: bool = False, **_: Any) -> None:
    """A group may do other things with a subtree."""
    if not raw:
        _refresh(get_user_model()._base_manager.filter(groups=instance.group_id))


def group_deleting(sender: type, instance: Group, **_: Any) -> None:
    """A group goes, and with it what its members might do."""
    _refresh(instance.user_set.all())


def user_saving(sender: type, instance: Any, raw: bool = False, update_fields: frozenset[str] | None = None, **_: Any) -> None:
    """Remembers what an editor might before. Each sign-in saves `last_login`, which is no such thing."""
    rights = [name for name in _rights(sender) if update_fields is None or name in update_fields]
    asked = instance.pk and rights and not raw
    instance._carillon_before = sender._base_manager.filter(pk=instance.pk).values(*rights).first() if asked else None


def user_saved(sender: type, instance: Any, **_: Any) -> None:
    """Somebody was switched off, or has become an administrator."""
    before = getattr(instance, "_carillon_before", None)
    if before is None or all(getattr(instance, name) == value for name, value in before.items()):
        return
    if instance.is_active:
        nodes.refresh(instance.pk)
    else:
        nodes.disconnect(user=instance.pk)


def user_deleted(sender: type, instance: Any, **_: Any) -> None:
    """An account is gone."""
    nodes.disconnect(user=instance.pk)


def _rights(user: Any) -> list[str]:
    """A user model of one's own may have these as properties: what it computes, Django does not save."""
    return [field.attname for field in user._meta.concrete_fields if field.attname in ("is_active", "is_superuser")]


def _holders(through: Any, pks: Iterable[Any]) -> QuerySet[Any]:
    """The users behind a change of `group.permissions` or `user.user_permissions`."""
    which = "groups__in" if through is Group.permissions.through else "pk__in"
    return get_user_model()._base_manager.filter(**{which: pks})


def _refresh(users: QuerySet[Any]) -> None:
    for user in dict.fromkeys(users.order_by("pk").values_list("pk", flat=True)):
        nodes.refresh(user)


def connect() -> None:
    """Connects all receivers."""
    user: Any = get_user_model()
    pre_save.connect(page_logged, sender=PageLogEntry)
    pre_save.connect(snippet_logged, sender=ModelLogEntry)
    pre_delete.connect(page_deleting, sender=Page)
    post_delete.connect(page_deleted, sender=Page)
    post_page_move.connect(page_moved)
    page_slug_changed.connect(slug_changed)
    task_submitted.connect(submitted)
    for ended in (task_approved, task_rejected, task_cancelled):
        ended.connect(task_ended)
    workflow_approved.connect(approved)
    workflow_rejected.connect(rejected)
    user_logged_out.connect(signed_out)
    m2m_changed.connect(groups_changed, sender=user.groups.through)
    m2m_changed.connect(permissions_changed, sender=Group.permissions.through)
    m2m_changed.connect(permissions_changed, sender=user.user_permissions.through)
    pre_delete.connect(group_deleting, sender=Group)
    post_delete.connect(user_deleted, sender=user)
    for signal in (post_save, post_delete):
        signal.connect(page_permission_changed, sender=GroupPagePermission)
    pre_save.connect(user_saving, sender=user)
    post_save.connect(user_saved, sender=user)
