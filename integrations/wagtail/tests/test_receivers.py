"""What is told when something changes in Wagtail."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from carillon_notify.django import nodes
from carillon_notify.django.models import OutboxRow
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models.signals import post_save
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from wagtail.actions.move_page import MovePageAction
from wagtail.log_actions import log
from wagtail.models import (
    Comment,
    CommentReply,
    GroupApprovalTask,
    GroupPagePermission,
    ModelLogEntry,
    Page,
    PageLogEntry,
    PageSubscription,
    Revision,
    Workflow,
    WorkflowTask,
)

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
    trees = (f"tree:{site.key(site.home)}", f"tree:{site.key(site.home, site.blog)}")
    assert [event["data"]["what"] for topics, event in told() if topics == trees] == ["content.slug_changed"]
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


def test_a_snippet_with_a_key_that_no_topic_can_have_is_saved_all_the_same(db: None, told: Told, admin: Any) -> None:
    author = Author.objects.create(name="Secret")
    author.pk = "ä" * 120
    log(instance=author, action="wagtail.edit", user=admin)
    assert told() == []


def test_actions_of_other_apps_are_told_as_changes(site: Site, told: Told, admin: Any) -> None:
    PageLogEntry(content_type=site.first.cached_content_type, label="x", page=site.first, action="shop.imported", timestamp=timezone.now(), user=admin).save_base()
    assert summary(told()) == [
        ((f"content:{site.key(site.home, site.news, site.first)}",), "content.changed"),
        ((f"tree:{site.key(site.home, site.news)}",), "tree.changed"),
    ]
    PageLogEntry(content_type=site.first.cached_content_type, label="x", page=site.first, action="wagtail.move", timestamp=timezone.now()).save_base()
    assert told() == [], "told by a signal"


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
    assert two.get("/cms/admin/carillon/token/").status_code == 200


def test_a_sign_in_has_ended_before_its_pages_are_told(site: Site, admin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client, answers = Client(), []
    client.login(username="Boss", password="secret")
    other = Client()
    other.cookies = client.cookies

    def tell(**_: Any) -> None:
        answers.append(other.get("/cms/admin/carillon/token/").status_code)

    monkeypatch.setattr(nodes, "disconnect", tell)
    client.post("/cms/admin/logout/")
    assert answers == [302]


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


def test_rights_that_go_with_a_group_a_permission_or_an_account_are_refreshed(site: Site, editor_of: Any, orders: Any) -> None:
    anna, bert = editor_of("anna", site.news), editor_of("bert", site.blog)
    permission = Permission.objects.get(codename="change_author")
    orders()
    anna.user_permissions.add(permission)
    assert orders() == [("/refresh", {"user": str(anna.pk)})]
    permission.user_set.remove(anna)
    assert orders() == [("/refresh", {"user": str(anna.pk)})]
    permission.group_set.add(bert.groups.get())
    assert orders() == [("/refresh", {"user": str(bert.pk)})]
    permission.group_set.clear()
    assert orders() == [("/refresh", {"user": str(bert.pk)})]
    bert.groups.get().delete()
    assert ("/refresh", {"user": str(bert.pk)}) in orders()
    key = anna.pk
    anna.delete()
    assert orders()[-1] == ("/disconnect", {"user": str(key)})


def test_scheduled_publishing_is_told_when_it_happens(site: Site, told: Told, admin: Any) -> None:
    page, key = site.first, site.key(site.home, site.news, site.first)
    page.go_live_at = timezone.now() + timedelta(hours=1)
    page.save_revision(user=admin).publish(user=admin)
    assert ((f"content:{key}",), "content.scheduled") in summary(told())
    Revision.objects.filter(object_id=str(page.pk)).update(approved_go_live_at=timezone.now() - timedelta(minutes=1))
    call_command("publish_scheduled")
    assert ((f"content:{key}",), "content.published") in summary(told())
    ended = timezone.now() - timedelta(minutes=1)
    Page.objects.filter(pk=page.pk).update(expire_at=ended, live=True)
    call_command("publish_scheduled")
    assert ((f"content:{key}",), "content.unpublished") in summary(told())


@pytest.mark.parametrize(("action", "kind"), [("unpublish", "content.unpublished"), ("publish", "content.published"), ("delete", "content.deleted"), ("move", "content.moved")])
def test_bulk_actions_are_told_for_each_page(site: Site, told: Told, admin: Any, action: str, kind: str) -> None:
    client = Client()
    client.login(username="Boss", password="secret")
    before = [f"content:{site.key(site.home, site.news, page)}" for page in (site.first, site.second)]
    fields = {"chooser": site.blog.pk} if action == "move" else {}
    answer = client.post(f"/cms/admin/bulk/wagtailcore/page/{action}/?id={site.first.pk}&id={site.second.pk}&next=/", fields)
    assert answer.status_code == 302, answer.content.decode()[-3000:]
    events = [(topics, event) for topics, event in told() if event["type"] == kind]
    assert [topic for topic in before if any(topic in topics for topics, _ in events)] == before
    assert {event.get("actor") for _, event in events} == {str(admin.pk)}


def test_a_branch_that_moves_refreshes_those_whose_rights_are_in_it(site: Site, editor_of: Any, orders: Any) -> None:
    anna, bert, cleo = editor_of("anna", site.first), editor_of("bert", site.blog), editor_of("cleo", site.news)
    orders()
    MovePageAction(site.news, site.blog, pos="last-child").execute()
    assert orders() == [("/refresh", {"user": str(user.pk)}) for user in (anna, cleo)]
    assert bert.groups.exists()


def test_what_loaddata_puts_back_is_no_news(site: Site, told: Told, orders: Any, editor_of: Any, tmp_path: Path) -> None:
    editor_of("anna", site.news)
    site.first.save_revision(log_action=True)
    file = tmp_path / "all.json"
    call_command("dumpdata", "--natural-foreign", "--natural-primary", "-e", "contenttypes", "-e", "auth.permission", "-e", "carillon", output=str(file))
    told(), orders()
    # Log entries come before the pages that they are about.
    entries = json.loads(file.read_text())
    entries.sort(key=lambda entry: entry["model"] != "wagtailcore.pagelogentry")
    file.write_text(json.dumps(entries))
    for model in (PageLogEntry, ModelLogEntry, GroupPagePermission):
        model.objects.all().delete()
    told(), orders()
    call_command("loaddata", str(file), verbosity=0)
    assert told() == []


def test_a_mention_of_somebody_who_may_not_see_the_page_is_not_told(site: Site, told: Told, editor_of: Any) -> None:
    anna, bert = editor_of("anna", site.news), editor_of("bert", site.blog)
    told()
    comment = Comment.objects.create(page=site.first, user=anna, text="@bert and @nobody, look", contentpath="title")
    comment.log_create(user=anna)
    assert [event["type"] for _, event in told()] == ["comment.created"]
    assert bert.is_active


def test_who_reviews_a_page_follows_it_until_the_review_is_over(site: Site, editor_of: Any, orders: Any, admin: Any) -> None:
    bert = editor_of("bert", site.blog)
    chain = site.key(site.home, site.news, site.first)
    client = Client()
    client.login(username="bert", password="secret")
    asked = {"topic": [f"content:{chain}", f"content:{site.key(site.home, site.news, site.second)}", "content:x", "comments:1"]}
    assert f"content:{chain}" not in _claims(client, asked)["topics"]
    task = GroupApprovalTask.objects.create(name="Check")
    task.groups.add(bert.groups.get())
    workflow = Workflow.objects.create(name="Check")
    WorkflowTask.objects.create(workflow=workflow, task=task, sort_order=0)
    site.first.save_revision()
    workflow.start(site.first, admin)
    topics = _claims(client, asked)["topics"]
    assert {f"content:{chain}", f"comments:{chain}", f"tree:{chain}", f"tree:{site.key(site.home, site.news)}", "tree:root"} <= set(topics)
    assert not any(str(site.second.pk) in topic for topic in topics)
    assert f"content:{chain}" not in _claims(client)["topics"], "granted to who names it"
    orders()
    site.first.current_workflow_state.cancel(user=admin)
    assert ("/refresh", {"user": str(bert.pk)}) in orders()
    assert f"content:{chain}" not in _claims(client, asked)["topics"]


def _claims(client: Client, asked: dict[str, list[str]] | None = None) -> dict[str, Any]:
    import jwt

    answer = client.get("/cms/admin/carillon/token/", asked)
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = jwt.decode(answer.content.decode(), "0123456789abcdef0123456789abcdef", algorithms=["HS256"])
    return found
