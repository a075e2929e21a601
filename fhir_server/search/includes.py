"""`_include` and `_revinclude` as they are written (FHIR R4 Search, "Including other resources in result")."""

from dataclasses import dataclass

from fhir_server import definitions
from fhir_server.outcome import fail
from fhir_server.search.index import searchable, targets


@dataclass(frozen=True, slots=True)
class Include:
    """What else is wanted beside the matches.

    `source` is the type that holds the reference, `parameter` its search parameter, `target` the type referred to if named;
    None stands for any. `reverse` is `_revinclude`; `iterate` looks at what was included as well.
    """

    source: str | None
    parameter: str | None
    target: str | None
    reverse: bool
    iterate: bool


def include(resource_type: str | None, name: str, value: str) -> Include:
    """`Type:parameter`, `Type:parameter:Target`, `Type:*` or `*`. `resource_type` is the type searched, None for several."""
    kind, _, modifier = name.partition(":")
    reverse, iterate = kind == "_revinclude", bool(modifier)
    if value == "*":
        return Include(None if reverse or iterate else resource_type, None, None, reverse, iterate)
    parts = value.split(":")
    source, parameter, target = [*parts, "", ""][:3]
    if len(parts) not in {2, 3} or source not in definitions.RESOURCE_TYPES:
        raise fail("invalid", f"{kind} is written Type:parameter or Type:parameter:Target, not {value[:64]!r}", status=400)
    if not reverse and not iterate and resource_type not in {None, source}:
        raise fail("invalid", f"{kind}={value[:64]}: what is searched is {resource_type}", status=400)
    if target and target not in definitions.RESOURCE_TYPES:
        raise fail("invalid", f"{target[:64]!r} is not a FHIR R4 resource type", status=400)
    if parameter == "*":
        return Include(source, None, target or None, reverse, iterate)
    if searchable(source).get(parameter) != "reference":
        raise fail("invalid", f"{source} has no reference parameter {parameter[:64]!r}", status=400)
    leads_to = targets(source, parameter)
    wanted = target or (resource_type if reverse and not iterate else None)
    if wanted and wanted not in leads_to:
        raise fail("invalid", f"{source}.{parameter} does not refer to {wanted}", status=400)
    if reverse and not iterate and resource_type not in {None, wanted}:
        raise fail("invalid", f"{kind}={value[:64]}: what is searched is {resource_type}", status=400)
    return Include(source, parameter, target or None, reverse, iterate)
