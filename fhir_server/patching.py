"""A patch as it is sent: JSON Patch or FHIRPath Patch (FHIR R4 3.1.0.6), in a request or in an entry of a Bundle."""

import base64
import binascii
from functools import partial
from typing import Any

from fhir_server import fhir_json
from fhir_server.bundle_links import localize
from fhir_server.exchange import Patch
from fhir_server.http_body import JSON_PATCH
from fhir_server.outcome import fail
from fhir_server.patch import apply_fhirpath_patch, apply_json_patch
from fhir_server.registry import Resource


def as_patch(sent: Resource | list[Any], base_url: str) -> Patch:
    """What a body does to a resource: a list is a JSON Patch, a Parameters resource a FHIRPath Patch."""
    if isinstance(sent, list):
        return partial(_localized, partial(apply_json_patch, operations=sent), base_url)
    if sent.get("resourceType") != "Parameters":
        raise fail("structure", "a FHIRPath Patch is a Parameters resource", "Resource.resourceType")
    return partial(_localized, partial(apply_fhirpath_patch, parameters=sent), base_url)


def _localized(changes: Patch, base_url: str, resource: Resource) -> Resource:
    after = changes(resource)
    localize(after, base_url)
    return after


def of_entry(resource: Resource, base_url: str) -> Patch:
    """The patch in a Bundle's entry: Parameters, or a Binary that holds a JSON Patch (FHIR R4 3.1.0.11.1)."""
    if resource.get("resourceType") != "Binary":
        return as_patch(resource, base_url)
    if resource.get("contentType") != JSON_PATCH:
        raise fail("structure", f"the patch in a Binary is of type {JSON_PATCH}", "Binary.contentType")
    try:
        data = base64.b64decode(str(resource.get("data", "")), validate=True)
    except (binascii.Error, ValueError):
        raise fail("structure", "this is not base64", "Binary.data") from None
    return as_patch(fhir_json.loads_array(data), base_url)
