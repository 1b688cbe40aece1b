"""Finds log entries that nobody was told of, and tells.

In a transaction, an entry and its row in the outbox come together or not at all. In autocommit, and where entries are written
without Django's signals (`bulk_create`, another program), an entry may stand alone. The sweep goes over all entries once, some
seconds after they were written, and publishes their events. Those that were told before have the same ids, and Carillon
recognises them. A number that is missing may belong to a transaction that is still open: it is looked for again and again.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from itertools import takewhile
from typing import Any

from carillon_notify import Publisher
from carillon_notify.django import conf
from carillon_notify.errors import Unavailable
from carillon_notify.events import Message, message
from django.db import router, transaction
from django.db.models import Max, Model
from django.utils import timezone
from wagtail.models import ModelLogEntry, PageLogEntry

from . import entries, notices
from .models import Swept

log = logging.getLogger("carillon")

SETTLED = timedelta(seconds=3)
"""Entries of this age have been told, or will not be."""
BATCH = 200
PATIENCE = 2.0
"""Seconds after which it gives up, to be called again."""

GAP_SECONDS = 3600
"""How long a number that was missing is looked for: longer than a transaction may be open."""
GAPS = 1000
"""How many of them are, the newest: where numbers go up in steps, all between are missing."""

_told: set[tuple[str, Any]] = set()
"""Entries whose events this process has committed, so that they need not be told again. It only saves work: at most `REMEMBERED`."""
REMEMBERED = 10_000


def tells(entry: PageLogEntry | ModelLogEntry) -> None:
    """This process has written an entry's events: once they are committed, its own sweep need not look at it."""
    label = entry._meta.label_lower

    def committed() -> None:
        if len(_told) < REMEMBERED and entry.pk is not None:
            _told.add((label, entry.pk))

    transaction.on_commit(committed, using=router.db_for_write(type(entry)), robust=True)


def sweep(publisher: Publisher) -> None:
    """Looks at the entries since the last time. Raises `NotPublished` where Redis does not take what was found."""
    for model, events_of in ((PageLogEntry, entries.of_page), (ModelLogEntry, entries.of_snippet)):
        while _sweep(publisher, model, events_of):
            pass


def _sweep(publisher: Publisher, model: type[Any], events_of: Callable[[Any], notices.Events]) -> bool:
    label = model._meta.label_lower
    mark, is_first = Swept.objects.get_or_create(log=label, defaults={"entry": _newest(model)})
    if is_first:
        return False  # what was there before this app is nobody's news
    now = timezone.now()

    def is_settled(entry: Any) -> bool:
        # One that a wrong clock has dated into the future is not waited for.
        return not now - SETTLED < entry.timestamp < now + SETTLED

    # From where they are written: a replica may lack some, and the mark would pass them.
    written = model.objects.using(router.db_for_write(model)).order_by("pk")
    gaps = {int(pk): since for pk, since in mark.gaps.items() if since > now.timestamp() - GAP_SECONDS}
    late = list(filter(is_settled, written.filter(pk__in=gaps)))
    # In the order of their numbers, up to the first that is too young: the mark must not pass it.
    found = list(takewhile(is_settled, written.filter(pk__gt=mark.entry)[:BATCH]))
    if not late and not found:
        return False
    # Nobody waits for news of days ago, as after a time in which Carillon was switched off.
    oldest = now - timedelta(seconds=conf.get("MAX_AGE_SECONDS"))
    news = [entry for entry in late + found if (label, entry.pk) not in _told and entry.timestamp > oldest]
    untold, trouble = _publish(publisher, [(entry.pk, message) for entry in news for message in _messages(entry, events_of)])
    # What has been told is passed, also where Redis took a part only: told again after five minutes, it would be news.
    done = {entry.pk for entry in late + found} - untold
    newest = max(done | {mark.entry})
    missing = set(range(max(mark.entry, newest - 10 * GAPS) + 1, newest)) | set(gaps)
    left = {pk: gaps.get(pk, now.timestamp()) for pk in sorted(missing - done)[-GAPS:]}
    # Other processes sweep, too: whatever lies before the mark is done.
    _told.difference_update([(log_, pk) for log_, pk in list(_told) if log_ == label and pk <= newest])
    Swept.objects.filter(pk=mark.pk, entry=mark.entry).update(entry=newest, gaps=left)
    if trouble:
        raise trouble
    return len(found) == BATCH


def _newest(model: type[Model]) -> int:
    newest: int | None = model._default_manager.using(router.db_for_write(model)).aggregate(newest=Max("pk"))["newest"]
    return newest or 0


def _messages(entry: Any, events_of: Callable[[Any], notices.Events]) -> list[Message]:
    try:
        events = events_of(entry)
    except AttributeError:
        return []  # of a model that is no longer there
    return [message(topics, event, conf.get("SOURCE")) for topics, event in events]


def _publish(publisher: Publisher, messages: list[tuple[int, Message]]) -> tuple[set[int], Unavailable | None]:
    """Publishes events of entries, in their order. Gives the entries that were not told, and why."""
    results = publisher.publish([sent for _, sent in messages], PATIENCE) if messages else []
    untold: set[int] = set()
    trouble: Unavailable | None = None
    for (pk, sent), result in zip(messages, results, strict=True):
        if isinstance(result.error, Unavailable):
            untold.add(pk)
            trouble = trouble or result.error
        elif result.error:
            log.error("sweep: %s is refused and dropped: %s", ", ".join(sent.topics), result.error)
    return untold, trouble
