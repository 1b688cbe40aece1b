"""Log entries that nobody was told of are found."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from carillon_notify.django import drainer
from carillon_notify.django.models import OutboxRow
from carillon_notify.errors import NotPublished, Refused, Result, Unavailable
from carillon_notify.events import Message
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone
from wagtail.models import ModelLogEntry, Page, PageLogEntry
from wagtail_carillon import entries, sweep

from .conftest import Site
from .home.models import Author


class Recorder:
    """Stands where the publisher does, and keeps what it is given; or takes nothing."""

    def __init__(self) -> None:
        self.taken: list[tuple[tuple[str, ...], dict[str, Any]]] = []
        self.is_away = False
        self.goes_after: int | None = None
        self.refuses = ""
        self.lacks = ""
        self.reported: list[int] = []

    def report(self, source: str, seconds: int, oldest_ms: int) -> None:
        self.reported.append(oldest_ms)

    def ping(self) -> None:
        pass

    def publish(self, messages: Sequence[Message], patience: float) -> list[Result]:
        if self.goes_after is not None:
            taken, lost = messages[: self.goes_after], messages[self.goes_after :]
            self.goes_after = None
            return [*self.publish(taken, patience), *(_lacking(message, Unavailable("Redis is away")) for message in lost)]
        return [self._publish(message) for message in messages]

    def _publish(self, message: Message) -> Result:
        if self.is_away:
            return _lacking(message, Unavailable("Redis is away"))
        if self.lacks in message.topics:
            return _lacking(message, Unavailable("its slot is moving"))
        if self.refuses and self.refuses in message.topics[0]:
            return _lacking(message, Refused("no rights"))
        self.taken.append((message.topics, json.loads(message.text)))
        return Result(("1-1",), None)

    def take(self) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
        taken, self.taken = self.taken, []
        return taken


def _lacking(message: Message, error: NotPublished) -> Result:
    return Result((), error, dict.fromkeys(message.topics, error))


def alone(page: Page, action: str = "wagtail.edit", seconds: float = 10) -> PageLogEntry:
    """An entry without signals, some seconds old."""
    entry = PageLogEntry(
        page=page, action=action, label="Secret", timestamp=timezone.now() - timedelta(seconds=seconds), data={}, content_type=page.content_type,
    )
    return PageLogEntry.objects.bulk_create([entry])[0]


@pytest.fixture
def swept(site: Site) -> Recorder:
    """The sweep has come as far as the site was made."""
    sweep._told.clear()  # other tests have other databases
    recorder = Recorder()
    sweep.sweep(recorder)
    assert recorder.take() == []
    return recorder


def test_an_entry_that_nobody_was_told_of_is_told_once(site: Site, swept: Recorder) -> None:
    alone(site.first)
    sweep.sweep(swept)
    told = swept.take()
    assert [(topics, event["type"]) for topics, event in told] == [
        ((f"content:{site.key(site.home, site.news, site.first)}",), "content.saved"),
        ((f"tree:{site.key(site.home, site.news)}",), "tree.changed"),
    ]
    assert "Secret" not in json.dumps(told)
    sweep.sweep(swept)
    assert swept.take() == []


def test_what_was_told_has_the_same_ids_when_it_is_told_again(site: Site, told: Any, admin: Any) -> None:
    site.first.save_revision(user=admin, log_action=True)
    first = told()
    entry = PageLogEntry.objects.order_by("pk").last()
    assert entry is not None
    again = entries.of_page(entry)
    assert [event["id"] for _, event in again] == [event["id"] for _, event in first]
    # Another save, another id.
    site.first.save_revision(user=admin, log_action=True)
    assert not {event["id"] for _, event in told()} & {event["id"] for _, event in first}


def test_what_redis_did_not_take_is_told_the_next_time(site: Site, swept: Recorder) -> None:
    alone(site.first)
    swept.is_away = True
    with pytest.raises(Unavailable):
        sweep.sweep(swept)
    swept.is_away = False
    sweep.sweep(swept)
    assert len(swept.take()) == 2


def test_what_was_told_before_redis_went_away_is_not_told_again(site: Site, swept: Recorder) -> None:
    """Later than five minutes it would be a second event."""
    for page in (site.first, site.second, site.blog):
        alone(page)
    swept.goes_after = 3
    with pytest.raises(Unavailable):
        sweep.sweep(swept)
    assert [topics[0].partition(":")[0] for topics, _ in swept.take()] == ["content", "tree", "content"]
    sweep.sweep(swept)
    again = [event["data"]["page"] for _, event in swept.take()]
    assert again == [site.second.pk, site.second.pk, site.blog.pk, site.blog.pk]
    sweep.sweep(swept)
    assert swept.take() == []


def test_an_entry_of_a_transaction_that_was_open_is_told_once_it_is_there(site: Site, swept: Recorder) -> None:
    late = alone(site.first)
    entry = PageLogEntry.objects.get(pk=late.pk)
    PageLogEntry.objects.filter(pk=late.pk).delete()
    alone(site.second)
    sweep.sweep(swept)
    assert {event["data"]["page"] for _, event in swept.take()} == {site.second.pk}
    PageLogEntry.objects.bulk_create([entry])
    assert entry.pk == late.pk
    sweep.sweep(swept)
    assert {event["data"]["page"] for _, event in swept.take()} == {site.first.pk}
    sweep.sweep(swept)
    assert swept.take() == []


def test_what_redis_took_is_not_told_again_with_what_it_did_not_take(site: Site, swept: Recorder) -> None:
    alone(site.first)
    alone(site.second)
    swept.lacks = f"content:{site.key(site.home, site.news, site.first)}"
    with pytest.raises(Unavailable):
        sweep.sweep(swept)
    assert {event["data"]["page"] for _, event in swept.take() if event["type"] == "content.saved"} == {site.second.pk}
    swept.lacks = ""
    sweep.sweep(swept)
    assert {event["data"]["page"] for _, event in swept.take()} == {site.first.pk}


def test_the_source_says_how_long_what_the_sweep_has_found_waits(site: Site, swept: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    works = drainer.Drainer()
    monkeypatch.setattr(works, "_publisher", swept)
    monkeypatch.setattr(drainer, "sweeps", [sweep.sweep])
    alone(site.first)
    swept.is_away = True
    with pytest.raises(Unavailable):
        works.sweep()
    assert works._untold_since is not None
    works._untold_since -= 30
    works.report()
    swept.is_away, works._swept, works._reported = False, float("-inf"), float("-inf")
    works.sweep()
    works.report()
    assert swept.reported[0] >= 30_000
    assert swept.reported[1:] == [0]


def test_a_row_that_is_kept_back_does_not_stop_the_sweep(site: Site, swept: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    works = drainer.Drainer()
    monkeypatch.setattr(works, "_publisher", swept)
    monkeypatch.setattr(drainer, "sweeps", [sweep.sweep])
    OutboxRow.objects.create(entries=json.dumps([[["projects"], {"type": "a.b"}]]))
    alone(site.first)
    works.sweep()
    assert swept.take() == []
    swept.refuses = "projects"
    with pytest.raises(Refused):
        works.work()
    works._swept = float("-inf")
    works.sweep()
    assert len(swept.take()) == 2


def test_an_area_without_rights_does_not_stop_the_sweep(site: Site, swept: Recorder) -> None:
    alone(site.first)
    swept.refuses = "tree:"
    sweep.sweep(swept)
    assert len(swept.take()) == 1
    sweep.sweep(swept)
    assert swept.take() == []


def test_entries_of_this_moment_are_left_to_who_writes_them(site: Site, swept: Recorder) -> None:
    entry = alone(site.first, seconds=0)
    sweep.sweep(swept)
    assert swept.take() == []
    PageLogEntry.objects.filter(pk=entry.pk).update(timestamp=timezone.now() - timedelta(seconds=10))
    sweep.sweep(swept)
    assert len(swept.take()) == 2


def test_an_older_entry_does_not_carry_the_mark_past_a_younger_one(site: Site, swept: Recorder) -> None:
    young = alone(site.second, seconds=0)
    alone(site.first)
    sweep.sweep(swept)
    PageLogEntry.objects.filter(pk=young.pk).update(timestamp=timezone.now() - timedelta(seconds=10))
    sweep.sweep(swept)
    assert {event["data"]["page"] for _, event in swept.take()} == {site.first.pk, site.second.pk}


def test_entries_of_a_page_that_is_gone_do_not_stop_the_sweep(site: Site, swept: Recorder) -> None:
    gone = site.second.pk
    alone(site.second)
    Page.objects.filter(pk=gone).delete()
    alone(site.first)
    sweep.sweep(swept)
    assert {event["data"]["page"] for _, event in swept.take()} == {site.first.pk}


def test_a_snippets_entry_is_found_too(site: Site, swept: Recorder) -> None:
    author = Author.objects.create(name="Secret")
    entry = ModelLogEntry(
        content_type=ContentType.objects.get_for_model(author), object_id=str(author.pk), action="wagtail.edit", label="Secret",
        timestamp=timezone.now() - timedelta(seconds=10), data={},
    )
    ModelLogEntry.objects.bulk_create([entry])
    sweep.sweep(swept)
    assert [(topics, event["type"]) for topics, event in swept.take()] == [((f"content:s/home.author/{author.pk}",), "content.saved")]
