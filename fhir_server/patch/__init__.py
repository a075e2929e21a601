"""Changes to a resource that say what to change: JSON Patch and FHIRPath Patch (FHIR R4 3.1.0.7).

Both give a new resource and leave their arguments alone. What comes out is still to be validated, as any resource that is
written. A FhirError is `structure` (400) for a patch that is not well formed, `value` (with status 422) for one that can't
be applied to this resource, and `too-long` (413) beyond the limits of limits.py; its expression names the operation.
"""

from fhir_server.patch.fhirpath_patch import apply_fhirpath_patch
from fhir_server.patch.json_patch import apply_json_patch

__all__ = ["apply_fhirpath_patch", "apply_json_patch"]
