"""Publishes events for Carillon from a script: `pip install carillon-notify`, which does the work.

    carillon_publisher.py record comments:42 '{"type": "comment.created", "data": {"comment": 7}}'
    carillon_publisher.py live comments:42 '{"type": "activity.updated"}'

Publish after your transaction has committed: editors refetch as soon as the event reaches them. In a web request, use the
outbox for Django (`carillon_notify.django`), or a worker: this waits for Redis.
"""

import json
import os
import sys

from carillon_notify import NotPublished, Publisher


def main():
    """`record|live TOPIC EVENT`, with CARILLON_REDIS, CARILLON_SOURCE and CARILLON_PATIENCE."""
    if len(sys.argv) != 4 or sys.argv[1] not in ("record", "live"):
        sys.exit("usage: carillon_publisher.py record|live TOPIC EVENT")
    publisher = Publisher(
        os.environ.get("CARILLON_REDIS", "redis://127.0.0.1:6379"),
        source=os.environ.get("CARILLON_SOURCE", "example"),
        patience=float(os.environ.get("CARILLON_PATIENCE", "10")),
    )
    publish = publisher.record if sys.argv[1] == "record" else publisher.live
    try:
        print(publish(sys.argv[2], json.loads(sys.argv[3])))
    except (NotPublished, ValueError) as trouble:
        sys.exit(str(trouble))


if __name__ == "__main__":
    main()
