"""The settings, `CARILLON = {…}` in Django's settings, with their defaults."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings

DEFAULTS: Mapping[str, Any] = {
    "ENABLED": True,  # False leaves a plain CMS: nothing is written, no thread runs, no token is given
    "REDIS": "redis://127.0.0.1:6379",  # where the nodes listen; also rediss://, redis-sentinel://, redis-cluster://
    "REDIS_OPTIONS": {},  # for the Redis client, `ssl_ca_certs` for example
    "PREFIX": "carillon",  # the nodes' `redis.prefix`
    "SOURCE": "cms",  # names this outbox: the same for all instances that share its database
    "SECRET": "",  # the nodes' `auth.secret`, for tokens
    "TOKEN_SECONDS": 600,  # how long a token lasts
    "GRANTS": None,  # dotted path of a function: request -> {"topics": […], "publish": […]}
    "NODES": [],  # internal addresses of nodes, for `disconnect` and `refresh`: ["http://carillon-1:9090"]
    "NODE_TOKEN": "",  # the nodes' `internal.publish_token`
    "URL": "/realtime",  # where browsers find the nodes
    "DRAINER": "thread",  # or "command": `manage.py carillon_outbox` runs beside a server without threads
    "REPORT": True,  # vouch for this source, so that monitoring sees when it falls silent
    "MAX_AGE_SECONDS": 86_400,  # rows older than this are dropped, and logged
}


def get(name: str) -> Any:
    """One setting."""
    return {**DEFAULTS, **own()}[name]


def own() -> Mapping[str, Any]:
    """What the project has set."""
    found = getattr(settings, "CARILLON", {})
    return found if isinstance(found, Mapping) else {}
