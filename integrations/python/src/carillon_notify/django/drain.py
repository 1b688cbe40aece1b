"""Draining: rows of the outbox are published in their order and removed."""

import enum
import json
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db.models import Min
from django.db.models.functions import Now

from ..errors import NotPublished, Unavailable, is_refused_for_good
from ..events import Message, dumps
from ..publisher import Publisher
from . import conf, lease, metrics
from .models import OutboxRow

log = logging.getLogger("carillon")

BATCH = 200
"""Rows that are published together."""
PATIENCE = 2.0
"""Seconds without success after which a drainer gives up, so that another instance can go on."""


class Outcome(enum.Enum):
    """How a drain ended."""

    EMPTY = "nothing waits any more"
    BUSY = "another drainer is at it"


def drain(publisher: Publisher, holder: str) -> Outcome:
    """Publishes everything that waits. Raises `NotPublished` where Redis does not take it.

    No transaction is open while Redis is asked. A row is removed after its events were recorded, so a crash in between
    publishes them once more, with the same ids. Rows that Redis' rights keep back (an area that this user may not publish to)
    stay, and hold up no others.
    """
    name, done, kept_back = conf.get("SOURCE"), 0, None
    while True:
        if not lease.acquire(name, holder):
            return Outcome.BUSY
        try:
            rows = list(OutboxRow.objects.filter(pk__gt=done).order_by("id")[:BATCH])
            if rows and (trouble := _publish(publisher, rows)):
                done, kept_back = rows[-1].pk, trouble
        except BaseException:
            lease.release(name, holder)
            raise
        if not rows:
            lease.release(name, holder)
            if kept_back:
                raise kept_back
            return Outcome.EMPTY


def waits() -> bool:
    """Whether anything waits to be published."""
    found: bool = OutboxRow.objects.exists()
    return found


def oldest_ms() -> int:
    """The age of the oldest row, in milliseconds by the database's clock; 0 where nothing waits."""
    found = OutboxRow.objects.annotate(now=Now()).order_by("id").values_list("created", "now").first()
    if found is None:
        return 0
    created, now = found
    age: timedelta = now - created
    return max(0, int(age.total_seconds() * 1000))


def drop_old() -> int:
    """Drops rows that are too old to be of use, and says so in the log. Returns how many."""
    limit = conf.get("MAX_AGE_SECONDS")
    old = OutboxRow.objects.filter(created__lt=Now() - timedelta(seconds=limit))
    since: datetime | None = old.aggregate(first=Min("created"))["first"]
    if since is None:
        return 0
    count: int = old.delete()[0]
    metrics.dropped += count
    log.error(
        "outbox: %d rows since %s were older than %d s and are dropped: editors were not told of these changes",
        count, since.isoformat(), limit,
    )
    return count


def _publish(publisher: Publisher, rows: Sequence[OutboxRow]) -> NotPublished | None:
    """Raises where it makes no sense to go on with other rows; returns what keeps some of these back."""
    entries = [(row, place, entry) for row in rows for place, entry in enumerate(_entries(row))]
    results = publisher.publish([message for _, _, message in entries], PATIENCE)
    waiting: dict[int, list[Message]] = {}
    trouble: NotPublished | None = None
    for (row, _, message), result in zip(entries, results, strict=True):
        metrics.published += result.error is None
        refused = {topic: error for topic, error in result.errors.items() if _is_hopeless(error)}
        for topic, error in refused.items():
            metrics.refused += 1
            log.error("outbox: %s is refused and dropped: %s", topic, error)
        left = tuple(topic for topic in result.errors if topic not in refused)
        if left:
            trouble = result.error if trouble is None or isinstance(result.error, Unavailable) else trouble
            waiting.setdefault(row.pk, []).append(Message(left, message.text))
    OutboxRow.objects.filter(pk__in=[row.pk for row in rows if row.pk not in waiting]).delete()
    for pk, messages in waiting.items():
        # What is done is not done again: the five minutes in which it would be recognised may be over by then.
        OutboxRow.objects.filter(pk=pk).update(entries=_text(messages))
    if trouble:
        metrics.failed += 1
    if isinstance(trouble, Unavailable):
        raise trouble
    return trouble


def _is_hopeless(error: NotPublished) -> bool:
    cause = error.__cause__
    return isinstance(cause, Exception) and is_refused_for_good(cause)


def _entries(row: OutboxRow) -> list[Message]:
    try:
        return [Message(tuple(topics), dumps(event)) for topics, event in json.loads(row.entries)]
    except (TypeError, ValueError) as error:
        log.error("outbox: row %s cannot be read and is dropped: %s", row.pk, error)
        return []


def _text(messages: Sequence[Message]) -> str:
    return json.dumps([[list(message.topics), json.loads(message.text)] for message in messages], ensure_ascii=False)


__all__ = ["Outcome", "Unavailable", "drain", "drop_old", "oldest_ms", "waits"]
