"""Orders to the nodes, which are carried out beside the outbox and never in its way."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .cms import Site, site
from .servers import RedisServer, eventually

SIGN_OUT = "from carillon_notify.django import nodes; nodes.disconnect(jti={jti!r})"


class Nodes:
    """The internal listener of a node, as far as orders go: what it was told, and what it answers."""

    def __init__(self, answer: int) -> None:
        self.answer, self.told = answer, list[Any]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.told.append((self.path, body, self.headers["Authorization"]))
                self.send_response(outer.answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def a_node(answer: int = 204) -> Iterator[Nodes]:
    node = Nodes(answer)
    thread = threading.Thread(target=node.server.serve_forever)
    thread.start()
    try:
        yield node
    finally:
        node.server.shutdown()
        node.server.server_close()
        thread.join()


def orders_of(cms: Site) -> int:
    return int(cms.run("from carillon_notify.django.models import NodeOrder; print(NodeOrder.objects.count())"))


def database(tmp_path: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db.sqlite3"), "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }


def test_an_order_is_carried_out_and_one_that_is_wrong_is_dropped(tmp_path: Path, store: RedisServer) -> None:
    with a_node() as node, site(database(tmp_path), store.url, NODES=[node.url + "/"], NODE_TOKEN="a token of the nodes") as cms:
        cms.start()
        cms.run(SIGN_OUT.format(jti="one"))
        eventually(lambda: node.told)
        assert node.told == [("/disconnect", {"jti": "one"}, "Bearer a token of the nodes")]
        eventually(lambda: orders_of(cms) == 0)
        node.answer = 400
        cms.run(SIGN_OUT.format(jti="two"))
        eventually(lambda: len(node.told) == 2 and orders_of(cms) == 0)


def test_an_order_waits_for_a_token_that_is_put_right(tmp_path: Path, store: RedisServer) -> None:
    with a_node(answer=401) as node, site(database(tmp_path), store.url, NODES=[node.url], NODE_TOKEN="a wrong one") as cms:
        cms.start()
        cms.run(SIGN_OUT.format(jti="one"))
        eventually(lambda: len(node.told) >= 2)
        assert orders_of(cms) == 1
        node.answer = 204
        eventually(lambda: orders_of(cms) == 0)


def test_an_order_is_given_up_when_the_token_it_is_about_has_ended(tmp_path: Path, store: RedisServer) -> None:
    with a_node(answer=503) as node, site(database(tmp_path), store.url, NODES=[node.url]) as cms:
        code = (
            "from datetime import timedelta\n"
            "from django.db.models import F\n"
            "from carillon_notify.django import nodes\n"
            "from carillon_notify.django.models import NodeOrder\n"
            "nodes.disconnect(user=7)\n"
            "NodeOrder.objects.update(created=F('created') - timedelta(seconds=700))\n"
            "nodes.deliver()\n"
            "print(NodeOrder.objects.count())"
        )
        done = cms.manage("shell", "--no-imports", "-c", code)
        assert done.stdout.strip() == "0" and "no node has taken 1 orders" in done.stderr
        assert node.told == []


def test_nodes_that_do_not_answer_hold_up_no_event(tmp_path: Path, store: RedisServer) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        nowhere = f"http://127.0.0.1:{silent.getsockname()[1]}"
        # Ten of them: whoever waited for all would be late.
        with site(database(tmp_path), store.url, NODES=[nowhere] * 10) as cms:
            one = cms.start()
            cms.run(SIGN_OUT.format(jti="one"))
            eventually(lambda: silent.accept())
            for number in range(5):
                one.save(f"item-{number}")
            client = store.client()
            eventually(lambda: client.xlen("carillon:content:page") == 5, 10)
            # And the source is vouched for: nothing is late.
            eventually(lambda: client.hget("carillon:sources", "cms"), 10)
            assert orders_of(cms) == 1
