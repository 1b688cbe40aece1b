"""Who drains an outbox: one drainer at a time, by a row in the same database and by that database's clock."""

from datetime import timedelta

from django.db.models import DateTimeField, ExpressionWrapper, Q
from django.db.models.functions import Now

from .models import Lease

SECONDS = 3.0
"""How long a lease lasts without being renewed. A drainer that was killed holds it no longer than this."""


def acquire(name: str, holder: str) -> bool:
    """Takes the lease, or renews one's own. False while somebody else drains.

    A stalled holder whose lease ended may go on for a moment beside the next one. That does no harm: both publish the
    same events in the same order, and Carillon recognises the second of each.
    """
    until = ExpressionWrapper(Now() + timedelta(seconds=SECONDS), output_field=DateTimeField())
    mine_or_free = Q(holder=holder) | Q(holder="") | Q(until__lt=Now())
    if Lease.objects.filter(mine_or_free, name=name).update(holder=holder, until=until):
        return True
    if Lease.objects.filter(name=name).exists():
        return False
    Lease.objects.bulk_create([Lease(name=name, until=Now())], ignore_conflicts=True)
    return bool(Lease.objects.filter(mine_or_free, name=name).update(holder=holder, until=until))


def release(name: str, holder: str) -> None:
    """Gives one's own lease back."""
    Lease.objects.filter(name=name, holder=holder).update(holder="")
