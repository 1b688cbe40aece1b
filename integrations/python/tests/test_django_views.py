"""Checks, the token view and the middleware, in one process."""

import asyncio
import json
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django  # noqa: E402

django.setup()

from carillon_notify.django.checks import check_settings  # noqa: E402
from carillon_notify.django.middleware import CarillonMiddleware, current_origin  # noqa: E402
from carillon_notify.django.models import Lease, NodeOrder, OutboxRow  # noqa: E402
from carillon_notify.django.outbox import event_of  # noqa: E402
from carillon_notify.django.views import token  # noqa: E402
from carillon_notify.events import dumps  # noqa: E402
from django.db import connection  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import RequestFactory, override_settings  # noqa: E402

SECRET = "0123456789abcdef" * 2


class User:
    pk = 7
    is_authenticated = True


def grants(request: HttpRequest) -> dict[str, Any]:
    return {"topics": ["content:s1/*"]}


def no_grants(request: HttpRequest) -> None:
    return None


def ask_token(user: object) -> HttpResponse:
    request = RequestFactory().get("/carillon/token/")
    request.user = user  # type: ignore[assignment]
    return token(request)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"SECRET": SECRET}, []),
        ([], ["carillon.E001"]),
        ({"SECRET": SECRET, "SORCE": "x"}, ["carillon.E002"]),
        ({"SECRET": SECRET, "REDIS": "http://redis"}, ["carillon.E003"]),
        ({"SECRET": "short"}, ["carillon.E004"]),
        ({"SECRET": SECRET, "GRANTS": "nowhere.grants"}, ["carillon.E005"]),
        ({"SECRET": SECRET, "DRAINER": "both"}, ["carillon.E006"]),
        ({"SECRET": SECRET, "TOKEN_SECONDS": "600"}, ["carillon.E007"]),
        ({"SECRET": SECRET, "GRANTS": 7}, ["carillon.E005"]),
        ({"SECRET": SECRET, "GRANTS": "tests.test_django_views.SECRET"}, ["carillon.E005"]),
        ({"SECRET": SECRET, "ENABLED": "False"}, ["carillon.E010"]),
        ({"SECRET": SECRET, "REPORT": "no"}, ["carillon.E010"]),
        ({"SECRET": SECRET, "REDIS_OPTIONS": None}, ["carillon.E011"]),
        ({"SECRET": SECRET, "REDIS": "redis://redis:6379/cache"}, ["carillon.E003"]),
        ({"SECRET": SECRET, "REDIS": "redis://redis:70000"}, ["carillon.E003"]),
        ({"SECRET": SECRET, "SOURCE": "the cms"}, ["carillon.E012"]),
        ({"SECRET": SECRET, "SOURCE": None}, ["carillon.E012"]),
        ({"SECRET": SECRET, "PREFIX": "Carillon"}, ["carillon.E012"]),
        ({"SECRET": SECRET, "NODES": "http://carillon:9090"}, ["carillon.E013"]),
        ({"SECRET": SECRET, "NODES": ["carillon:9090"], "NODE_TOKEN": "x"}, ["carillon.E013"]),
        ({"SECRET": SECRET, "NODES": ["http://carillon:9090"]}, ["carillon.W003"]),
        ({"SECRET": SECRET, "NODES": ["http://carillon:9090"], "NODE_TOKEN": "x"}, []),
        ({}, ["carillon.W001"]),
        ({"ENABLED": False, "SECRET": "short"}, []),
    ],
)
def test_wrong_settings_are_found(settings: Any, expected: list[str]) -> None:
    with override_settings(CARILLON=settings):
        found = check_settings()
    assert [problem.id for problem in found] == expected
    assert SECRET not in " ".join(str(problem) for problem in found)


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        ({}, "site.sqlite3", ["carillon.E009"]),
        ({"transaction_mode": "DEFERRED"}, "site.sqlite3", ["carillon.E009"]),
        ({"transaction_mode": "immediate"}, "site.sqlite3", []),
        ({}, ":memory:", []),
    ],
)
def test_sqlite_must_begin_to_write_at_once(options: dict[str, str], name: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "vendor", "sqlite")
    monkeypatch.setitem(connection.settings_dict, "NAME", name)
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    with override_settings(CARILLON={"SECRET": SECRET}):
        found = check_settings()
    assert [problem.id for problem in found] == expected
    assert all('"IMMEDIATE"' in str(problem.hint) for problem in found)


def test_a_missing_middleware_is_found() -> None:
    with override_settings(MIDDLEWARE=[]):
        assert [problem.id for problem in check_settings()] == ["carillon.W002"]


def test_the_token_view() -> None:
    with override_settings(CARILLON={"SECRET": SECRET, "GRANTS": "tests.test_django_views.grants"}):
        answer = ask_token(User())
        claims = jwt.decode(answer.content.decode(), SECRET, algorithms=["HS256"])
        assert (claims["sub"], claims["topics"]) == ("7", ["content:s1/*"])
        assert "no-store" in answer["Cache-Control"]
        nobody = User()
        nobody.is_authenticated = False
        assert ask_token(nobody).status_code == 401
    with override_settings(CARILLON={"SECRET": SECRET, "GRANTS": no_grants}):
        assert ask_token(User()).status_code == 403
    with override_settings(CARILLON={"ENABLED": False}):
        assert ask_token(User()).status_code == 503


@pytest.fixture
def requests() -> Iterator[list[HttpRequest]]:
    factory = RequestFactory()
    yield [
        factory.post("/", headers={"X-Carillon-Origin": "tab.view"}),
        factory.post("/", {"carillon_origin": "tab.view"}),
    ]


def test_the_origin_of_a_request_is_in_its_events_and_nowhere_else(requests: list[HttpRequest]) -> None:
    seen: list[Any] = []
    serve = CarillonMiddleware(lambda request: seen.append(event_of("a.b")) or HttpResponse())  # type: ignore[func-returns-value]
    for request in requests:
        serve(request)
    assert [event["origin"] for event in seen] == ["tab.view", "tab.view"]
    assert current_origin() is None and "origin" not in event_of("a.b")


async def test_requests_side_by_side_keep_their_own_origin() -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        return HttpResponse(json.dumps(current_origin()))

    serve = CarillonMiddleware(view)
    factory = RequestFactory()
    answers = await asyncio.gather(*(serve(factory.get("/", headers={"X-Carillon-Origin": f"tab-{n}"})) for n in range(5)))  # type: ignore[arg-type]
    assert [json.loads(answer.content) for answer in answers] == [f"tab-{n}" for n in range(5)]


class Sender:
    """A view in which an event is written: what is its origin?"""

    def __init__(self, before: Callable[[HttpRequest], object] = lambda request: None) -> None:
        self.before, self.event = before, dict[str, Any]()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        self.before(request)
        self.event = dict(event_of("a.b"))
        return HttpResponse()


def test_a_view_that_reads_its_body_in_its_own_way_is_not_interfered_with() -> None:
    body: list[bytes] = []
    upload = RequestFactory().post("/", {"carillon_origin": "tab.view", "file": "x" * 100})
    view = Sender(lambda request: body.append(request.body))
    CarillonMiddleware(view)(upload)
    assert b"x" * 100 in body[0]
    assert view.event["origin"] == "tab.view"
    streamed = RequestFactory().post("/", {"carillon_origin": "tab.view", "file": "x" * 100})
    view = Sender(lambda request: body.append(request.read()))
    CarillonMiddleware(view)(streamed)
    assert b"x" * 100 in body[1] and "origin" not in view.event


def test_a_form_that_cannot_be_read_says_nothing_and_breaks_nothing() -> None:
    broken = RequestFactory().post("/", b"no form at all", content_type="multipart/form-data")
    view = Sender()
    assert CarillonMiddleware(view)(broken).status_code == 200  # type: ignore[union-attr]
    assert "origin" not in view.event
    with override_settings(DATA_UPLOAD_MAX_NUMBER_FIELDS=2):
        many = RequestFactory().post("/", {"carillon_origin": "tab.view", "a": "1", "b": "2"}, headers={"X-Carillon-Origin": "tab.header"})
        CarillonMiddleware(view)(many)
    assert view.event["origin"] == "tab.header"


def test_a_user_stands_for_their_key_in_events() -> None:
    assert event_of("a.b", actor=User())["actor"] == "7"
    key = uuid.UUID("6a1f3ad2-6f2e-4d0e-9f0b-6d5a8a0f4c11")
    assert event_of("a.b", actor=key)["actor"] == str(key)
    nobody = User()
    nobody.pk = None  # type: ignore[assignment]
    assert "actor" not in event_of("a.b", actor=nobody) and "actor" not in event_of("a.b")
    assert dumps({"type": "a.b", "data": {"page": key}}) == f'{{"type":"a.b","data":{{"page":"{key}"}}}}'
    with pytest.raises(TypeError, match="ids, types and counts"):
        dumps({"type": "a.b", "data": User()})


class Replica:
    """Reads go to a replica, which lags behind."""

    def db_for_read(self, model: type, **hints: object) -> str:
        return "replica"

    def db_for_write(self, model: type, **hints: object) -> str:
        return "default"


def test_the_outbox_is_read_where_it_is_written() -> None:
    with override_settings(DATABASE_ROUTERS=["tests.test_django_views.Replica"]):
        for model in (OutboxRow, Lease, NodeOrder):
            assert model.objects.all().db == "default"
            assert model.objects.filter(pk=1).db == "default"
            assert model.objects.using("other").db == "other"
