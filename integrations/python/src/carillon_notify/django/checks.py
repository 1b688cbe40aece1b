"""What `manage.py check` finds wrong with the settings."""

import re
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections, router
from django.utils.module_loading import import_string

from .. import connect
from ..tokens import MIN_SECRET_BYTES
from . import conf

_NAMES = {
    "SOURCE": (re.compile(r"[A-Za-z0-9._:/@-]{1,64}"), "1 to 64 letters, digits and . _ : / @ -"),
    "PREFIX": (re.compile(r"[a-z][a-z0-9_]{0,31}"), "as the nodes' redis.prefix, a lower-case letter followed by up to 31 of a-z, 0-9 and _"),
}
MIDDLEWARE = "carillon_notify.django.middleware.CarillonMiddleware"
# Servers whose processes have no threads unless they are told to.
_UWSGI_HINT = "uWSGI needs `enable-threads = true`, or CARILLON['DRAINER'] = 'command' and `manage.py carillon_outbox` beside it."


def check_settings(app_configs: Sequence[Any] | None = None, **_: Any) -> list[CheckMessage]:
    """Wrong, missing and unknown settings."""
    found = getattr(settings, "CARILLON", {})
    if not isinstance(found, dict):
        return [Error("CARILLON must be a dictionary.", id="carillon.E001")]
    problems: list[CheckMessage] = [
        Error(f"CARILLON has no setting {name!r}.", hint=f"It knows {', '.join(conf.DEFAULTS)}.", id="carillon.E002")
        for name in sorted(set(found) - set(conf.DEFAULTS), key=str)
    ]
    if not conf.get("ENABLED"):
        return problems
    return problems + _redis() + _kinds() + _nodes() + _tokens() + _database() + _rest()


def _redis() -> list[CheckMessage]:
    try:
        connect.parse(str(conf.get("REDIS")))
    except ValueError as error:
        return [Error(f"CARILLON['REDIS']: {error}.", id="carillon.E003")]
    return []


def _kinds() -> list[CheckMessage]:
    """Settings of the wrong kind, and names that Carillon does not take."""
    # The text "False", as from an environment variable, would mean True.
    problems: list[CheckMessage] = [
        Error(f"CARILLON[{name!r}] must be True or False, and is {conf.get(name)!r}.", id="carillon.E010")
        for name in ("ENABLED", "REPORT")
        if not isinstance(conf.get(name), bool)
    ]
    if not isinstance(conf.get("REDIS_OPTIONS"), dict):
        problems.append(Error("CARILLON['REDIS_OPTIONS'] must be a dictionary.", id="carillon.E011"))
    for name, (rule, words) in _NAMES.items():
        if not isinstance(conf.get(name), str) or not rule.fullmatch(conf.get(name)):
            problems.append(Error(f"CARILLON[{name!r}] must be {words}, and is {conf.get(name)!r}.", id="carillon.E012"))
    return problems


def _nodes() -> list[CheckMessage]:
    nodes = conf.get("NODES")
    hint = "NODES is a list of the nodes' internal addresses: ['http://carillon-1:9090']."
    if not isinstance(nodes, (list, tuple)):
        return [Error("CARILLON['NODES'] must be a list.", hint=hint, id="carillon.E013")]
    problems: list[CheckMessage] = [
        Error(f"CARILLON['NODES'] has {node!r}, which is no address.", hint=hint, id="carillon.E013")
        for node in nodes
        if not isinstance(node, str) or not re.match(r"https?://[^/]", node)
    ]
    if nodes and not conf.get("NODE_TOKEN"):
        problems.append(
            Warning(
                "CARILLON['NODE_TOKEN'] is empty: nodes refuse to end sessions and to refresh rights.",
                hint="Give it the nodes' internal.publish_token.",
                id="carillon.W003",
            )
        )
    return problems


def _tokens() -> list[CheckMessage]:
    problems: list[CheckMessage] = []
    secret = conf.get("SECRET")
    if secret and len(str(secret).encode()) < MIN_SECRET_BYTES:
        problems.append(
            Error(
                f"CARILLON['SECRET'] is shorter than {MIN_SECRET_BYTES} bytes; nodes refuse it.",
                hint="Make one with `openssl rand -hex 32` and give the nodes the same as auth.secret.",
                id="carillon.E004",
            )
        )
    if not secret:
        problems.append(Warning("CARILLON['SECRET'] is empty: the token view answers 503.", id="carillon.W001"))
    if grants := conf.get("GRANTS"):
        try:
            if not callable(import_string(grants) if isinstance(grants, str) else grants):
                problems.append(Error("CARILLON['GRANTS'] must name a function: request -> grants.", id="carillon.E005"))
        except ImportError as error:
            problems.append(Error(f"CARILLON['GRANTS'] cannot be imported: {error}.", id="carillon.E005"))
    return problems


def _database() -> list[CheckMessage]:
    """SQLite's default ends a transaction with an error where it reads, another connection writes, and then it writes as well.

    The drainer is such another connection, so a save would now and then answer 500. With IMMEDIATE the one waits for the other.
    """
    from .models import OutboxRow

    alias = router.db_for_write(OutboxRow)
    connection = connections[alias]
    options: dict[str, Any] = connection.settings_dict.get("OPTIONS") or {}
    in_memory = ":memory:" in str(connection.settings_dict.get("NAME", ""))
    if connection.vendor != "sqlite" or in_memory or str(options.get("transaction_mode", "")).upper() in ("IMMEDIATE", "EXCLUSIVE"):
        return []
    line = f'DATABASES[{alias!r}].setdefault("OPTIONS", {{}})["transaction_mode"] = "IMMEDIATE"'
    return [Error("With SQLite's default transactions, saves would fail with 'database is locked'.", hint=f"Add: {line}", id="carillon.E009")]


def _rest() -> list[CheckMessage]:
    problems: list[CheckMessage] = []
    if conf.get("DRAINER") not in ("thread", "command"):
        problems.append(Error("CARILLON['DRAINER'] must be 'thread' or 'command'.", hint=_UWSGI_HINT, id="carillon.E006"))
    for name in ("TOKEN_SECONDS", "MAX_AGE_SECONDS"):
        value = conf.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            problems.append(Error(f"CARILLON[{name!r}] must be a number of seconds above 0.", id="carillon.E007"))
    if MIDDLEWARE not in settings.MIDDLEWARE:
        problems.append(
            Warning(
                "The middleware of Carillon is missing: editors hear the echo of their own changes.",
                hint=f"Add {MIDDLEWARE!r} to MIDDLEWARE.",
                id="carillon.W002",
            )
        )
    if conf.get("DRAINER") == "thread" and _uwsgi_without_threads():
        problems.append(Error("This uWSGI process has no threads, so nothing would be published.", hint=_UWSGI_HINT, id="carillon.E008"))
    return problems


def _uwsgi_without_threads() -> bool:
    try:
        import uwsgi  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return False
    return not (uwsgi.opt.get("enable-threads") or int(uwsgi.opt.get("threads", 0)) > 1)
