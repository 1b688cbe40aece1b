"""One corpus of events for every door: what is refused everywhere, and what passes everywhere, byte for byte.

The same cases go through the function, HTTP, the command line, a bare PUBLISH and straight into a log.
"""


def padded(size):
    """An event of exactly so many bytes."""
    frame = b'{"type":"comment.created","pad":"%s"}'
    return frame % (b"x" * (size - len(frame) + 2))


def nested(depth):
    """An event nested so many levels deep; the event itself is the first."""
    return b'{"type":"comment.created","data":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


BAD = {
    "65537 bytes": padded(65537),
    "a megabyte": padded(1 << 20),
    "nothing": b"",
    "blank": b" \t\n ",
    "not JSON": b"comment.created",
    "XML": b"<event type='comment.created'/>",
    "an array": b'[{"type":"comment.created"}]',
    "a string": b'"comment.created"',
    "a number": b"42",
    "null": b"null",
    "no type": b'{"id":"1","data":{}}',
    "an empty type": b'{"type":""}',
    "a type that is a number": b'{"type":7}',
    "a type that is null": b'{"type":null}',
    "a type without a verb": b'{"type":"comment"}',
    "a type in upper case": b'{"type":"Comment.Created"}',
    "a type with a space": b'{"type":"comment. created"}',
    "a type with a line break": b'{"type":"comment.created\\n"}',
    "NaN": b'{"type":"comment.created","data":NaN}',
    "Infinity": b'{"type":"comment.created","data":-Infinity}',
    "0x1F": b'{"type":"comment.created","data":0x1F}',
    "a leading zero": b'{"type":"comment.created","data":007}',
    "a bare point": b'{"type":"comment.created","data":.5}',
    "a plus": b'{"type":"comment.created","data":+1}',
    "a trailing comma": b'{"type":"comment.created",}',
    "a trailing comma in an array": b'{"type":"comment.created","data":[1,]}',
    "single quotes": b"{'type':'comment.created'}",
    "a comment": b'{"type":"comment.created"/* */}',
    "a missing brace": b'{"type":"comment.created"',
    "two events": b'{"type":"comment.created"}{"type":"comment.created"}',
    "something behind it": b'{"type":"comment.created"} x',
    "a byte order mark": b'\xef\xbb\xbf{"type":"comment.created"}',
    "a zero byte": b'{"type":"comment.created"}\x00',
    "a control character in a string": b'{"type":"comment.created","data":"a\x01b"}',
    "a line break in a string": b'{"type":"comment.created","data":"a\nb"}',
    "an unknown escape": b'{"type":"comment.created","data":"\\x41"}',
    "half a surrogate pair": b'{"type":"comment.created","data":"\\ud800"}',
    "invalid UTF-8": b'{"type":"comment.created","data":"\xff\xfe"}',
    "overlong UTF-8": b'{"type":"comment.created","data":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"type":"comment.created","data":"\xed\xa0\x80"}',
    "cut off UTF-8": b'{"type":"comment.created","data":"\xe4\xbd',
    "65 levels deep": nested(65),
    "100 levels deep": nested(100),
    "10000 levels deep": nested(10000),
    "an id that is a number": b'{"type":"comment.created","id":7}',
    "an empty id": b'{"type":"comment.created","id":""}',
    "a source that is an object": b'{"type":"comment.created","source":{}}',
}

# What cannot be an argument of a program or a line of a file is left out at that door.
GOOD = {
    "the least": b'{"type":"comment.created"}',
    "spaces": b' \t{ "type" : "comment.created" }  ',
    "escapes": b'{"type":"comment\\u002ecreated","data":"\\"\\\\\\/\\b\\f\\n\\r\\t\\ud83d\\ude00"}',
    "UTF-8": '{"type":"comment.created","data":"äöü 日本語 😀 \u2028"}'.encode(),
    "numbers": b'{"type":"comment.created","data":[0,-0,1e5,1E-7,-1.5e+3,12345678901234567890,0.1]}',
    "64 levels deep": nested(64),
    "65536 bytes": padded(65536),
    "a reverse-DNS type": b'{"type":"com.example.comment.created"}',
    "a CloudEvent": b'{"specversion":"1.0","id":"1","source":"/cms","type":"project_item.saved","datacontenttype":"application/json","data":{"items":[1,2]}}',
    "names that mean something elsewhere": b'{"type":"comment.created","__proto__":{},"constructor":1,"":null}',
}

# Topics that nobody can follow: refused at every door that can answer.
BAD_TOPICS = [
    "",
    "comment",
    "Comments:1",
    "comments:",
    "comments:*",
    "*",
    "comments:a b",
    "comments:a,b",
    "comments:{a}",
    "comments:a\nb",
    "comments:a\x7f",
    "comments:100%",
    "comments:%zz",
    "comments:" + "x" * 201,
    "unknown-area:1",
    ":1",
]
