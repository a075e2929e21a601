"""What is counted of DICOM, for `/metrics`."""

from prometheus_client import Counter, Gauge, Histogram

ASSOCIATIONS = Counter("ris_dicom_associations_total", "DICOM associations that were asked for", ["outcome"])
ASSOCIATIONS_OPEN = Gauge("ris_dicom_associations_open", "DICOM associations that are open", multiprocess_mode="livesum")
REQUESTS = Counter("ris_dicom_requests_total", "DIMSE requests answered", ["operation", "status"])
REQUEST_SECONDS = Histogram(
    "ris_dicom_request_seconds",
    "Time to answer a DIMSE request",
    ["operation"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
WORKLIST_ANSWERS = Counter("ris_dicom_worklist_answers_total", "Worklist entries sent")
WORKLISTS_FROM_MEMORY = Counter("ris_dicom_worklists_from_memory_total", "Worklists answered while the database was away")
ALERTS = Counter("ris_dicom_alerts_total", "Alerts raised about scanners", ["kind"])
