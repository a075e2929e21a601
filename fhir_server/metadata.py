"""The `capabilities` interaction (FHIR R4 3.1.0.10): what we say of ourselves, whole or in part."""

from collections.abc import Callable

from fhir_server.exchange import Parameters, view
from fhir_server.outcome import fail
from fhir_server.registry import Resource

_MODES = ("full", "normative", "terminology")
# The resource types that are normative in R4 (FHIR R4 2.1.12.3, "Normative content").
_NORMATIVE = frozenset(
    "Binary Bundle CapabilityStatement CodeSystem Observation OperationDefinition OperationOutcome Parameters Patient"
    " StructureDefinition ValueSet".split()
)  # fmt: skip


class Metadata:
    """Answers `GET /metadata`. `terminology` makes the TerminologyCapabilities, where there is one."""

    def __init__(self, statement: Callable[[], Resource], terminology: Callable[[], Resource] | None = None) -> None:
        self._statement = statement
        self._terminology = terminology

    def answer(self, parameters: Parameters, *, lenient: bool = False) -> Resource:
        """The resource that `mode` asks for, and `_summary` and `_elements` leave of it."""
        modes = [value for name, value in parameters if name == "mode"]
        mode = modes[0] if modes else "full"
        if mode not in _MODES or len(modes) > 1:
            raise fail("invalid", f"mode is one of {', '.join(_MODES)}", status=400)
        shown = view([(name, value) for name, value in parameters if name != "mode"], lenient=lenient)
        return shown.show(self._of_mode(mode))

    def _of_mode(self, mode: str) -> Resource:
        if mode == "terminology":
            if self._terminology is None:
                raise fail("not-supported", "there is no TerminologyCapabilities here")
            return self._terminology()
        return self._statement() if mode == "full" else _normative(self._statement())


def _normative(statement: Resource) -> Resource:
    rest = [
        server | {"resource": [r for r in server.get("resource", ()) if r["type"] in _NORMATIVE]}
        for server in statement.get("rest", ())
    ]
    return statement | {"rest": rest}
