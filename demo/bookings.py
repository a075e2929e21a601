"""What a scheduler's app sends to book an order."""

from datetime import datetime, timedelta
from typing import Any

Resource = dict[str, Any]


def booking(order: Resource, device: str, start: datetime, minutes: float, status: str = "booked") -> Resource:
    """The Appointment of an order's patient at a scanner (`Device/ct1`)."""
    return {
        "resourceType": "Appointment",
        "status": status,
        "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}],
        "start": start.isoformat(),
        "end": (start + timedelta(minutes=minutes)).isoformat(),
        "participant": [{"actor": actor, "status": "accepted"} for actor in (order["subject"], {"reference": device})],
    }
