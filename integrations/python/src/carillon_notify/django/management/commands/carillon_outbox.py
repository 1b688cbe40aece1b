"""`manage.py carillon_outbox`: drains the outbox beside servers whose processes have no threads."""

import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ....errors import NotPublished
from ... import conf, drain, nodes
from ...drainer import Drainer


class Command(BaseCommand):
    help = "Publishes the events of the outbox until it is stopped (SIGTERM, Ctrl-C)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="publish what waits now, then end")

    def handle(self, *args: Any, once: bool = False, **options: Any) -> None:
        if not conf.get("ENABLED"):
            raise CommandError("Carillon is switched off: CARILLON['ENABLED'] is False.")
        drainer = Drainer()
        if once:
            try:
                drainer.work()
                nodes.deliver()
            except NotPublished as error:
                raise CommandError(str(error)) from error
            self.stdout.write(f"{'something' if drain.waits() else 'nothing'} waits any more")
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: drainer.stop())
        self.stdout.write(f"draining the outbox of {conf.get('SOURCE')}")
        drainer.run()
