"""Leases, which both bridges use: `fhir_server/leases.py`."""

from fhir_server.leases import COLLECTION, Lease, give_back

__all__ = ["COLLECTION", "Lease", "give_back"]
