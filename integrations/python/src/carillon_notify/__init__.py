"""Publish events to Carillon: tell every connected CMS editor that something changed.

    from carillon_notify import Publisher, topic

    publisher = Publisher("redis://localhost:6379", source="cms")
    publisher.record(topic("comments", 42), {"type": "comment.created", "data": {"comment": 7}})

Publish after your transaction has committed, because editors refetch as soon as an event reaches them. In Django, use
`carillon_notify.django`: its outbox writes the event in the same transaction as the change.
"""

from .errors import NotPublished, Refused, Result, Unavailable
from .publisher import Publisher
from .aio import AsyncPublisher
from .tokens import mint
from .topics import encode_key, folded, private_topic, topic

__all__ = [
    "AsyncPublisher",
    "NotPublished",
    "Publisher",
    "Refused",
    "Result",
    "Unavailable",
    "encode_key",
    "folded",
    "mint",
    "private_topic",
    "topic",
]
__version__ = "0.2.0"
