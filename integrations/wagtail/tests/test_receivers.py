"""What is told when something changes in Wagtail."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from carillon_notify.django.models import OutboxRow
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.db.models.signals import post_save
from django.test import Client
from django.test.utils import CaptureQueriesContext
from wagtail.actions.move_page import MovePageAction
from wagtail.log_actions import log
from wagtail.models import Comment, CommentReply, GroupPagePermission, Page, PageSubscription

from .conftest import Site
from .home.models import Author

Told = Callable[[], list[tuple[tuple[str, ...], dict[str, Any]]]]


def summary(events: list[tuple[tuple[str, ...], dict[str, Any]]]) -> list[tuple[tuple[str, ...], str]]:
    return [(topics, event["type"]) for topics, event in events]


def test_a_save_is_told_to_the_page_and_to_its_parents_listing(site: Site, told: Told, admin: Any) -> None:
    revision = site.first.save_revision(user=admin, log_action=True)
    page = site.key(site.home, site.news, site.first)
    events = told()
    assert summary(events) == [
        ((f"content:{page}",), "content.saved"),
        ((f"tree:{site.key(site.home, site.news)}",), "tree.changed"),
    ]
    event = events[0][1]
    assert event["data"] == {"page": site.first.pk, "revision": revision.pk}
    assert event["actor"] == str(admin.pk) and event["source"] == "cms"


def test_events_carry_no_titles_names_or_text(site: Site, admin: Any, editor_of: Any) -> None:
    anna = editor_of("anna", site.home)
    site.first.save_revision(user=admin, log_action=True).publish(user=admin)
    comment = Comment.objects.create(page=site.first, user=anna, text="secret text @anna", contentpath="title")
    comment.log_create(user=admin)
    CommentReply.objects.create(comment=comment, user=admin, text="secret reply").log_create(user=admin)
    site.first.unpublish(user=admin)
    MovePageAction(site.first, site.blog, pos="last-child", user=admin).execute()
    site.second.delete(user=admin)
    text = " ".join(OutboxRow.objects.values_list("entries", flat=True))
    assert len(text) > 1000
    for secret in ("secret", "Secret", "anna@", "Boss", "boss"):
        assert secret not in text


def test_a_move_is_told_at_both_places_and_parents_in_one_event(site: Site, told: Told) -> None:
    MovePageAction(site.news, site.blog, pos="last-child").execute()
    moved = [(topics, event) for topics, event in told() if event["type"] == "content.moved"]
    (topics, event), = moved
    before, after = site.key(site.home, site.news), site.key(site.home, site.blog, site.news)
    assert set(topics) == {
        f"tree:{before}", f"tree:{after}", f"content:{before}", f"content:{after}",
        f"tree:{site.key(site.home)}", f"tree:{site.key(site.home, site.blog)}",
    }
    assert event["data"] == {"page": site.news.pk, "from": site.home.pk, "to": site.blog.pk}


def test_reordering_is_told_to_the_listing_and_changes_no_topic(site: Site, told: Told) -> None:
    MovePageAction(site.second, site.first, pos="left").execute()
    kinds = summary(told())
    assert ((f"tree:{site.key(site.home, site.news)}",), "tree.changed") in kinds
    site.first.refresh_from_db()
    told()
    site.first.save_revision(log_action=True)
    assert told()[0][0] == (f"content:{site.key(site.home, site.news, site.first)}",)


def test_deletes_unpublishing_and_slugs_are_told_to_the_pages_below(
    site: Site, told: Told, admin: Any, django_capture_on_commit_callbacks: Any
) -> None:
    tree = f"tree:{site.key(site.home, site.news)}"
    site.news.unpublish(user=admin)
    assert any(tree in topics for topics, event in told() if event["data"].get("what") == "content.unpublished")
    site.blog.slug = "newer"
    with django_capture_on_commit_callbacks(execute=True):
        site.blog.save_revision().publish()
    blog = f"tree:{site.key(site.home, site.blog)}"
    assert [event["data"]["what"] for topics, event in told() if topics == (blog,)] == ["content.slug_changed"]
    Page.objects.get(pk=site.news.pk).delete(user=admin)
    events = told()
    assert any(tree in topics for topics, event in events if event["data"].get("what") == "content.deleted")
    gone = {topics[0] for topics, event in events if event["type"] == "content.deleted"}
    assert gone == {f"content:{site.key(site.home, site.news, *rest)}" for rest in ((), (site.first,), (site.second,))}


@pytest.mark.django_db(transaction=True)
def test_a_deletion_is_told_when_the_page_is_gone() -> None:
    """Without a transaction around it, as in a script: what is told is true by then."""
    site, seen = Site(), []
    OutboxRow.objects.all().delete()

    def look(sender: type, instance: OutboxRow, **_: Any) -> None:
        if "content.deleted" in instance.entries:
            seen.append(transaction.get_connection().in_atomic_block and not Page.objects.filter(pk=site.first.pk).exists())

    post_save.connect(look, sender=OutboxRow)
    try:
        Page.objects.get(pk=site.first.pk).delete()
    finally:
        post_save.disconnect(look, sender=OutboxRow)
    assert seen == [True]


def test_a_rollback_tells_nothing(site: Site, told: Told) -> None:
    with pytest.raises(KeyError), transaction.atomic():
        site.first.save_revision(log_action=True)
        raise KeyError
    assert told() == []


def test_a_log_entry_costs_one_insert(site: Site, admin: Any) -> None:
    with CaptureQueriesContext(connection) as seen:
        log(instance=site.first, action="wagtail.publish", user=admin)
    inserts = [query["sql"].split()[2].strip('"') for query in seen if query["sql"].startswith("INSERT")]
    assert inserts == ["carillon_outbox", "wagtailcore_pagelogentry"]


def test_comments_replies_and_mentions_reach_their_people(site: Site, told: Told, editor_of: Any, admin: Any) -> None:
    anna, bert, cleo = (editor_of(name, site.home) for name in ("anna", "bert", "cleo"))
    PageSubscription.objects.create(user=bert, page=site.first, comment_notifications=True)
    told()
    comment = Comment.objects.create(page=site.first, user=anna, text="Look here, @cleo.", contentpath="title")
    comment.log_create(user=anna)
    events = told()
    assert summary(events) == [
        ((f"comments:{site.key(site.home, site.news, site.first)}",), "comment.created"),
        ((f"notifications:{cleo.pk}",), "notification.created"),
        ((f"notifications:{bert.pk}",), "notification.created"),
    ]
    assert [event["data"]["kind"] for _, event in events[1:]] == ["mention", "comment"]
    assert all(event["data"]["unread"] == 1 for _, event in events[1:])
    CommentReply.objects.create(comment=comment, user=bert, text="Yes").log_create(user=bert)
    assert [topics for topics, event in told() if event["type"] == "notification.created"] == [(f"notifications:{anna.pk}",)]


def test_snippets_are_told(db: None, told: Told, admin: Any) -> None:
    author = Author.objects.create(name="Secret")
    log(instance=author, action="wagtail.edit", user=admin)
    assert summary(told()) == [((f"content:s/home.author/{author.pk}",), "content.saved")]


def test_signing_out_ends_this_sign_in_alone(site: Site, admin: Any, orders: Any) -> None:
    one, two = Client(), Client()
    ids = []
    for client in (one, two):
        assert client.login(username="Boss", password="secret")
        ids.append(_claims(client)["jti"])
    assert ids[0] != ids[1]
    orders()
    one.post("/cms/admin/logout/")
    assert orders() == [("/disconnect", {"jti": ids[0]})]


def test_changed_rights_are_refreshed(site: Site, editor_of: Any, orders: Any) -> None:
    anna = editor_of("anna", site.news)
    group = anna.groups.get()
    refresh = [("/refresh", {"user": str(anna.pk)})]
    orders()
    group.permissions.add(Permission.objects.get(codename="add_site"))
    assert orders() == refresh
    GroupPagePermission.objects.filter(group=group).first().delete()
    assert orders() == refresh
    anna.groups.remove(group)
    assert orders() == refresh
    group.user_set.add(anna)
    assert orders() == refresh
    anna.is_superuser = True
    anna.save()
    assert orders() == refresh
    anna.last_name = "Changed"
    anna.save()
    assert orders() == []
    anna.is_active = False
    anna.save()
    assert orders() == [("/disconnect", {"user": str(anna.pk)})]


def _claims(client: Client) -> dict[str, Any]:
    import jwt

    answer = client.get("/cms/admin/carillon/token/")
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = jwt.decode(answer.content.decode(), "0123456789abcdef0123456789abcdef", algorithms=["HS256"])
    return found
