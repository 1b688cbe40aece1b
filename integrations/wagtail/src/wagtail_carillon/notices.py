"""Notifications for people: comments, replies, mentions, reviews. Each is a row and an event with the unread count."""

import re
from collections.abc import Iterable
from typing import Any

from carillon_notify import private_topic
from carillon_notify.django.outbox import event_of
from django.contrib.auth import get_user_model
from wagtail.models import Comment, CommentReply, Page, PageLogEntry, TaskState, WorkflowState

from .models import Notification

Kind = Notification.Kind
Events = list[tuple[str | list[str], Any]]

_MENTION = re.compile(r"(?<![\w.@+-])@([\w.@+-]+)")


def about_comment(entry: PageLogEntry) -> Events:
    """Whom a comment or reply concerns: who is mentioned, who took part in the thread, who subscribed to the page."""
    if entry.action not in ("wagtail.comments.create", "wagtail.comments.create_reply"):
        return []
    comment, reply = entry.data["comment"], entry.data.get("reply")
    users = get_user_model().objects.filter(is_active=True)
    named = _named_in(users, (reply or comment).get("text") or "")
    # A notification names the page: it is for those who may see it.
    mentioned = {user.pk for user in named if entry.page.permissions_for_user(user).can_edit()}
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
    page = _page_of(state.workflow_state)
    return _tell(_reviewers(state), getattr(user, "pk", None), Kind.TASK, page) if page else []


def about_panels(state: TaskState, user: Any) -> Events:
    """A task has ended: it leaves the dashboards of its reviewers, and moves on in that of who asked for the review."""
    page = _page_of(state.workflow_state)
    people = {*_reviewers(state), state.workflow_state.requested_by_id} - {None}
    event = event_of("workflow.changed", {"page": page}, actor=getattr(user, "pk", None))
    # One event, many topics: it concerns all of them.
    return [([private_topic(person) for person in sorted(people)], event)] if page and people else []


def guests(state: TaskState) -> set[Any]:
    """Reviewers who might edit the page of a task for its review only."""
    page = Page.objects.filter(pk=_page_of(state.workflow_state)).first()
    if page is None:
        return set()
    reviewers = get_user_model().objects.filter(pk__in=_reviewers(state), is_superuser=False)
    return {user.pk for user in reviewers if "change" not in page.permissions_for_user(user).permissions}


def _page_of(state: WorkflowState | None) -> int | None:
    found = str(getattr(state, "object_id", ""))
    return int(found) if found.isdigit() else None


def _reviewers(state: TaskState) -> set[Any]:
    groups = getattr(state.task.specific, "groups", None)
    if groups is None:
        return set()
    return set(get_user_model().objects.filter(groups__in=groups.all(), is_active=True).values_list("pk", flat=True))


def about_workflow(state: WorkflowState, kind: Notification.Kind, user: Any) -> Events:
    """Who asked for a review hears how it ended."""
    page = _page_of(state)
    if state.requested_by_id is None or page is None:
        return []
    return _tell({state.requested_by_id}, getattr(user, "pk", None), kind, page)


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
    return users.filter(**{f"{field}__in": names}) if names else ()
