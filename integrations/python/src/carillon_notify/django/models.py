"""The outbox: events on their way, and who publishes them at the moment."""

from typing import Any

from django.db import models, router
from django.db.models.functions import Now


class Primary(models.Manager[Any]):
    """Reads where it writes: a replica may lag behind, and would show rows again that are done."""

    def get_queryset(self) -> models.QuerySet[Any]:
        found: models.QuerySet[Any] = super().get_queryset().using(self._db or router.db_for_write(self.model))
        return found


class OutboxRow(models.Model):
    """Events of one change, written in its transaction and removed when they are published."""

    id = models.BigAutoField(primary_key=True)
    entries = models.TextField(help_text="JSON: a list of [topics, event].")
    created = models.DateTimeField(db_default=Now(), editable=False, help_text="By the database's clock.")

    objects = Primary()

    class Meta:
        db_table = "carillon_outbox"
        verbose_name = "outgoing event"

    def __str__(self) -> str:
        return f"outbox row {self.pk}"


class Lease(models.Model):
    """Who publishes an outbox: one drainer at a time, while there is something to publish."""

    name = models.CharField(max_length=100, primary_key=True)
    holder = models.CharField(max_length=100, blank=True, default="")
    until = models.DateTimeField()

    objects = Primary()

    class Meta:
        db_table = "carillon_lease"
        verbose_name = "drainer's lease"

    def __str__(self) -> str:
        return f"lease of {self.name}"


class NodeOrder(models.Model):
    """An order to the nodes (`/disconnect`, `/refresh`), written in a transaction and removed when it is carried out."""

    id = models.BigAutoField(primary_key=True)
    path = models.CharField(max_length=40)
    body = models.TextField()
    created = models.DateTimeField(db_default=Now(), editable=False, help_text="By the database's clock.")

    objects = Primary()

    class Meta:
        db_table = "carillon_node_order"
        verbose_name = "order to the nodes"

    def __str__(self) -> str:
        return f"{self.path} {self.body}"
