"""Writing: one INSERT in the transaction of the change."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import router, transaction

from ..events import Event, Topics, message
from . import conf, drainer
from .middleware import current_origin
from .models import OutboxRow


def event_of(kind: str, data: Mapping[str, Any] | None = None, *, actor: object = None, origin: str | None = None) -> Event:
    """An event as the outbox writes it, with the origin of the request that is being served."""
    event: dict[str, Any] = {"type": kind, "data": dict(data or {})}
    # A user stands for their key: the name of a person is not for events.
    if (who := getattr(actor, "pk", actor)) is not None:
        event["actor"] = str(who)
    if found := origin or current_origin():
        event["origin"] = found
    return event


def emit(
    topics: str | Topics,
    kind: str,
    data: Mapping[str, Any] | None = None,
    *,
    actor: object = None,
    origin: str | None = None,
) -> None:
    """Publishes an event with the commit of the surrounding transaction; a rollback takes it back.

    `kind` is the event's type (`comment.created`); `data` says what changed, in ids and counts, never the content;
    `actor` is who did it, a user or their key.
    """
    emit_many([(topics, event_of(kind, data, actor=actor, origin=origin))])


def emit_many(events: Iterable[tuple[str | Topics, Event]]) -> None:
    """As `emit`, for all events of one change together: they cost one INSERT and stay in their order."""
    if not conf.get("ENABLED"):
        return
    entries = [_entry(topics, event) for topics, event in events]
    if not entries:
        return
    # The outbox lies in the database of what changes: only then do both come or neither.
    database = router.db_for_write(OutboxRow)
    OutboxRow.objects.using(database).create(entries=f"[{','.join(entries)}]")
    transaction.on_commit(drainer.kick, using=database, robust=True)


def _entry(topics: str | Topics, event: Event) -> str:
    # The id is given here, once: whoever publishes the row, and however often, it is the same event.
    found = message(topics, event, conf.get("SOURCE"))
    return f"[{json.dumps(found.topics, ensure_ascii=False)},{found.text}]"
