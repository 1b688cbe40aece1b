"""What needs no server: topics, events, tokens, and the decisions of a delivery."""

import json
import random
from typing import Any

import jwt
import pytest
import redis
from carillon_notify import Refused, Unavailable, encode_key, folded, mint, private_topic, topic
from carillon_notify.connect import parse
from carillon_notify.delivery import Delivery
from carillon_notify.events import Message, in_rounds, message

from .servers import ROOT


def test_topics_are_encoded_as_nodes_expect_them() -> None:
    assert topic("comments") == "comments"
    assert topic("comments", 42) == "comments:42"
    assert topic("content", "a b%c*d,e{f}") == "content:a%20b%25c%2Ad%2Ce%7Bf%7D"
    assert encode_key("a\u0085b\x7f\n") == "a%C2%85b%7F%0A"
    assert private_topic("Anna Ä\\x") == "notifications:Anna%20Ä\\x"


def test_private_topics_are_named_as_nodes_name_them() -> None:
    vectors = json.loads((ROOT / "docs/private-keys.json").read_text(encoding="utf-8"))
    assert len(vectors["editors"]) > 30
    for editor in vectors["editors"]:
        assert private_topic(editor["name"]) == f"notifications:{editor['key']}"
        assert private_topic(folded(editor["name"])) == f"notifications:{editor['folded']}"
    for nobody in vectors["nobody"]:
        with pytest.raises(ValueError, match="cannot be"):
            private_topic(nobody["name"])


def test_every_good_topic_of_the_corpus_is_its_own_encoding() -> None:
    lines = (ROOT / "tests/corpus/topics.jsonl").read_text().splitlines()
    good = [line["topic"] for line in map(json.loads, lines) if line["verdict"] == "good"]
    keys = [key for _, colon, key in (name.partition(":") for name in good) if colon and "%" not in key]
    assert len(keys) > 5
    assert [encode_key(key) for key in keys] == keys


@pytest.mark.parametrize("bad", ["", "a" * 201, "ä" * 101, "\ud800"])
def test_what_cannot_be_a_key_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="cannot be a topic's key"):
        encode_key(bad)


def test_what_has_not_been_saved_has_no_topic() -> None:
    """`topic("comments", page.pk)` of a page without an id must not become the whole area."""
    for name in (lambda: topic("comments", None), lambda: encode_key(None), lambda: private_topic(None)):
        with pytest.raises(ValueError, match="has it been saved"):
            name()


@pytest.mark.parametrize("bad", ["", "Comments", "1a", "a_b", "a" * 33, "a:b"])
def test_what_cannot_be_an_area_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="cannot be an area"):
        topic(bad)


@pytest.mark.parametrize(
    "wrong", [{"sub": None}, {"sub": ""}, {"topics": "content:*"}, {"publish": "*"}, {"ttl": 0}, {"ttl": -5}, {"secret": "short"}],
)
def test_a_token_that_no_node_would_take_is_not_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        mint(**{"secret": "0123456789abcdef" * 2, "sub": 7, **wrong})


def test_a_token_says_what_a_node_needs() -> None:
    secret = "0123456789abcdef" * 2
    claims = jwt.decode(mint(secret, 7, topics=["content:s1/*"], ttl=60, claims={"iss": "cms"}), secret, algorithms=["HS256"])
    assert (claims["sub"], claims["topics"], claims["iss"]) == ("7", ["content:s1/*"], "cms")
    assert claims["exp"] - claims["iat"] == 60
    assert claims["jti"] != jwt.decode(mint(secret, 7), secret, algorithms=["HS256"])["jti"]
    with pytest.raises(ValueError, match="32 or more"):
        mint("short", 7)


def test_an_event_that_no_node_would_take_is_refused_here() -> None:
    with pytest.raises(ValueError, match="65536"):
        message("comments:1", {"type": "a.b", "data": "x" * 70_000}, None)
    with pytest.raises(ValueError):
        message("comments:1", {"type": "a.b", "data": float("nan")}, None)
    with pytest.raises(ValueError, match="surrogate"):
        message("comments:1", {"type": "a.b", "data": "\udc00"}, None)
    with pytest.raises(ValueError, match="at least one topic"):
        message([], {"type": "a.b"}, None)


def test_a_url_is_read_as_nodes_read_it() -> None:
    found = parse("redis-sentinel://user:p%40ss@one:1,[::1]:2,three/service")
    assert found.hosts == (("one", 1), ("::1", 2), ("three", 26379))
    assert (found.username, found.password, found.path) == ("user", "p@ss", "service")
    for bad in ("http://x", "redis://", "redis-sentinel://one", "redis://host:secret@x:port"):
        with pytest.raises(ValueError) as error:
            parse(bad)
        assert "secret" not in str(error.value)


def test_rounds_keep_the_order_of_every_topic() -> None:
    chance = random.Random(7)
    for _ in range(200):
        messages = [
            Message(tuple(chance.sample("abcdef", chance.randint(1, 3))), str(number)) for number in range(chance.randint(1, 30))
        ]
        seen: dict[str, list[int]] = {}
        for round in in_rounds(messages):
            names = [name for index in round for name in messages[index].topics]
            assert len(names) == len(set(names)), "a topic twice in one round"
            for index in round:
                for name in messages[index].topics:
                    seen.setdefault(name, []).append(index)
        assert all(indices == sorted(indices) for indices in seen.values())
        assert sum(map(len, seen.values())) == sum(len(m.topics) for m in messages)


def test_a_failure_holds_back_what_follows_in_its_topic_only() -> None:
    messages = [Message(("a",), "1"), Message(("a",), "2"), Message(("b",), "3")]
    delivery = Delivery(messages, "carillon", 10, clock=lambda: 0.0)
    first = delivery.calls()
    assert [call.text for call in first] == ["1", "3"]
    assert delivery.take(first, [redis.ConnectionError("gone"), "7-1"]) > 0
    again = delivery.calls()
    assert [call.text for call in again] == ["1"]
    assert delivery.take(again, ["8-1"]) == 0
    assert [call.text for call in delivery.calls()] == ["2"]


def test_patience_ends() -> None:
    clock = iter([0.0, 11.0, 11.0, 11.0])
    delivery = Delivery([Message(("a",), "1"), Message(("a",), "2")], "carillon", 10, clock=lambda: next(clock))
    calls = delivery.calls()
    assert delivery.take(calls, [redis.TimeoutError("late")]) == 0
    assert delivery.calls() == []
    assert all(isinstance(result.error, Unavailable) for result in delivery.results())


def test_what_is_refused_is_not_tried_again_and_the_rest_goes_on() -> None:
    delivery = Delivery([Message(("a",), "1"), Message(("a",), "2")], "carillon", 10)
    delivery.take(delivery.calls(), [redis.ResponseError("EVENT no type")])
    assert [call.text for call in delivery.calls()] == ["2"]
    delivery.take(delivery.calls(), ["1-1"])
    refused, fine = delivery.results()
    assert isinstance(refused.error, Refused) and fine.positions == ("1-1",)


def test_what_may_be_sent_again_is_not_overtaken() -> None:
    delivery = Delivery([Message(("a",), "1"), Message(("a", "b"), "2")], "carillon", 10)
    delivery.take(delivery.calls(), [redis.exceptions.NoPermissionError("no rights for a")])
    assert [(call.topic, call.text) for call in delivery.calls()] == [("b", "2")]
    delivery.take(delivery.calls(), ["1-1"])
    assert [list(result.errors) for result in delivery.results()] == [["a"], ["a"]]


def test_others_do_not_wait_for_a_topic_whose_slot_moves() -> None:
    clock = iter([0.0, 11.0])
    delivery = Delivery([Message(("a",), "1"), Message(("b",), "2"), Message(("b",), "3")], "carillon", 10, clock=lambda: next(clock))
    for expected in ("12", "13"):
        calls = delivery.calls()
        assert "".join(call.text for call in calls) == expected
        assert delivery.take(calls, [redis.ResponseError("TRYAGAIN this topic is moving"), "1-1"]) == 0
    delivery.take(delivery.calls(), [redis.ResponseError("TRYAGAIN this topic is moving")])
    assert [result.error is None for result in delivery.results()] == [False, True, True]


def test_a_topic_that_is_refused_ends_no_other_of_the_same_event() -> None:
    delivery = Delivery([Message(("bad", "a"), "1")], "carillon", 10)
    delivery.take(delivery.calls(), [redis.ResponseError("TOPIC no"), redis.ConnectionError("gone")])
    assert [call.topic for call in delivery.calls()] == ["a"]
    delivery.take(delivery.calls(), ["1-1"])
    (result,) = delivery.results()
    assert result.positions == ("1-1",) and list(result.errors) == ["bad"]
    assert isinstance(result.error, Refused)


def test_what_may_still_be_published_is_told_apart_from_what_is_refused() -> None:
    delivery = Delivery([Message(("bad", "a"), "1")], "carillon", 0)
    delivery.take(delivery.calls(), [redis.ResponseError("TOPIC no"), redis.ConnectionError("gone")])
    (result,) = delivery.results()
    assert isinstance(result.error, Unavailable), "another attempt helps in one of them"
    assert {topic: type(error) for topic, error in result.errors.items()} == {"bad": Refused, "a": Unavailable}
