"""Prometheus metrics of this process. No labels that could name a patient."""

from prometheus_client import Counter, Gauge, Histogram

HTTP_REQUESTS = Counter("ris_http_requests_total", "FHIR requests answered", ["method", "status"])
HTTP_SECONDS = Histogram(
    "ris_http_request_seconds",
    "Time to answer a FHIR request",
    ["method"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
MESSAGES_IN = Counter("ris_v2_messages_in_total", "HL7 v2 messages received", ["type", "answer"])
DELIVERIES = Counter("ris_outbox_deliveries_total", "Attempts to deliver a message", ["destination", "outcome"])
OUTBOX = Gauge("ris_outbox_messages", "Messages in the outbox that are not delivered", ["destination", "state"])
