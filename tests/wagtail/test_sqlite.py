"""A new project as it comes, on SQLite, with the line that the README has for it: every save succeeds, and is told."""

import json
import threading

from kit.stage import wait_for
from kit.wagtail_editors import Account
from kit.wagtail_site import WagtailSite

SAVES = 20


def test_every_save_succeeds_while_events_are_published(tmp_path):
    site = WagtailSite(tmp_path / "sqlite", nodes=1, sqlite=True)
    try:
        pages = site.people("anna", "bert", pages=2)["pages"]
        wrong = []

        def work(name, page):
            account = Account(site.url, name)
            fields = account.form(page)
            for number in range(SAVES):
                try:
                    assert account.save(page, fields, body=f"Words, number {number}."), "refused"
                except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                    wrong.append(repr(error))

        people = [threading.Thread(target=work, args=(name, page)) for name, page in zip(("anna", "bert"), pages)]
        for person in people:
            person.start()
        for person in people:
            person.join()
        assert wrong == []

        def told():
            with site.client() as redis:
                keys = [key for key in redis.scan_iter("carillon:content:*") if key.rsplit("/", 1)[-1] in map(str, pages) and redis.type(key) == "stream"]
                events = [json.loads(fields["event"]) for key in keys for _, fields in redis.xrange(key)]
            return sum(event["type"] == "content.saved" for event in events) == 2 * SAVES

        wait_for("every save is told, once", told, 60)
    finally:
        site.close()
