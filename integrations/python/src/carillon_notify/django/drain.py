"""Draining: rows of the outbox are published in their order and removed."""

import enum
import json
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db.models import Min
from django.db.models.functions import Now

from ..errors import NotPublished, Result, Unavailable, is_of_topic, is_refused_for_good
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
    publishes them once more, with the same ids. Rows that their topic keeps back (an area that this user may not publish to, a slot of a
    cluster that stays half moved) stay, and hold up no others but later ones of that topic.
    """
    name, done, kept_back = conf.get("SOURCE"), 0, None
    held: dict[str, NotPublished] = {}
    while True:
        if not lease.acquire(name, holder):
            return Outcome.BUSY
        try:
            rows = list(OutboxRow.objects.filter(pk__gt=done).order_by("id")[:BATCH])
            if rows and (trouble := _publish(publisher, rows, held)):
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


def _publish(publisher: Publisher, rows: Sequence[OutboxRow], held: dict[str, NotPublished]) -> NotPublished | None:
    """Raises where it makes no sense to go on with other rows; returns what keeps some of these back. `held`: topics that are, and why."""
    entries = {row.pk: _entries(row) for row in rows}
    messages = [(pk, message) for pk, some in entries.items() for message in some]
    waiting: dict[int, list[Message]] = {}
    trouble: list[NotPublished] = []
    for (pk, message), errors in zip(messages, _errors(publisher, [message for _, message in messages], held), strict=True):
        metrics.published += not errors
        refused = {topic: error for topic, error in errors.items() if _is_hopeless(error)}
        for topic, error in refused.items():
            metrics.refused += 1
            log.error("outbox: %s is refused and dropped: %s", topic, error)
        left = {topic: error for topic, error in errors.items() if topic not in refused}
        if left:
            trouble += left.values()
            waiting.setdefault(pk, []).append(Message(tuple(left), message.text))
            held.update(left)
    OutboxRow.objects.filter(pk__in=[pk for pk in entries if pk not in waiting]).delete()
    for pk, some in waiting.items():
        # What is done is not done again: the five minutes in which it would be recognised may be over by then.
        if some != entries[pk]:
            OutboxRow.objects.filter(pk=pk).update(entries=_text(some))
    metrics.failed += bool(trouble)
    for error in trouble:
        if isinstance(error, Unavailable) and not is_of_topic(error.__cause__):
            raise error
    # That it may be available soon says more than that something is refused.
    return next(iter(sorted(trouble, key=lambda error: not isinstance(error, Unavailable))), None)


def _errors(publisher: Publisher, messages: Sequence[Message], held: dict[str, NotPublished]) -> list[dict[str, NotPublished]]:
    """What keeps each message from its topics: where a topic is held, nothing is tried."""
    free = [Message(tuple(topic for topic in message.topics if topic not in held), message.text) for message in messages]
    results = iter(publisher.publish([message for message in free if message.topics], PATIENCE))
    told = [next(results) if message.topics else Result((), None) for message in free]
    return [
        {topic: held.get(topic) or result.errors[topic] for topic in message.topics if topic in held or topic in result.errors}
        for message, result in zip(messages, told, strict=True)
    ]


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
