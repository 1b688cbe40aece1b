"""Writing: one INSERT in the transaction of the change."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import router, transaction

from ..events import MAX_BYTES, Event, Topics, complete, dumps
from . import conf, drainer
from .middleware import current_origin
from .models import OutboxRow


def event_of(kind: str, data: Mapping[str, Any] | None = None, *, actor: object = None, origin: str | None = None) -> Event:
    """An event as the outbox writes it, with the origin of the request that is being served."""
    event: dict[str, Any] = {"type": kind, "data": dict(data or {})}
    if actor is not None:
        event["actor"] = str(actor)
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
    `actor` is who did it.
    """
    emit_many([(topics, event_of(kind, data, actor=actor, origin=origin))])


def emit_many(events: Iterable[tuple[str | Topics, Event]]) -> None:
    """As `emit`, for all events of one change together: they cost one INSERT and stay in their order."""
    if not conf.get("ENABLED"):
        return
    entries = [[[topics] if isinstance(topics, str) else list(topics), _checked(event)] for topics, event in events]
    if not entries:
        return
    # The outbox lies in the database of what changes: only then do both come or neither.
    database = router.db_for_write(OutboxRow)
    OutboxRow.objects.using(database).create(entries=json.dumps(entries, ensure_ascii=False))
    transaction.on_commit(drainer.kick, using=database, robust=True)


def _checked(event: Event) -> Event:
    # The id is given here, once: whoever publishes the row, and however often, it is the same event.
    whole = complete(event, conf.get("SOURCE"))
    if len(dumps(whole).encode()) > MAX_BYTES:
        raise ValueError(f"the event is larger than {MAX_BYTES} bytes: say what changed, not the content itself")
    return whole
