"""Topics: `area` or `area:key`, with keys encoded the way every Carillon node expects them."""

import re

AREA = re.compile(r"[a-z][a-z0-9-]{0,31}")
"""What an area may be called."""

MAX_KEY_BYTES = 200
"""The longest key, in bytes of UTF-8, after encoding."""

# Space, percent, the characters that mean something in topic lists and channel names, and all control characters
# (C0, DEL and C1). Everything else stands for itself.
_ENCODED = re.compile("[ %*,{}\x00-\x1f\x7f-\x9f]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


_WHOLE_AREA = object()


def encode_key(value: object) -> str:
    """Percent-encodes a value for use as a topic's key: only what must be, with upper-case hexadecimal.

    Raises ValueError where the result is empty, longer than 200 bytes, or not valid Unicode, and for None: what has no id yet, has
    no topic.
    """
    if value is None:
        raise ValueError("None cannot be a topic's key: has it been saved?")
    try:
        key = _ENCODED.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), str(value))
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{value!r} cannot be a topic's key: it holds half of a surrogate pair") from error
    if not 1 <= size <= MAX_KEY_BYTES:
        raise ValueError(f"{value!r} cannot be a topic's key: it has {size} bytes encoded, allowed are 1 to {MAX_KEY_BYTES}")
    return key


def topic(area: str, key: object = _WHOLE_AREA) -> str:
    """The topic of an area, or of one thing in it: `topic("comments", 42)` is `comments:42`.

    A key of None is refused: it would reach everybody who follows anything in the area.
    """
    if not AREA.fullmatch(area):
        raise ValueError(
            f"{area!r} cannot be an area: use a lower-case letter, then up to 31 lower-case letters, digits or hyphens"
        )
    return area if key is _WHOLE_AREA else f"{area}:{encode_key(key)}"


def private_topic(sub: object, area: str = "notifications") -> str:
    """The topic of one editor in a private area.

    `sub` is exactly what the editor's token says, in the same case; where nodes have `auth.fold_subject = true`, it is
    `folded(sub)`. Raises ValueError where nobody can be called so.
    """
    if _CONTROL.search(str(sub)):
        raise ValueError(f"{sub!r} cannot be an editor: a name has no control characters")
    return topic(area, sub)


def folded(sub: object) -> str:
    """An editor's name in lower case, letter by letter, as nodes with `auth.fold_subject = true` compare it."""
    return "".join(letter.lower()[0] for letter in str(sub))
