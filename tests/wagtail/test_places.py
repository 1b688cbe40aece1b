"""Less common set-ups: two sites in one Wagtail, a strict content security policy, static files on another origin."""

import pytest
from conftest import write
from playwright.sync_api import expect

from kit.wagtail_site import WagtailSite

# Wagtail's own forms have a few inline scripts, which this policy stops; nothing of Carillon's may be among what it stops.
POLICY = """
class Policy:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        response["Content-Security-Policy"] = (
            "default-src 'self'; script-src 'self' {static}; style-src 'self' {static} 'unsafe-inline'; img-src 'self' data: {static}; "
            "font-src 'self' {static}; object-src 'none'; base-uri 'none'"
        )
        return response
"""
WATCH = """
window.stopped = [];
document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI, sourceFile }) =>
  window.stopped.push(`${violatedDirective} ${blockedURI} ${sourceFile}`));
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Static files come from another origin, under a strict policy. Two sites: 127.0.0.1 and localhost."""
    found = WagtailSite(tmp_path_factory.mktemp("places"), nodes=1, sqlite=True, static_elsewhere=True, policy=POLICY)
    yield found
    found.close()


@pytest.fixture(scope="module")
def pages(site):
    ids = site.people("anna", "bert", pages=2)
    other = site.python(f"""
import json
from home.models import HomePage
from wagtail.models import Page, Site
root = Page.get_first_root_node()
second = root.add_child(instance=HomePage(title="Second site", slug="second-site", body="First words."))
second.save_revision().publish()
Site.objects.create(hostname="localhost", port={site.port}, root_page=second, site_name="Second")
print(json.dumps(second.pk))
""")
    return {**ids, "second": other}


def test_two_sites_a_strict_policy_and_static_files_elsewhere(site, pages, editors):
    anna, bert = editors("anna", "bert")
    for editor in (anna, bert):
        editor.context.add_init_script(WATCH)
    # Bert is on the first site's address and has a page of the second one open. Anna saves it at the second site's address.
    his = bert.edit(pages["second"])
    scripts = his.evaluate("[...document.scripts].map(({ src }) => src).filter((src) => src.includes('wagtail_carillon'))")
    assert scripts and all(src.startswith(site.static_url) for src in scripts), scripts
    here = site.url.replace("127.0.0.1", "localhost")
    hers = anna.sign_in_at(here)
    hers.goto(f"{here}/admin/pages/{pages['second']}/edit/")
    expect(hers.locator(".carillon-badge")).to_have_text("In sync")
    write(hers, "Words for the second site.")
    expect(his.locator("#carillon-newer")).to_contain_text("Anna saved a new version.")
    # The note, the bell and the badge are made by scripts alone: nothing of it was stopped.
    for tab in (hers, his):
        tab.locator(".carillon-bell").wait_for()
        stopped = tab.evaluate("window.stopped")
        ours = [line for line in stopped if "carillon" in line or "realtime" in line]
        assert not ours, ours
    policy = his.request.get(f"{site.url}/admin/").headers["content-security-policy"]
    assert "script-src 'self' " + site.static_url.removesuffix("/static/") in policy
