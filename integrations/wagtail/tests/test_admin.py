"""Grants, the script on admin pages, and what the pages ask for."""

import json
from typing import Any

import jwt
from django.contrib.auth import get_user_model
from django.test import Client, override_settings
from wagtail.models import Comment
from wagtail_carillon.checks import check_nodes

from .conftest import Site

SECRET = "0123456789abcdef0123456789abcdef"


def signed_in(name: str) -> Client:
    client = Client()
    assert client.login(username=name, password="secret")
    return client


def topics_of(name: str) -> list[str]:
    answer = signed_in(name).get("/cms/admin/carillon/token/")
    topics: list[str] = jwt.decode(answer.content.decode(), SECRET, algorithms=["HS256"])["topics"]
    return topics


def test_an_editor_of_one_subtree_gets_its_prefixes_and_nothing_else(site: Site, editor_of: Any) -> None:
    editor_of("anna", site.news)
    key = site.key(site.home, site.news)
    assert topics_of("anna") == sorted([
        f"comments:{key}", f"comments:{key}/*", f"content:{key}", f"content:{key}/*",
        f"tree:{key}", f"tree:{key}/*", f"tree:{site.home.pk}", "tree:root",
    ])


def test_names_that_differ_in_case_only_are_two_people(site: Site, editor_of: Any) -> None:
    first, second = editor_of("maria", site.news), editor_of("Maria", site.blog)
    assert first.pk != second.pk
    assert not set(topics_of("maria")) & set(topics_of("Maria")) - {"tree:root", f"tree:{site.home.pk}"}


def test_an_administrator_may_follow_all_pages(site: Site, admin: Any) -> None:
    assert topics_of("Boss") == ["content:*", "comments:*", "tree:*"]


def test_whoever_has_no_access_to_the_admin_gets_no_token(site: Site) -> None:
    get_user_model().objects.create_user("visitor", "v@example.com", "secret")
    answer = signed_in("visitor").get("/cms/admin/carillon/token/")
    assert answer.status_code in (302, 403)
    assert Client().get("/cms/admin/carillon/token/").status_code == 302


def test_an_admin_page_brings_the_script_and_no_inline_code(site: Site, admin: Any) -> None:
    page = signed_in("Boss").get("/cms/admin/").content.decode()
    assert 'type="module" src="/static/wagtail_carillon/admin.js"' in page
    settings = page.split('id="carillon-settings" type="application/json">')[1].split("</script>")[0]
    assert json.loads(settings)["base"] == "/cms/admin/carillon/"
    with override_settings(CARILLON={"ENABLED": False}):
        assert "wagtail_carillon" not in signed_in("Boss").get("/cms/admin/").content.decode()


def test_the_state_of_a_page_has_the_editors_own_rights(site: Site, admin: Any, editor_of: Any) -> None:
    editor_of("anna", site.blog)
    address = f"/cms/admin/carillon/pages/{site.first.pk}/state/"
    state = signed_in("Boss").get(address).json()
    assert state["exists"] and state["published"] and not state["locked"]
    assert state["topics"]["content"] == f"content:{site.key(site.home, site.news, site.first)}"
    assert state["topics"]["tree"][:2] == ["tree:root", f"tree:{site.home.pk}"]
    assert signed_in("anna").get(address).status_code == 404
    assert signed_in("Boss").get("/cms/admin/carillon/pages/999999/state/").json() == {"exists": False}


def test_the_hash_of_a_page_changes_with_its_content_and_not_with_comments(site: Site, admin: Any) -> None:
    address = f"/cms/admin/carillon/pages/{site.first.pk}/state/"
    client = signed_in("Boss")
    before = client.get(address).json()
    site.first.wagtail_admin_comments.add(Comment(user=admin, text="A thought", contentpath="title"))
    site.first.save_revision(user=admin)
    commented = client.get(address).json()
    assert commented["revision"] != before["revision"] and commented["hash"] == before["hash"]
    site.first.body = "other words"
    site.first.save_revision(user=admin)
    assert client.get(address).json()["hash"] != before["hash"]


def test_the_hash_of_ones_own_autosave_is_told(site: Site, admin: Any) -> None:
    mine = site.first.save_revision(user=admin)
    site.first.body = "other words"
    site.first.save_revision(user=admin)
    address = f"/cms/admin/carillon/pages/{site.first.pk}/state/"
    state = signed_in("Boss").get(f"{address}?mine={mine.pk}").json()
    assert state["mine_hash"] and state["mine_hash"] != state["hash"]
    assert signed_in("Boss").get(f"{address}?mine=999999").json()["mine_hash"] is None
    assert "mine_hash" not in signed_in("Boss").get(f"{address}?mine=x").json()


def test_comments_are_read_as_wagtails_editor_does(site: Site, admin: Any) -> None:
    Comment.objects.create(page=site.first, user=admin, text="A thought", contentpath="title")
    found = signed_in("Boss").get(f"/cms/admin/carillon/pages/{site.first.pk}/state/?comments=1").json()
    assert [comment["text"] for comment in found["comments"]["comments"]] == ["A thought"]


def test_the_bell_lists_and_reads(site: Site, admin: Any, editor_of: Any, told: Any) -> None:
    editor_of("anna", site.home)
    comment = Comment.objects.create(page=site.first, user=admin, text="@anna look", contentpath="title")
    comment.log_create(user=admin)
    told()
    client = signed_in("anna")
    bell = client.get("/cms/admin/carillon/bell/").json()
    assert bell["unread"] == 1 and bell["items"][0]["page"] == site.first.pk
    assert "mentioned you on" in bell["items"][0]["text"] and "Secret title of first" in bell["items"][0]["text"]
    assert client.post("/cms/admin/carillon/bell/").json()["unread"] == 0
    (topics, event), = told()
    assert event["type"] == "notification.read_all" and event["data"] == {"unread": 0}
    client.post("/cms/admin/carillon/bell/")
    assert told() == [], "nothing was unread, so nothing is told"


def test_the_bell_has_no_title_of_a_page_that_one_may_not_see(site: Site, admin: Any, editor_of: Any) -> None:
    anna = editor_of("anna", site.home)
    Comment.objects.create(page=site.first, user=admin, text="@anna look", contentpath="title").log_create(user=admin)
    anna.groups.clear()
    anna.groups.set(editor_of("bert", site.blog).groups.all())
    (item,) = signed_in("anna").get("/cms/admin/carillon/bell/").json()["items"]
    assert item["page"] is None and "Secret title" not in item["text"]


def test_missing_nodes_are_named() -> None:
    with override_settings(CARILLON={"SECRET": SECRET}):
        assert [problem.id for problem in check_nodes()] == ["wagtail_carillon.W001"]
    for fine in ({"SECRET": SECRET, "NODES": ["http://carillon:9090"]}, {"ENABLED": False}):
        with override_settings(CARILLON=fine):
            assert check_nodes() == []
