"""From an entry of Wagtail's log to the events that tell of it. The same entry always gives the same ids.

So whoever tells of an entry a second time, as the sweep does, says nothing new: Carillon recognises an id for five minutes.
"""

import logging
import uuid
from typing import Any

from carillon_notify.django.outbox import event_of
from wagtail.models import ModelLogEntry, Page, PageLogEntry

from . import notices, topics
from .actions import DELETE, IN_LISTINGS, IN_SUBTREES, meaning_of

log = logging.getLogger("carillon")

_NAMESPACE = uuid.UUID("6a1f3ad2-6f2e-4d0e-9f0b-6d5a8a0f4c11")


def of_page(entry: PageLogEntry) -> notices.Events:
    """The events of a page's entry, without notifications. None of a deletion: that is told when the page is gone."""
    meaning = meaning_of(entry.action)
    if meaning is None or entry.action == DELETE:
        return []
    try:
        chain = topics.chain_of(entry.page)
    except Page.DoesNotExist:
        return []  # gone meanwhile, which was told by itself
    area, kind = meaning
    data: dict[str, Any] = {"page": entry.page_id}
    if entry.revision_id:
        data["revision"] = entry.revision_id
    if comment := (entry.data or {}).get("comment"):
        data["comment"] = comment.get("id")
    return _with_ids(entry, entry.page_id, of_change(area, kind, chain, data, entry.user_id))


def of_snippet(entry: ModelLogEntry) -> notices.Events:
    """The event of a snippet's entry."""
    if (meaning := meaning_of(entry.action)) is None:
        return []
    _, kind = meaning
    content_type = entry.content_type
    try:
        topic = topics.snippet_topic(f"{content_type.app_label}.{content_type.model}", entry.object_id)
    except ValueError as error:
        # Nobody can follow it. Saving it must work all the same.
        log.warning("a change of %s %r is told to nobody: %s", content_type, entry.object_id, error)
        return []
    return _with_ids(entry, topic, [(topic, event_of(kind, {"object": entry.object_id}, actor=entry.user_id))])


def of_change(area: str, kind: str, chain: tuple[int, ...], data: dict[str, Any], actor: Any) -> notices.Events:
    """A change of a page, for the page itself and for the listings and subtrees that it concerns."""
    events: notices.Events = [(topics.topic(area, chain), event_of(kind, data, actor=actor))]
    trees = [topics.topic(topics.TREE, chain[:-1])] if kind in IN_LISTINGS and chain else []
    if kind in IN_SUBTREES:
        trees.append(topics.topic(topics.TREE, chain))
    if trees:
        events.append((trees, event_of("tree.changed", {"page": data["page"], "what": kind}, actor=actor)))
    return events


def _with_ids(entry: PageLogEntry | ModelLogEntry, what: object, events: notices.Events) -> notices.Events:
    # Known before the entry has a number of its own: events are written before it.
    base = f"{what} {entry.action} {entry.timestamp.timestamp():.6f} {entry.user_id}"
    return [(where, {**event, "id": str(uuid.uuid5(_NAMESPACE, f"{base} {place}"))}) for place, (where, event) in enumerate(events)]
