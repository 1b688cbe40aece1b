"""Notifications for people: comments, replies, mentions, reviews. Each is a row and an event with the unread count."""

import re
from collections.abc import Iterable
from typing import Any

from carillon_notify import private_topic
from carillon_notify.django.outbox import event_of
from django.contrib.auth import get_user_model
from django.db.models import Q
from wagtail.models import Comment, CommentReply, PageLogEntry, TaskState, WorkflowState

from .models import Notification

Kind = Notification.Kind
Events = list[tuple[str, Any]]

_MENTION = re.compile(r"(?<![\w.@+-])@([\w.@+-]+)")


def about_comment(entry: PageLogEntry) -> Events:
    """Whom a comment or reply concerns: who is mentioned, who took part in the thread, who subscribed to the page."""
    if entry.action not in ("wagtail.comments.create", "wagtail.comments.create_reply"):
        return []
    comment, reply = entry.data["comment"], entry.data.get("reply")
    users = get_user_model().objects.filter(is_active=True)
    mentioned = set(_named_in(users, (reply or comment).get("text") or ""))
    if reply:
        found = Comment.objects.filter(pk=comment["id"]).values_list("user_id", flat=True)
        replies = CommentReply.objects.filter(comment=comment["id"]).values_list("user_id", flat=True)
        others, kind = {*found, *replies}, Kind.REPLY
    else:
        subscribed = users.filter(
            page_subscriptions__page=entry.page_id, page_subscriptions__comment_notifications=True
        )
        others, kind = set(subscribed.values_list("pk", flat=True)), Kind.COMMENT
    return [
        *_tell(mentioned, entry.user_id, Kind.MENTION, entry.page_id),
        *_tell(others - mentioned, entry.user_id, kind, entry.page_id),
    ]


def about_task(state: TaskState, user: Any) -> Events:
    """Whoever may act on a task is asked to."""
    groups = getattr(state.task.specific, "groups", None)
    page = getattr(state.workflow_state, "object_id", None)
    if groups is None or page is None or not str(page).isdigit():
        return []
    reviewers = get_user_model().objects.filter(Q(groups__in=groups.all()), is_active=True)
    return _tell(set(reviewers.values_list("pk", flat=True)), getattr(user, "pk", None), Kind.TASK, int(page))


def about_workflow(state: WorkflowState, kind: Notification.Kind, user: Any) -> Events:
    """Who asked for a review hears how it ended."""
    if state.requested_by_id is None or not str(state.object_id).isdigit():
        return []
    return _tell({state.requested_by_id}, getattr(user, "pk", None), kind, int(state.object_id))


def read(user_id: Any) -> Events:
    """All of an editor's notifications are read."""
    return [(private_topic(user_id), event_of("notification.read_all", {"unread": 0}, actor=user_id))]


def unread(user_id: Any) -> int:
    """How many notifications an editor has not read."""
    return Notification.objects.filter(recipient_id=user_id, read=None).count()


def _tell(users: Iterable[Any], actor: Any, kind: Notification.Kind, page: int) -> Events:
    events: Events = []
    for user in sorted(set(users) - {actor}):
        Notification.objects.create(recipient_id=user, actor_id=actor, kind=kind, page_id=page)
        data = {"kind": str(kind), "page": page, "unread": unread(user)}
        events.append((private_topic(user), event_of("notification.created", data, actor=actor)))
    return events


def _named_in(users: Any, text: str) -> Iterable[Any]:
    # `@anna.` at the end of a sentence means anna; a name that really ends in a dot is found first.
    names = set(_MENTION.findall(text))
    names |= {name.rstrip(".+-@") for name in names}
    field = get_user_model().USERNAME_FIELD
    return users.filter(**{f"{field}__in": names}).values_list("pk", flat=True) if names else ()
