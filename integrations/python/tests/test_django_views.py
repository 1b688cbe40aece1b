"""Checks, the token view and the middleware, in one process."""

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django  # noqa: E402

django.setup()

from carillon_notify.django.checks import check_settings  # noqa: E402
from carillon_notify.django.middleware import CarillonMiddleware, current_origin  # noqa: E402
from carillon_notify.django.outbox import event_of  # noqa: E402
from carillon_notify.django.views import token  # noqa: E402
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
