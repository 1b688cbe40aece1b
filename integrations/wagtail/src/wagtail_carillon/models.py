"""Notifications, and how far the sweep has come.

Wagtail sends mail only; the bell needs a list that can be read again.
"""

from carillon_notify.django.models import Primary
from django.conf import settings
from django.db import models


class Notification(models.Model):
    """Something that concerns one editor."""

    class Kind(models.TextChoices):
        """What happened."""

        COMMENT = "comment", "commented on"
        REPLY = "reply", "replied on"
        MENTION = "mention", "mentioned you on"
        TASK = "task", "asks you to review"
        APPROVED = "approved", "approved"
        REJECTED = "rejected", "sent back"

    recipient = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    kind = models.CharField(max_length=20, choices=Kind.choices)
    page_id = models.BigIntegerField()
    created = models.DateTimeField(auto_now_add=True)
    read = models.DateTimeField(null=True)

    objects = Primary()

    class Meta:
        indexes = [models.Index(fields=["recipient", "read"], name="wagtail_carillon_unread")]

    def __str__(self) -> str:
        return f"{self.kind} for user {self.recipient_id}"


class Swept(models.Model):
    """How far the sweep has come in one of Wagtail's logs."""

    log = models.CharField(max_length=100, primary_key=True, help_text="The log's model: `wagtailcore.pagelogentry`.")
    entry = models.BigIntegerField(help_text="The newest entry that has been looked at.")
    gaps = models.JSONField(default=dict, help_text="Numbers before that which nobody was told of, and since when (s): a transaction may be open.")

    objects = Primary()

    def __str__(self) -> str:
        return f"{self.log} up to {self.entry}"
