"""Two editors of one site, on two instances without sticky sessions, in two browsers: each sees the other work."""

import json
import re

import pytest
from playwright.sync_api import expect

from conftest import body_of, write

from kit.stage import wait_for
from kit.wagtail_editors import Account


def comment(tab, text):
    """Comments on the body, as an editor does."""
    tab.locator("[data-side-panel-toggle=comments]").click()
    field = tab.locator("#panel-child-content-body-section")
    field.hover()
    field.locator("[data-comment-add]").first.click()
    tab.locator("#comments textarea").first.fill(text)
    tab.get_by_role("button", name="Comment", exact=True).click()


def reply(tab, text):
    """Answers in the first thread."""
    tab.locator("#comments .comment").first.click()
    tab.locator("#comments textarea").first.fill(text)
    tab.get_by_role("button", name="Reply", exact=True).click()


def test_a_fresh_project_with_the_settings_of_the_readme_has_nothing_to_complain_of(site, pages):
    assert "no issues" in site.manage("check")
    assert "[X] 0001_initial" in site.manage("showmigrations", "wagtail_carillon")


def test_a_save_is_seen_by_who_has_the_page_open(site, pages, editors):
    anna, bert = editors("anna", "bert")
    writes, reads = anna.edit(pages["pages"][0]), bert.edit(pages["pages"][0])
    write(writes, "Second words.")
    note = reads.locator("#carillon-newer")
    expect(note).to_contain_text("Anna saved a new version.")
    # Autosave goes on in the same revision: whoever has read that one is told of what came after, too.
    note.get_by_role("button", name="Reload").click()
    expect(body_of(reads)).to_have_value("Second words.")
    expect(reads.locator(".carillon-badge")).to_have_text("In sync")
    expect(note).to_have_count(0)
    write(writes, "Third words.")
    expect(note).to_contain_text("Anna saved a new version.")
    # Who wrote it is not told of their own work.
    expect(writes.locator(".carillon-note")).to_have_count(0)
    # The other way round: who came second writes.
    expect(note).to_contain_text("Anna saved a new version.")
    note.get_by_role("button", name="Reload").click()
    expect(body_of(reads)).to_have_value("Third words.")
    write(reads, "Fourth words.")
    expect(writes.locator("#carillon-newer")).to_contain_text("Bert saved a new version.")


def test_comments_appear_in_place_and_replies_under_them_are_saved(site, pages, editors):
    anna, bert = editors("anna", "bert")
    page = pages["pages"][1]
    hers, his = anna.edit(page), bert.edit(page)
    comment(hers, "A thought.")
    his.locator("[data-side-panel-toggle=comments]").click()
    expect(his.locator("#comments")).to_contain_text("A thought.")
    reply(his, "A reply.")
    expect(hers.locator("#comments")).to_contain_text("A reply.")
    reply(hers, "An answer.")
    expect(his.locator("#comments")).to_contain_text("An answer.")
    for tab in (hers, his):
        expect(tab.locator(".carillon-note")).to_have_count(0)
    held = site.python(f"""
import json
from wagtail.models import Comment
comment = Comment.objects.get(page={page})
print(json.dumps([comment.text, *comment.replies.order_by("pk").values_list("text", flat=True)]))
""")
    assert held == ["A thought.", "A reply.", "An answer."]


def test_a_comment_comes_while_somebody_writes_one(site, pages, editors):
    anna, bert = editors("anna", "bert")
    page = pages["pages"][2]
    hers, his = anna.edit(page), bert.edit(page)
    his.locator("[data-side-panel-toggle=comments]").click()
    field = his.locator("#panel-child-content-body-section")
    field.hover()
    field.locator("[data-comment-add]").first.click()
    his.locator("#comments textarea").first.fill("Half a thought")
    comment(hers, "A thought.")
    expect(his.locator("#carillon-comments")).to_contain_text("They show when yours is saved.")
    expect(his.locator("#comments textarea").first).to_have_value("Half a thought")
    his.get_by_role("button", name="Comment", exact=True).click()
    for tab in (hers, his):
        expect(tab.locator("#comments")).to_contain_text("A thought.")
        expect(tab.locator("#comments")).to_contain_text("Half a thought")
    expect(his.locator("#carillon-comments")).to_have_count(0)


def test_rows_of_the_explorer_change(site, pages, editors):
    anna, bert = editors("anna", "bert")
    page = pages["pages"][3]
    rows = bert.open(f"/admin/pages/{pages['section']}/")
    row = rows.locator("#listing-results tr", has_text="Page 4").first
    expect(row).to_contain_text(re.compile("live", re.I))
    hers = anna.open(f"/admin/pages/{page}/unpublish/")
    hers.get_by_role("button", name=re.compile("unpublish", re.I)).click()
    expect(row).to_contain_text(re.compile("draft", re.I))
    # Under the hands of somebody who has chosen rows, nothing changes until they say so.
    rows.locator("#listing-results tbody input[type=checkbox]").first.check()
    site.python(f"from wagtail.models import Page; Page.objects.get(pk={page}).specific.save_revision(log_action=True).publish(); print(1)")
    note = rows.locator("#carillon-listing")
    expect(note).to_contain_text("Something has changed here.")
    expect(row).to_contain_text(re.compile("draft", re.I))
    note.get_by_role("button", name="Show").click()
    expect(row).to_contain_text(re.compile("live", re.I))
    expect(note).to_have_count(0)


def test_the_bell_and_the_dashboard_follow_a_review(site, pages, editors):
    site.python(f"""
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
Group.objects.get(name="Moderators").user_set.add(*get_user_model().objects.filter(username__in=["bert", "cleo"]))
print(1)
""")
    anna, bert = editors("anna", "bert")
    start = bert.open("/admin/")
    bell = start.locator(".carillon-bell")
    expect(bell).to_have_attribute("data-unread", re.compile(r"\d+"))
    before = int(bell.get_attribute("data-unread"))
    panel = start.get_by_role("region", name="Awaiting your review")
    expect(panel).to_have_count(0)
    hers = anna.edit(pages["pages"][4])
    hers.locator("nav[aria-label*=footer]").get_by_role("button", name="More actions").click()
    hers.get_by_role("button", name=re.compile("^Submit to")).click()
    expect(panel).to_contain_text("Page 5")
    expect(bell).to_have_attribute("data-unread", str(before + 1))
    bell.click()
    expect(start.locator(".carillon-list li").first).to_contain_text("Anna asks you to review “Page 5”")
    expect(bell).to_have_attribute("data-unread", "0")
    # Approved by another reviewer: it leaves this dashboard too.
    site.python(f"""
from django.contrib.auth import get_user_model
from wagtail.models import Page
page = Page.objects.get(pk={pages['pages'][4]})
task = page.current_workflow_task_state
task.task.specific.on_action(task, get_user_model().objects.get(username="cleo"), "approve")
print(1)
""")
    expect(panel).to_have_count(0)


def test_a_page_is_moved_locked_and_deleted_under_its_editor(site, pages, editors):
    (bert,) = editors("bert")
    page = pages["pages"][5]
    tab = bert.edit(page)
    run = "from django.contrib.auth import get_user_model; from wagtail.models import Page; page = Page.objects.get(pk={page}); anna = get_user_model().objects.get(username='anna'); {what}; print(1)"
    lock = "page.locked = True; page.locked_by = anna; page.save(user=anna, log_action='wagtail.lock')"
    site.python(run.format(page=page, what=lock))
    expect(tab.locator("#carillon-locked")).to_contain_text("locked")
    move = f"from wagtail.actions.move_page import MovePageAction; MovePageAction(page, Page.objects.get(pk={pages['home']}), pos='last-child', user=anna).execute()"
    site.python(run.format(page=page, what=move))
    expect(tab.locator("#carillon-moved")).to_contain_text("/page-6/")
    # It is followed at its new place.
    site.python(run.format(page=page, what="page.delete(user=anna)"))
    expect(tab.locator("#carillon-gone")).to_contain_text("This page has been deleted.")


def test_what_cannot_be_read_is_said_and_read_again(site, pages, editors):
    anna, bert = editors("anna", "bert")
    page = pages["pages"][6]
    hers, his = anna.edit(page), bert.edit(page)
    answers = {"status": 502}
    his.route("**/carillon/pages/*/state/**", lambda route: route.fulfill(status=502) if answers["status"] == 502 else route.continue_())
    write(hers, "Other words.")
    expect(his.locator(".carillon-badge")).to_contain_text("Not in sync since")
    answers["status"] = 200
    expect(his.locator("#carillon-newer")).to_contain_text("Anna saved a new version.")
    expect(his.locator(".carillon-badge")).to_have_text("In sync")
    bert.said.clear()


def test_an_instance_is_killed_and_everybody_goes_on(site, pages, editors):
    anna, bert = editors("anna", "bert")
    page = pages["pages"][7]
    hers, his = anna.edit(page), bert.edit(page)
    site.instances[0].kill()
    try:
        write(hers, "Words without the first instance.")
        expect(his.locator("#carillon-newer")).to_contain_text("Anna saved a new version.")
        expect(his.locator(".carillon-badge")).to_have_text("In sync")
    finally:
        site.instances[0].start()
        site.instances[0].ready()
    for editor in (anna, bert):
        editor.said.clear()


def test_signing_out_is_said_in_every_tab_of_that_browser(site, pages, editors):
    (anna,) = editors("anna")
    one, other = anna.open("/admin/"), anna.edit(pages["pages"][8])
    csrf = one.evaluate("JSON.parse(document.getElementById('wagtail-config').textContent).CSRF_TOKEN")
    one.request.post(site.url + "/admin/logout/", headers={"X-CSRFToken": csrf, "Referer": site.url + "/admin/"})
    expect(other.locator(".carillon-badge")).to_contain_text("Signed out")
    # What it was just reading got the sign-in page for an answer, and it says so.
    anna.said.clear()


@pytest.mark.parametrize("number", [0, 1])
def test_an_instance_without_redis_is_stood_in_for_by_the_other(site, pages, editors, number):
    (bert,) = editors("bert")
    page = pages["pages"][9 + number]
    his = bert.edit(page)
    instance = site.instances[number]
    # Through this instance, and no other.
    anna = Account(f"http://127.0.0.1:{instance.port}", "anna")
    fields = anna.form(page)
    gate = instance.gate
    gate.cut()
    try:
        assert anna.save(page, fields, body="Words through an instance that Redis does not hear.")
        expect(his.locator("#carillon-newer")).to_contain_text("Anna saved a new version.")
        expect(his.locator(".carillon-badge")).to_have_text("In sync")
    finally:
        gate.mend()
    wait_for("the outbox is empty", lambda: site.python("import json; from carillon_notify.django.models import OutboxRow; print(json.dumps(OutboxRow.objects.count()))") == 0, 30)


def test_a_log_entry_without_its_row_is_told_all_the_same_and_others_only_once(site, pages):
    """In autocommit an instance may die between the two; `bulk_create` writes an entry without Django's signals."""
    page = pages["pages"][11]
    written = site.python(f"""
import json
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone
from wagtail.models import Page, PageLogEntry
page = Page.objects.get(pk={page})
page.specific.save_revision(log_action=True)
entry = PageLogEntry(page=page, content_type=page.content_type, action="wagtail.lock", label="", timestamp=timezone.now(), data={{}})
PageLogEntry.objects.bulk_create([entry])
from wagtail_carillon.topics import chain_of, topic
print(json.dumps(topic("content", chain_of(page))))
""")

    def kinds():
        with site.client() as redis:
            return [json.loads(entry["event"])["type"] for _, entry in redis.xrange(f"carillon:{written}")]

    wait_for("the sweep tells of it", lambda: "content.locked" in kinds(), 60)
    # The sweep has passed the save before it, which was told already.
    assert kinds()[-2:] == ["content.saved", "content.locked"] and kinds().count("content.locked") == 1
