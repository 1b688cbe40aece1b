"""What the documents describe and no node has said: nothing, but for a few things that cannot be brought about."""

# What is documented and cannot be brought about here, and why.
WORDS = {
    ("closing", 4409): "who is too slow to be told `resync` is too slow to be told this; the close is shown in tests/integration/limits.rs",
}
ANSWERS = {
    ("post", "/disconnect", "503", "redis-refuses"): "Redis refuses a PUBLISH only to a user without the right to it",
    ("post", "/refresh", "503", "redis-refuses"): "as for /disconnect",
}


def nothing_is_missing(witness, documents):
    """Asserts that all that is documented was seen, each message, word and answer."""
    expected = {(channel, "send", kind) for channel in ("session", "stream") for kind in documents.message_types(channel, "send")}
    expected |= {("session", "receive", kind) for kind in documents.message_types("session", "receive")}
    polled = documents.openapi["components"]["schemas"]["PollAnswer"]["properties"]["messages"]["items"]["oneOf"]
    expected |= {("poll", "send", each["$ref"].rpartition("/")[2]) for each in polled}
    assert expected - witness.messages == set(), "message types that nobody sent"

    schemas = documents.asyncapi["components"]["schemas"]
    words = {(kind, word) for kind, name in (("resync", "reason"), ("closing", "code"), ("error", "code"))
             for word in schemas[kind]["properties"][name]["enum"]}
    assert words - witness.words == set(WORDS), "reasons and codes"

    answers = {(method, path, status, code) for method, path in documents.operations()
               for status, response in documents.responses(method, path).items() for code in documents.codes(response)}
    assert answers - witness.answers == set(ANSWERS), "answers that nobody got"
    assert len(answers) > 60 and {code for _, _, _, code in witness.answers} >= {"not-found", "method-not-allowed"}
