"""What this process has published, for `/metrics` of the CMS. Counters since its start."""

published = 0
"""Events recorded."""
refused = 0
"""Events that Carillon refused for good; the log names each."""
dropped = 0
"""Rows that were too old."""
failed = 0
"""Attempts at a batch that Redis did not take."""


def text() -> str:
    """All of it in Prometheus' text format, with what waits in the outbox."""
    from . import drain
    from .models import OutboxRow

    lines = [
        ("carillon_outbox_published_total", "counter", "Events recorded by this process.", published),
        ("carillon_outbox_refused_total", "counter", "Events that Carillon refused for good.", refused),
        ("carillon_outbox_dropped_total", "counter", "Rows dropped because they were too old.", dropped),
        ("carillon_outbox_failed_total", "counter", "Batches that Redis did not take.", failed),
        ("carillon_outbox_waiting", "gauge", "Rows that wait to be published.", OutboxRow.objects.count()),
        ("carillon_outbox_oldest_seconds", "gauge", "Age of the oldest row that waits.", drain.oldest_ms() / 1000),
    ]
    return "".join(f"# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n" for name, kind, help, value in lines)
