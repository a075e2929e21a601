"""`$sign`, `$addend`, `$correct`, `$withdraw` and `$verify` of a report: what a signature stands for, and what may come after it.

    $sign      an attending finalises; a resident's signature makes the report preliminary
    $addend    adds an addendum: the report is appended
    $correct   replaces sections, with a reason: it is corrected (an error) or amended (new facts)
    $withdraw  with a reason: entered-in-error after it was signed, cancelled before
    $verify    the signatures of the report, and whether they are valid

Each is signed in Provenance (`signature.py`), in the same transaction. Earlier versions stay readable in the history.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from fhir_server import audit, clock
from fhir_server.elements import same
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation, diagnostic_report, terms
from resources.announced import Announced
from resources.department_operation import seen
from resources.reading import critical_request, document, report_parts, signature
from resources.reading.offering import offer
from resources.reading.readers import SIGNED, is_resident
from resources.reading.report_parts import PARTS, said, section_code
from resources.reading.signature import Kind, Signer
from resources.report_section import ADDENDUM
from smart_auth.step_up import challenge

_NEEDS: Final = {"DiagnosticReport": "u", "Observation": "cu"}
_CHANGES: Final = frozenset({"corrected", "amended"})
_SECOND: Final = frozenset({"otp", "mfa"})  # of RFC 8176, what shows a second factor
_DRAFTS: Final = frozenset({"registered", "partial", "preliminary"})

Work = Callable[[UnitOfWork, Resource], Awaitable[Resource]]


class ReportSigning:
    """The operations. `second_factor_minutes`: so long ago a second factor may have been shown; 0: none is asked for."""

    def __init__(self, signer: Signer, second_factor_minutes: int = 0) -> None:
        self._signer = signer
        self._within = timedelta(minutes=second_factor_minutes)
        self._signing = Announced()

    def register(self, registry: Registry) -> None:
        """Offer them; where a second factor is asked for, people sign by them alone."""
        runs = {"sign": self.sign, "addend": self.addend, "correct": self.correct, "withdraw": self.withdraw}
        offer(registry, "DiagnosticReport", runs)
        definition = "urn:fhir-ris:OperationDefinition/DiagnosticReport-verify"
        levels, types = frozenset[Level]({"instance"}), frozenset({"DiagnosticReport"})
        registry.operation(Operation("verify", definition, levels, verify, types))
        if self._within:
            registry.rule("DiagnosticReport", self._check)

    async def _check(self, unit: UnitOfWork, change: Change) -> None:
        report, before = change.after, change.before
        if report is None or not unit.access.person or unit in self._signing or report.get("status") not in SIGNED:
            return
        if before is None or any(not same(before.get(e), report.get(e)) for e in ("status", *diagnostic_report.SIGNED_FOR)):
            text = "a report is signed with a second factor: by $sign, $addend, $correct or $withdraw"
            raise fail("business-rule", text, "DiagnosticReport.status")

    async def sign(self, call: Call) -> Answer:
        """FhirError 401 without a second factor where one is asked for, 409 for what is signed already."""
        arguments.check_body("sign", call.body, frozenset())
        who = await self._signer_of(call, "sign")

        async def work(unit: UnitOfWork, report: Resource) -> Resource:
            if report["status"] not in _DRAFTS:
                raise fail(
                    "conflict", f"the report is {report['status']}: it can be addended or corrected", "DiagnosticReport.status"
                )
            resident = await is_resident(unit, who)
            status = "preliminary" if resident else "final"
            await report_parts.settle(unit, report, status)
            readers = [r for r in report.get("resultsInterpreter", ()) if r.get("reference") != who]
            me = {"reference": who}
            named = [*readers, me] if resident else [me, *readers]
            kind = signature.VERIFICATION if readers and not resident else signature.AUTHOR
            return await self._signed(unit, report | {"status": status, "resultsInterpreter": named}, kind, who)

        return await self._change(call, work)

    async def addend(self, call: Call) -> Answer:
        """FhirError 409 for a report that isn't signed."""
        arguments.check_body("addend", call.body, frozenset({"text"}))
        text = arguments.one(call, "text")
        if not text:
            raise fail("required", "text is the addendum", "Parameters.parameter", status=400)
        who = await self._signer_of(call, "addend")

        async def work(unit: UnitOfWork, report: Resource) -> Resource:
            _require_signed(report)
            code = section_code({"system": terms.LOINC, "code": ADDENDUM})
            added = await report_parts.add_section(unit, report, code, text, "final")
            return await self._signed(unit, added | {"status": "appended"}, signature.ADDENDUM, who)

        return await self._change(call, work)

    async def correct(self, call: Call) -> Answer:
        """FhirError 409 for a report that isn't signed, 400 without a reason or anything to correct."""
        arguments.check_body("correct", call.body, PARTS | {"reason", "status"})
        reason, status = arguments.one(call, "reason"), arguments.one(call, "status") or "corrected"
        what = said(call)
        if not reason or what.is_empty:
            raise fail("required", "$correct takes the reason and what is said instead", "Parameters.parameter", status=400)
        if status not in _CHANGES:
            raise fail("value", "status is corrected (an error) or amended (new facts)", "Parameters.parameter", status=400)
        who = await self._signer_of(call, "correct")

        async def work(unit: UnitOfWork, report: Resource) -> Resource:
            _require_signed(report)
            changed = await report_parts.put(unit, report, what, status)
            return await self._signed(unit, changed | {"status": status}, signature.MODIFICATION, who, reason)

        return await self._change(call, work)

    async def withdraw(self, call: Call) -> Answer:
        """FhirError 409 for what is withdrawn already, 400 without a reason."""
        arguments.check_body("withdraw", call.body, frozenset({"reason"}))
        reason = arguments.one(call, "reason")
        if not reason:
            raise fail("required", "reason says why the report is withdrawn", "Parameters.parameter", status=400)
        who = await self._signer_of(call, "withdraw")

        async def work(unit: UnitOfWork, report: Resource) -> Resource:
            if report["status"] in {"cancelled", "entered-in-error"}:
                raise fail("conflict", f"the report is {report['status']}", "DiagnosticReport.status")
            status = "entered-in-error" if report["status"] in SIGNED else "cancelled"
            if status == "entered-in-error" and await is_resident(unit, who):
                raise fail("forbidden", "a signed report is withdrawn by an attending", "DiagnosticReport.status")
            stored = await unit.update(await document.composed(unit, report | {"status": status}))
            await report_parts.withdraw(unit, report, await report_parts.results_of(unit, report))
            return await self._put_under(unit, stored, signature.ADMINISTRATIVE, who, reason)

        return await self._change(call, work)

    # What they have in common

    async def _signer_of(self, call: Call, operation: str) -> str:
        """Who signs. FhirError 403 for who may not, or is nobody; 401 without a second factor where one is asked for."""
        await department_operation.require(call, operation, _NEEDS)
        access = call.access
        if not access.person or not access.user:
            raise fail("forbidden", f"${operation} is a person's signature: it needs a person's token")
        if self._within:
            since = access.authenticated_at
            fresh = since is not None and datetime.now(UTC) - since <= self._within
            if not (fresh and _SECOND & set(access.methods)):
                seconds = int(self._within.total_seconds())
                text = f"signing needs a login with a second factor within the last {seconds} s: authorize again"
                raise challenge(text, seconds)
        return access.user

    async def _signed(self, unit: UnitOfWork, report: Resource, kind: Kind, who: str, reason: str = "") -> Resource:
        """Store the report with its documents, as of now, and what follows from it; then sign that."""
        before = await unit.read("DiagnosticReport", report["id"])
        issued = await critical_request.raised(unit, report | {"issued": clock.instant(unit.now)}, before)
        stored = await unit.update(await document.composed(unit, issued))
        return await self._put_under(unit, stored, kind, who, reason)

    async def _put_under(self, unit: UnitOfWork, report: Resource, kind: Kind, who: str, reason: str) -> Resource:
        await unit.react()
        now = unit.final(report)
        await self._signer.sign(unit, kind, [now, *await report_parts.results_of(unit, now)], who, reason)
        return now

    async def _change(self, call: Call, work: Work) -> Answer:
        async def whole(unit: UnitOfWork) -> Callable[[], Resource]:
            report = await seen(unit, Target("DiagnosticReport", str(call.id)), "u")
            with self._signing(unit), unit.as_department():
                stored = await work(unit, report)
            return lambda: unit.final(stored)

        named = audit.seen([f"DiagnosticReport/{call.id}"])
        return Answer((await call.interactions.transact(call.access, call.act, whole, named))())


def _require_signed(report: Resource) -> None:
    if report["status"] not in SIGNED:
        raise fail("conflict", f"the report is {report['status']}: it can still be written and signed", "DiagnosticReport.status")


async def verify(call: Call) -> Answer:
    """Each signature of a report: which version, who, when, and whether it is valid and the version as it was signed."""
    arguments.check_body("verify", call.body, frozenset())
    await department_operation.require(call, "verify", {"DiagnosticReport": "r"})

    async def look(unit: UnitOfWork) -> list[Resource]:
        report = await seen(unit, Target("DiagnosticReport", str(call.id)))
        found = []
        for provenance in await unit.search("Provenance", target=f"DiagnosticReport/{report['id']}"):
            for one in provenance.get("signature", ()):
                if (checked := await signature.check(unit, one)) is not None:
                    intact = await signature.stands(unit, checked.versions)
                    found.append(_row(report, provenance, checked, intact=intact))
        return sorted(found, key=lambda row: str(row["part"][2]["valueInstant"]))

    rows = await call.interactions.transact(call.access, call.act, look, audit.seen([f"DiagnosticReport/{call.id}"]))
    return Answer({"resourceType": "Parameters"} | ({"parameter": rows} if rows else {}))


def _row(report: Resource, provenance: Resource, checked: signature.Checked, *, intact: bool) -> Resource:
    version = next((v for v in checked.versions if v.startswith(f"DiagnosticReport/{report['id']}/")), "")
    parts: list[Resource] = [
        {"name": "version", "valueReference": {"reference": version or f"DiagnosticReport/{report['id']}"}},
        {"name": "who", "valueReference": {"reference": checked.who}},
        {"name": "when", "valueInstant": checked.when},
        {"name": "valid", "valueBoolean": bool(version) and checked.valid and intact},
        {"name": "key", "valueString": checked.kid},
        {"name": "provenance", "valueReference": {"reference": f"Provenance/{provenance['id']}"}},
    ]
    return {"name": "signature", "part": parts}
