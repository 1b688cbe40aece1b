"""The outbox with real processes: instances that share a database, a real Redis, faults in between."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .cms import PACKAGE, Site, site
from .servers import RedisServer, carillon, eventually, free_port, has_mariadb, has_postgres, mariadb, postgres

SQLITE = {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"}}


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    if request.param == "sqlite":
        yield {**SQLITE, "NAME": str(tmp_path / "db.sqlite3")}
        return
    if request.param == "mysql":
        if not has_mariadb():
            pytest.skip("MariaDB is not installed (apt install mariadb-server)")
        with mariadb() as port:
            yield {"ENGINE": "django.db.backends.mysql", "NAME": "tests", "USER": "root", "HOST": "127.0.0.1", "PORT": port}
        return
    if not has_postgres():
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    with postgres() as port:
        yield {"ENGINE": "django.db.backends.postgresql", "NAME": "tests", "USER": "tester", "HOST": "127.0.0.1", "PORT": port}


@pytest.fixture
def cms(database: dict[str, Any], own_redis: RedisServer) -> Iterator[Site]:
    with site(database, own_redis.url) as found:
        yield found


def saved(server: RedisServer, key: object = "page") -> list[int]:
    """The items that were told, in the order of the log."""
    return [json.loads(fields["event"])["data"]["item"] for _, fields in server.client().xrange(f"carillon:content:{key}")]


def test_all_changes_of_two_instances_arrive_once_and_in_order(cms: Site, own_redis: RedisServer) -> None:
    one, two = cms.start(), cms.start()
    for number in range(30):
        (one if number % 2 else two).save(f"item-{number}")
    eventually(lambda: len(saved(own_redis)) >= 30)
    assert saved(own_redis) == list(range(1, 31))
    eventually(lambda: cms.waiting() == 0)


def test_it_works_behind_an_asgi_server(cms: Site, own_redis: RedisServer) -> None:
    """Threads of their own for each request, and requests side by side: each has its own origin."""
    one = cms.start(asgi=True)
    assert one.get("/start") == {"drainer": True}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: one.save(f"item-{number}", origin=f"tab-{number}"), range(24)))
    eventually(lambda: len(saved(own_redis)) >= 24 and cms.waiting() == 0)
    events = [json.loads(fields["event"]) for _, fields in own_redis.client().xrange("carillon:content:page")]
    names = dict(line.split("=") for line in cms.run("from tests.shop.models import Item; print(*(f'{i.pk}={i.name}' for i in Item.objects.all()))").split())
    assert sorted(names.values()) == sorted(f"item-{number}" for number in range(24))
    assert all(names[str(event["data"]["item"])].replace("item", "tab") == event["origin"] for event in events)
    assert len({event["id"] for event in events}) == 24


def test_a_change_that_is_rolled_back_is_not_told(cms: Site) -> None:
    count = cms.run(
        "from django.db import transaction\n"
        "from carillon_notify.django import emit\n"
        "from carillon_notify.django.models import OutboxRow\n"
        "try:\n"
        "    with transaction.atomic():\n"
        "        emit('content:1', 'content.saved')\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    print(OutboxRow.objects.count())",
        DRAINER="command",
    )
    assert count == "0"


def test_an_event_costs_one_insert(cms: Site) -> None:
    statements = cms.run(
        "from django.db import connection, transaction\n"
        "from django.test.utils import CaptureQueriesContext\n"
        "from carillon_notify.django.outbox import emit_many\n"
        "with transaction.atomic(), CaptureQueriesContext(connection) as seen:\n"
        "    emit_many([(['content:1', 'tree:2'], {'type': 'content.moved'}), ('tree:3', {'type': 'tree.changed'})])\n"
        "print([query['sql'].split()[0] for query in seen])",
        DRAINER="command",
    )
    assert statements == "['INSERT']"


def test_nothing_is_lost_while_redis_is_away(cms: Site, own_redis: RedisServer) -> None:
    one = cms.start()
    one.save("before")
    eventually(lambda: saved(own_redis) == [1] and cms.waiting() == 0)
    own_redis.stop()
    for number in range(5):
        one.save(f"away-{number}")
    assert cms.waiting() == 5
    own_redis.start()
    eventually(lambda: len(saved(own_redis)) >= 6)
    assert saved(own_redis) == [1, 2, 3, 4, 5, 6]


def test_another_instance_goes_on_for_one_that_is_cut_off(cms: Site, own_redis: RedisServer) -> None:
    cut_off = cms.start(REDIS=f"redis://127.0.0.1:{free_port()}")
    cut_off.save("from-the-one-that-is-cut-off")
    assert saved(own_redis) == []
    cms.start()
    eventually(lambda: saved(own_redis) == [1])
    for number in range(5):
        cut_off.save(f"more-{number}")
    eventually(lambda: len(saved(own_redis)) >= 6)
    assert saved(own_redis) == [1, 2, 3, 4, 5, 6]


def test_a_drainer_that_was_killed_holds_nobody_up(cms: Site, own_redis: RedisServer) -> None:
    cms.run(
        "from carillon_notify.django import emit, lease\n"
        "emit('content:page', 'content.saved', {'item': 7})\n"
        "assert lease.acquire('cms', 'somebody who was killed')",
        DRAINER="command",
    )
    cms.start()
    eventually(lambda: saved(own_redis) == [7])


def test_a_drainer_that_is_killed_in_the_middle_loses_nothing_and_repeats_nothing(cms: Site, own_redis: RedisServer) -> None:
    cms.run("from carillon_notify.django import emit\n[emit('content:page', 'content.saved', {'item': number}) for number in range(600)]", DRAINER="command")
    command = [sys.executable, "-m", "django", "carillon_outbox"]
    first = subprocess.Popen(command, cwd=PACKAGE, env=cms.environment(DRAINER="command"))
    client = own_redis.client()
    eventually(lambda: client.xlen("carillon:content:page") >= 50)
    first.kill()
    first.wait()
    told = client.xlen("carillon:content:page")
    others = [subprocess.Popen(command, cwd=PACKAGE, env=cms.environment(DRAINER="command")) for _ in range(2)]
    try:
        eventually(lambda: cms.waiting() == 0)
    finally:
        for other in others:
            other.terminate()
    assert told < 600, "it was killed in the middle"
    assert saved(own_redis) == list(range(600))
    assert [other.wait(30) for other in others] == [0, 0]


def test_what_carillon_refuses_is_dropped_and_holds_nothing_up(cms: Site, own_redis: RedisServer) -> None:
    cms.run(
        "from carillon_notify.django import emit\n"
        "emit('nowhere:1', 'content.saved')\n"
        "emit('content:page', 'Not A Type')\n"
        "emit('content:page', 'content.saved', {'item': 7})",
        DRAINER="command",
    )
    told = cms.manage("carillon_outbox", "--once", DRAINER="command")
    assert "nothing waits" in told.stdout
    assert "nowhere" in told.stderr and "Not A Type" not in told.stdout
    assert saved(own_redis) == [7] and cms.waiting() == 0


def publisher_of_content(server: RedisServer) -> str:
    """A user who may publish to the area `content` alone, as the address to connect with."""
    text = subprocess.run([carillon(), "redis-function", "--acl", "--areas", "content"], check=True, capture_output=True, text=True).stdout
    rights = next(line for line in text.splitlines() if line.startswith("ACL SETUSER carillon-publisher"))
    server.client().execute_command(*rights.replace("CHANGE-ME", "a-password").split())
    return f"redis://carillon-publisher:a-password@127.0.0.1:{server.port}"


def test_an_area_that_this_user_may_not_publish_to_holds_up_no_other(cms: Site, own_redis: RedisServer) -> None:
    own = publisher_of_content(own_redis)
    code = (
        "from carillon_notify.django import drain, emit\n"
        "from carillon_notify.django.drainer import Drainer\n"
        "from carillon_notify import Refused\n"
        "drain.BATCH = 2\n"
        "[emit('comments:1', 'comment.created') for _ in range(3)]\n"
        "[emit('content:page', 'content.saved', {'item': number}) for number in (1, 2, 3)]\n"
        "try:\n"
        "    Drainer().work()\n"
        "except Refused as error:\n"
        "    print('rights' in str(error))"
    )
    assert cms.run(code, DRAINER="command", REDIS=own) == "True"
    assert saved(own_redis) == [1, 2, 3] and cms.waiting() == 3


def test_a_topic_whose_slot_stays_half_moved_holds_up_no_other(cms: Site) -> None:
    code = (
        "from redis import ResponseError\n"
        "from carillon_notify import Unavailable\n"
        "from carillon_notify.django import drain, emit\n"
        "from carillon_notify.errors import Result\n"
        "class HalfMoved:\n"
        "    asked, told = [], []\n"
        "    def publish(self, messages, patience):\n"
        "        self.asked += messages\n"
        "        return [self.lacking() if 'comments:1' in message.topics else self.take(message) for message in messages]\n"
        "    def lacking(self):\n"
        "        error = Unavailable('moving')\n"
        "        error.__cause__ = ResponseError('TRYAGAIN this topic is moving')\n"
        "        return Result((), error, {'comments:1': error})\n"
        "    def take(self, message):\n"
        "        self.told.append(message.topics[0])\n"
        "        return Result(('1-1',), None)\n"
        "drain.BATCH, publisher = 2, HalfMoved()\n"
        "[emit('comments:1', 'comment.created') for _ in range(5)]\n"
        "emit('content:page', 'content.saved')\n"
        "try:\n"
        "    drain.drain(publisher, 'me')\n"
        "except Unavailable:\n"
        "    print(publisher.told, len(publisher.asked))"
    )
    assert cms.run(code, DRAINER="command") == "['content:page'] 3"
    assert cms.waiting() == 5


def test_what_is_kept_back_in_one_topic_is_not_published_again_in_the_others(cms: Site, own_redis: RedisServer) -> None:
    own = publisher_of_content(own_redis)
    code = (
        "import json\n"
        "from carillon_notify.django import emit\n"
        "from carillon_notify.django.drainer import Drainer\n"
        "from carillon_notify.django.models import OutboxRow\n"
        "from carillon_notify import Refused\n"
        "emit(['content:page', 'comments:1', 'nowhere:1'], 'content.saved', {'item': 1})\n"
        "try:\n"
        "    Drainer().work()\n"
        "except Refused:\n"
        "    print(json.loads(OutboxRow.objects.get().entries)[0][0])"
    )
    assert cms.run(code, DRAINER="command", REDIS=own) == "['comments:1', 'nowhere:1']"
    assert saved(own_redis) == [1]


def test_a_row_that_cannot_be_read_is_dropped(cms: Site, own_redis: RedisServer) -> None:
    told = cms.manage(
        "shell", "--no-imports", "-c",
        "from carillon_notify.django import emit\n"
        "from carillon_notify.django.models import OutboxRow\n"
        "from carillon_notify.django.drainer import Drainer\n"
        "[OutboxRow.objects.create(entries=text) for text in ('no JSON', '{}', '[1]', '[]')]\n"
        "emit('content:page', 'content.saved', {'item': 2})\n"
        "Drainer().work()",
        DRAINER="command",
    )
    assert "cannot be read" in told.stderr
    assert saved(own_redis) == [2] and cms.waiting() == 0


def test_rows_that_are_too_old_are_dropped_and_logged(cms: Site, own_redis: RedisServer) -> None:
    told = cms.manage(
        "shell", "--no-imports", "-c",
        "from datetime import timedelta\n"
        "from django.db.models import F\n"
        "from carillon_notify.django import emit\n"
        "from carillon_notify.django.models import OutboxRow\n"
        "from carillon_notify.django.drainer import Drainer\n"
        "emit('content:page', 'content.saved', {'item': 1})\n"
        "OutboxRow.objects.update(created=F('created') - timedelta(days=2))\n"
        "emit('content:page', 'content.saved', {'item': 2})\n"
        "Drainer().work()",
        DRAINER="command", REPORT=False,
    )
    assert "1 rows since" in told.stderr
    assert saved(own_redis) == [2]


def test_switched_off_leaves_a_plain_cms(cms: Site, own_redis: RedisServer) -> None:
    plain = cms.start(ENABLED=False)
    plain.save("item")
    assert plain.get("/start") == {"drainer": False}
    assert cms.waiting() == 0 and saved(own_redis) == []


def test_commands_start_no_drainer_and_serving_processes_do_after_their_fork(cms: Site) -> None:
    code = (
        "import os, threading\n"
        "from django.core.signals import request_started\n"
        "names = lambda: [t.name for t in threading.enumerate() if t.name == 'carillon-outbox']\n"
        "assert names() == []\n"
        "request_started.send(None)\n"
        "assert len(names()) == 1\n"
        "if os.fork() == 0:\n"
        "    assert names() == []\n"
        "    request_started.send(None)\n"
        "    print('in the child:', len(names()), flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()"
    )
    assert cms.run(code) == "in the child: 1"
