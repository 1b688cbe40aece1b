"""Orders to the nodes: end sessions, or have tokens fetched anew. Written like events, carried out beside the drainer."""

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import router, transaction
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.crypto import salted_hmac

from ..errors import Unavailable
from . import conf, drainer
from .models import NodeOrder

log = logging.getLogger("carillon")

TIMEOUT = 3.0
"""Seconds that a node has to answer."""
MARGIN_SECONDS = 60
"""How much longer than a token an order is tried. By then the token that it is about has ended, and with it its sessions."""
_REFUSED = (400, 413, 422)
"""What a node says of an order that is wrong itself. Anything else may pass: a wrong NODE_TOKEN is put right, a limit ends."""


def sign_in_id(request: HttpRequest) -> str | None:
    """The `jti` of all tokens of one sign-in. It tells nothing of the session key that it is made from."""
    key = request.session.session_key if hasattr(request, "session") else None
    return salted_hmac("carillon.jti", key).hexdigest()[:32] if key else None


def disconnect(*, user: object = None, jti: str | None = None) -> None:
    """Ends the sessions of an editor (`user`), or of one sign-in (`jti`), with the commit of the transaction."""
    _order("/disconnect", {"user": str(user)} if jti is None else {"jti": jti})


def refresh(user: object) -> None:
    """An editor's rights have changed: their pages fetch a new token, and old tokens are no longer good."""
    _order("/refresh", {"user": str(user)})


def deliver() -> None:
    """Carries out what waits, in its order. Raises `Unavailable` where no node takes it."""
    # It is asked every second, and must not write where there is nothing to do: on SQLite, who writes keeps all others waiting.
    if not conf.get("NODES") or not NodeOrder.objects.exists():
        return
    too_old = NodeOrder.objects.filter(created__lt=Now() - timedelta(seconds=conf.get("TOKEN_SECONDS") + MARGIN_SECONDS))
    if dropped := too_old.delete()[0]:
        log.error("no node has taken %d orders (sign-outs, changed rights) in time; the tokens that they were about have ended by now", dropped)
    for order in NodeOrder.objects.order_by("id")[:100]:
        _send(order.path, json.loads(order.body))
        order.delete()


def _order(path: str, body: Mapping[str, str]) -> None:
    if not conf.get("ENABLED") or not conf.get("NODES"):
        return
    NodeOrder.objects.create(path=path, body=json.dumps(body))
    transaction.on_commit(drainer.kick, using=router.db_for_write(NodeOrder), robust=True)


def _send(path: str, body: Mapping[str, Any]) -> None:
    """Any node does: it passes the order on to the others. An order that one node finds wrong is wrong for all."""
    trouble = "CARILLON['NODES'] is empty"
    for node in conf.get("NODES"):
        request = urllib.request.Request(
            node.rstrip("/") + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {conf.get('NODE_TOKEN')}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                return
        except urllib.error.HTTPError as error:
            trouble = f"{node}{path} answered {error.code}"
            if error.code in _REFUSED:
                log.error("the nodes refuse an order, it is dropped: %s", trouble)
                return
            if error.code in (401, 403):
                trouble += ": CARILLON['NODE_TOKEN'] must be the nodes' internal.publish_token"
        except OSError as error:
            trouble = f"{node}{path} cannot be reached: {error}"
    raise Unavailable(f"no node took the order: {trouble}")
