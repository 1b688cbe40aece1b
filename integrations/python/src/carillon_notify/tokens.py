"""Tokens: what an editor's browser shows to a node."""

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import jwt

MIN_SECRET_BYTES = 32
"""The shortest HMAC secret that nodes accept."""


def mint(
    secret: str | bytes,
    sub: object,
    *,
    topics: Iterable[str] | None = None,
    publish: Iterable[str] | None = None,
    ttl: int = 600,
    algorithm: str = "HS256",
    jti: str | None = None,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """A signed token for one editor.

    `sub` names the editor: best is an id that never changes. `topics` are the topics they may follow (`comments:42`,
    `content:s1/*`, `comments:*` or `*`); without it, the node's `auth.default_topics` count. `publish` is the same for
    `POST /publish`. `ttl` is in seconds; keep it short, the browser module fetches a new token in time. `claims` are
    added as they are (`iss`, `aud`, …). `jti` names the sign-in, so that it can be ended alone; give all tokens of one
    sign-in the same. Without it, each token gets its own.

    `secret` is the secret of `auth.secret`, or a private key in PEM with `algorithm` RS256, ES256 or EdDSA.
    """
    if sub is None or str(sub) == "":
        raise ValueError("a token names its editor: sub must not be empty")
    if isinstance(topics, str) or isinstance(publish, str):
        raise ValueError("topics and publish are lists of topics, not one text")
    if ttl <= 0:
        raise ValueError(f"a token lasts for a number of seconds above 0, not {ttl}")
    key = secret.encode() if isinstance(secret, str) else secret
    if algorithm.startswith("HS") and len(key) < MIN_SECRET_BYTES:
        raise ValueError(f"the secret has {len(key)} bytes, nodes accept {MIN_SECRET_BYTES} or more: make one with `openssl rand -hex 32`")
    now = int(time.time())
    body: dict[str, Any] = {"sub": str(sub), "iat": now, "exp": now + ttl, "jti": jti or uuid.uuid4().hex}
    if topics is not None:
        body["topics"] = list(topics)
    if publish is not None:
        body["publish"] = list(publish)
    return jwt.encode({**body, **(claims or {})}, key, algorithm=algorithm)
