"""Prometheus metrics. No labels that could name a patient.

With several HTTP workers the processes share them through files (PROMETHEUS_MULTIPROC_DIR, set before this is imported).
"""

import os
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

HTTP_REQUESTS = Counter("ris_http_requests_total", "FHIR requests answered", ["method", "status"])
HTTP_SECONDS = Histogram(
    "ris_http_request_seconds",
    "Time to answer a FHIR request",
    ["method"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
_KNOWN_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH"})
CHARACTERS = Counter(
    "ris_v2_characters_replaced_total", "Characters that a receiver's character set lacks", ["destination", "by"]
)
INVALID = Counter("ris_v2_messages_invalid_total", "Messages that break HL7's definitions and were not sent", ["destination"])
MESSAGES_IN = Counter("ris_v2_messages_in_total", "HL7 v2 messages received", ["type", "answer", "partner"])
MESSAGE_SECONDS = Histogram(
    "ris_v2_message_seconds",
    "Time from a received HL7 v2 message to its outcome, without what a partner's rate makes it wait",
    ["type"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
CONNECTIONS = Gauge("ris_v2_connections", "HL7 v2 connections that are open", multiprocess_mode="livesum")
CONNECTIONS_REFUSED = Counter("ris_v2_connections_refused_total", "HL7 v2 connections that were not taken", ["reason"])
ALERTS = Counter("ris_v2_alerts_total", "Alerts raised about HL7 v2 interfaces", ["kind"])
DELIVERIES = Counter("ris_outbox_deliveries_total", "Attempts to deliver a message", ["destination", "outcome"])


def answered(method: str, status: int, seconds: float) -> None:
    """Count an HTTP request and the time that its answer took to begin."""
    requests, times = _of(method if method in _KNOWN_METHODS else "other", status)
    requests.inc()
    times.observe(seconds)


@cache  # methods and statuses are few
def _of(method: str, status: int) -> tuple[Counter, Histogram]:
    return HTTP_REQUESTS.labels(method, status), HTTP_SECONDS.labels(method)


def outbox_gauge(registry: CollectorRegistry) -> Gauge:
    """What waits in the outbox, counted when it is asked for."""
    return Gauge(
        "ris_outbox_messages", "Messages in the outbox that are not delivered", ["destination", "state"], registry=registry
    )


def outbox_age_gauge(registry: CollectorRegistry) -> Gauge:
    """How long the oldest message of each destination has waited, in seconds."""
    return Gauge(
        "ris_outbox_oldest_seconds", "Age of the oldest message that waits to be sent", ["destination"], registry=registry
    )


def parked_gauge(registry: CollectorRegistry) -> Gauge:
    """How many parts of messages wait for the order that they are about."""
    return Gauge("ris_v2_parked", "Parts of HL7 v2 messages that wait for their order", registry=registry)


def latest(own: CollectorRegistry) -> bytes:
    """The metrics of all processes of this server, and those of `own`."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest() + generate_latest(own)
    everywhere = CollectorRegistry()
    multiprocess.MultiProcessCollector(everywhere)  # type: ignore[no-untyped-call]
    return generate_latest(everywhere) + generate_latest(own)
