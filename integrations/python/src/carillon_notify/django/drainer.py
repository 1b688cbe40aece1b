"""The drainer: a thread per serving process, or `manage.py carillon_outbox`.

It starts with the first request of a process, after any fork, and never in commands such as `migrate` or a shell: what
they write is found by the instances that serve. It drains when it is told that a transaction has committed, and looks by
itself every second for rows of commands, and of instances that were cut off or killed. Now and then it lets a CMS look for
changes that have no row (`sweeps`). Orders to the nodes have a thread of their own: a node that does not answer holds up no event.
"""

import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, close_old_connections

from ..errors import NotPublished, Unavailable
from ..publisher import Publisher
from . import conf, drain, lease

log = logging.getLogger("carillon")

LOOK_SECONDS = 1.0
"""How often a drainer looks for rows that nobody told it of."""
BUSY_SECONDS, LONGEST_BUSY_SECONDS = 0.02, 0.25
"""How long it waits while another one drains: longer each time, because many processes wait, and all ask the database."""
REPORT_SECONDS = 5.0
"""How often it vouches for its source …"""
VOUCHED_SECONDS = 15
"""… and for how long."""
QUIET_SECONDS = 60.0
"""The same trouble is logged once in this time."""
SWEEP_SECONDS = 5.0
"""How often it sweeps."""

_STEPS = {
    "work": "publishing",
    "deliver": "telling the nodes",
    "report": "vouching for this source",
    "sweep": "looking for changes without a row",
}

sweeps: list[Callable[[Publisher], None]] = []
"""What looks for changes that were never written to the outbox, and publishes them; by one drainer at a time. A CMS whose changes
and rows are not always one transaction adds its own. It may raise `NotPublished`, and is called again then."""


class Drainer:
    """Drains one outbox until it is told to stop."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.holder = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self.wake = threading.Event()
        self.wake_orders = threading.Event()
        self.stopped = threading.Event()
        self._publisher: Publisher | None = None
        self._in_trouble = False
        self._reported = float("-inf")
        self._swept = float("-inf")
        self._kept_back = False  # all that waits is rows that their topic keeps back
        self._untold_since: float | None = None  # what a sweep has found is not published
        self._complained: dict[str, float] = {}

    def run(self) -> None:
        """Works until `stop`."""
        orders = threading.Thread(target=self._run_orders, name="carillon-orders", daemon=True)
        orders.start()
        self._loop(self.wake, self.work, self.report, self.sweep)
        orders.join(1.0)  # it may wait for a node, and need not be waited for

    def kick(self) -> None:
        """There is something to do."""
        self.wake.set()
        self.wake_orders.set()

    def stop(self) -> None:
        """Ends `run` soon. What waits stays in the outbox."""
        self.stopped.set()
        self.kick()

    def _run_orders(self) -> None:
        from . import nodes  # it kicks this module's drainer

        self._loop(self.wake_orders, nodes.deliver)

    def _loop(self, wake: threading.Event, *steps: Callable[[], None]) -> None:
        while not self.stopped.is_set():
            wake.wait(LOOK_SECONDS * random.uniform(0.5, 1))
            wake.clear()
            for step in steps:
                # One step's trouble is not the next one's: who cannot publish an event may still say so.
                try:
                    step()
                except (NotPublished, DatabaseError, ImproperlyConfigured, OSError, ValueError) as error:
                    self._complain(step.__name__, error)
                except Exception:
                    # A thread that ends here would leave this process mute until its next request.
                    log.exception("outbox: %s", _STEPS[step.__name__])
                    self.stopped.wait(LOOK_SECONDS)
            close_old_connections()

    def work(self) -> None:
        """Publishes what waits. Raises `NotPublished` where Redis does not take it."""
        publisher = self.publisher()
        if self._in_trouble:
            # Redis must answer before the lease is taken: who cannot publish must not stand in another's way.
            publisher.ping()
            self._in_trouble = False
        self._kept_back = False
        try:
            if drain.waits():
                drain.drop_old()
                pause = BUSY_SECONDS
                while drain.drain(publisher, self.holder) is drain.Outcome.BUSY and drain.waits() and not self.stopped.wait(pause):
                    pause = min(2 * pause, LONGEST_BUSY_SECONDS)
        except NotPublished as trouble:
            self._in_trouble = True
            self._kept_back = not isinstance(trouble, Unavailable)
            raise

    def report(self) -> None:
        """Vouches for the source, where that is due."""
        if conf.get("REPORT") and time.monotonic() - self._reported >= REPORT_SECONDS:
            untold = time.monotonic() - self._untold_since if self._untold_since is not None else 0.0
            self.publisher().report(conf.get("SOURCE"), VOUCHED_SECONDS, max(drain.oldest_ms(), int(untold * 1000)))
            self._reported = time.monotonic()

    def sweep(self) -> None:
        """Looks for changes without a row, where that is due."""
        if not sweeps or time.monotonic() - self._swept < SWEEP_SECONDS:
            return
        self._swept = time.monotonic()
        name = f"{conf.get('SOURCE')}/sweep"
        # What waits in the outbox comes first: a sweep must not overtake it. What is kept back there may be for hours.
        if (self._kept_back or not drain.waits()) and lease.acquire(name, self.holder):
            try:
                for look in sweeps:
                    look(self.publisher())
                self._untold_since = None
            except NotPublished:
                self._untold_since = self._untold_since or time.monotonic()
                raise
            finally:
                lease.release(name, self.holder)

    def publisher(self) -> Publisher:
        """The publisher, made in the process and thread that uses it."""
        if self._publisher is None:
            self._publisher = Publisher(
                conf.get("REDIS"), conf.get("SOURCE"), prefix=conf.get("PREFIX"), timeout=1.0, **conf.get("REDIS_OPTIONS")
            )
        return self._publisher

    def _complain(self, step: str, error: Exception) -> None:
        if time.monotonic() - self._complained.get(step, float("-inf")) >= QUIET_SECONDS:
            log.warning("outbox: %s does not work, trying on: %s", _STEPS[step], error)
            self._complained[step] = time.monotonic()


_lock = threading.Lock()
_current: tuple[Drainer, threading.Thread] | None = None


def kick() -> None:
    """A transaction has committed: publish soon. Commands and shells leave it to the processes that serve requests."""
    if (current := _current) and _runs(current):
        current[0].kick()


def on_request(**_: Any) -> None:
    """The first request of a process starts its drainer, after any fork."""
    global _current
    if (_current and _runs(_current)) or not conf.get("ENABLED") or conf.get("DRAINER") != "thread":
        return
    with _lock:
        if _current and _runs(_current):
            return
        drainer = Drainer()
        thread = threading.Thread(target=drainer.run, name="carillon-outbox", daemon=True)
        thread.start()
        _current = (drainer, thread)


def _runs(current: tuple[Drainer, threading.Thread]) -> bool:
    return current[0].pid == os.getpid() and current[1].is_alive()
