"""A user model of the site's own: UUIDs as keys, e-mail addresses as names, two of which differ in case only."""

import re

import pytest
from conftest import body_of, write
from playwright.sync_api import expect

from kit.wagtail_site import WagtailSite


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    found = WagtailSite(tmp_path_factory.mktemp("people"), nodes=1, sqlite=True, own_users=True)
    yield found
    found.close()


@pytest.fixture(scope="module")
def pages(site):
    return site.people("anna", "bert", "Bert", pages=2)


def bell_of(tab, unread):
    expect(tab.locator(".carillon-bell")).to_have_attribute("data-unread", str(unread))


def test_a_save_a_mention_and_a_sign_out(site, pages, editors):
    anna, bert, other = editors("anna", "bert", "Bert")
    page = pages["pages"][0]
    hers, his, theirs = anna.edit(page), bert.edit(page), other.edit(page)
    users = {tab.evaluate("window.carillon.rt.status.user") for tab in (hers, his, theirs)}
    assert len(users) == 3 and all(re.fullmatch(r"[0-9a-f-]{36}", user) for user in users), users
    write(hers, "Words of Anna.")
    for tab in (his, theirs):
        expect(tab.locator("#carillon-newer")).to_contain_text("Anna saved a new version.")
    his.locator("#carillon-newer").get_by_role("button", name="Reload").click()
    expect(body_of(his)).to_have_value("Words of Anna.")
    # Names that differ in case only are two people: one of them is mentioned.
    site.python(f"""
from django.contrib.auth import get_user_model
from wagtail.models import Comment, Page
page = Page.objects.get(pk={page})
anna = get_user_model().objects.get(email="anna@example.com")
comment = Comment.objects.create(page=page, user=anna, text="Look here, @bert@example.com.", contentpath="body")
comment.log_create(user=anna)
print(1)
""")
    bell_of(his, 1)
    his.locator(".carillon-bell").click()
    expect(his.locator(".carillon-list li").first).to_contain_text("Anna mentioned you on “Page 1”")
    bell_of(his, 0)
    bell_of(theirs, 0)
    csrf = his.evaluate("JSON.parse(document.getElementById('wagtail-config').textContent).CSRF_TOKEN")
    his.request.post(site.url + "/admin/logout/", headers={"X-CSRFToken": csrf, "Referer": site.url + "/admin/"})
    expect(his.locator(".carillon-badge")).to_contain_text("Signed out")
    expect(theirs.locator(".carillon-badge")).to_have_text("In sync")
    bert.said.clear()


def test_an_account_that_is_switched_off_is_signed_out(site, pages, editors):
    (bert,) = editors("bert")
    tab = bert.edit(pages["pages"][1])
    site.python("""
from django.contrib.auth import get_user_model
bert = get_user_model().objects.get(email="bert@example.com")
bert.is_active = False
bert.save()
print(1)
""")
    expect(tab.locator(".carillon-badge")).to_contain_text("Signed out")
    bert.said.clear()
