"""Break-glass: opening one patient's record in an emergency, past labels and denials, under the eyes of the privacy officer.

`POST Patient/[id]/$break-glass` with Parameters: `reason` (string, in words), `minutes` (integer, at most 60). Where the id isn't
known, as the record is hidden: `POST Patient/$break-glass` with `identifier` (`system|value`) beside. It is for people in the
roles that may (`roles.py`), never for scopes of one patient or for backend clients, and needs a login within the last five
minutes: an unattended workstation opens nothing. It holds for the session in which it was asked for, and for the actions that
role and scopes allow anyway. `POST Patient/[id]/$mend-glass` ends it before its time.

What it leaves behind: an AuditEvent of its beginning and of its end (DICOM PS3.16: 110113 Security Alert; 110127 and 110138
Emergency Override Started and Stopped), a Task for the privacy officer, and "BTG" as the purpose of what is done meanwhile.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pymongo.errors import PyMongoError

from fhir_server import audit, clock
from fhir_server.audit import Act
from fhir_server.background import beside
from fhir_server.interactions import Interactions
from fhir_server.operations import Answer, Call, Level, Operation, Resource, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target
from fhir_server.registry import Registry
from fhir_server.search.conditions import keyed, keys
from fhir_server.unit_of_work import UnitOfWork
from smart_auth import break_glass_log, labels, membership
from smart_auth.access import Access
from smart_auth.roles import REVIEW, role
from smart_auth.step_up import challenge
from smart_auth.tokens import Tokens

LONGEST = 60  # minutes
FRESH = timedelta(minutes=5)  # so long ago the person may have proved who it is (password, and second factor where there is one)
_EVERY_SECONDS = 30.0
_SHORTEST_REASON, _LONGEST_REASON = 10, 500  # characters
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_ALERT = {"system": _DCM, "code": "110113", "display": "Security Alert"}
_STARTED = {"system": _DCM, "code": "110127", "display": "Emergency Override Started"}
_STOPPED = {"system": _DCM, "code": "110138", "display": "Emergency Override Stopped"}
_BTG = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "BTG", "display": "break the glass"}


class BreakGlass:
    """The two operations. What is opened or closed counts at once in this process, in others within a second."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def register(self, registry: Registry) -> None:
        """Offer them."""
        # No parameters in the address: a reason is nothing for logs.
        of, own = frozenset({"Patient"}), "urn:fhir-ris:OperationDefinition/Patient-"
        both = frozenset[Level]({"type", "instance"})
        registry.operation(Operation("break-glass", own + "break-glass", both, self.begin, of, affects_state=True))
        registry.operation(
            Operation("mend-glass", own + "mend-glass", frozenset[Level]({"instance"}), self.end, of, affects_state=True)
        )

    async def begin(self, call: Call) -> Answer:
        """Open the record; until when. FhirError 403 for who may not, 401 after a login too long ago, 404 for no such patient."""
        await self._require_right(call)
        await self._require_fresh_login(call)
        names = {"reason", "minutes"} | (set() if call.id else {"identifier"})
        arguments.check_body("break-glass", call.body, frozenset(names))
        reason, minutes = _reason(call), _minutes(call)
        patient = call.id or await _by_identifier(call)
        if patient is None:
            await self._tried(call, None, f"no such patient: {reason}")
            raise fail("not-found", "there is not one patient with this identifier")
        db = call.interactions.store.db
        await close_what_is_over(call.interactions)
        event = _event(call.access, _STARTED, patient, f"for {minutes} minutes: {reason}", call.act.peer)

        async def work(unit: UnitOfWork) -> bool:
            if await unit.read("Patient", patient) is None:
                return False
            unit.record(event)
            await unit.create(_review(call.access, patient, event["id"], reason))
            return True

        office = Access.system("break-glass")
        if not await call.interactions.transact(office, Act("break-glass", source="break-glass"), work):
            await self._tried(call, patient, f"no such patient: {reason}")
            raise fail("not-found", f"there is no Patient/{patient}")
        span = timedelta(minutes=minutes)
        until = await break_glass_log.begin(db, str(call.access.user_name), call.access.session, patient, span, event["id"])
        self._tokens.forget(call.access.token_id)
        return _answer(("patient", {"valueReference": {"reference": f"Patient/{patient}"}}), ("until", _instant(until)))

    async def _tried(self, call: Call, patient: str | None, text: str) -> None:
        failed = _event(call.access, _STARTED, patient, text, call.act.peer) | {"outcome": "4"}
        await call.interactions.store.ensure("AuditEvent")
        await call.interactions.reads.write(failed)

    async def end(self, call: Call) -> Answer:
        """Close the record again. FhirError `not-found` where it isn't open to this session."""
        await self._require_right(call)
        where = {"user_name": call.access.user_name, "session": call.access.session, "patient": call.id}
        closed = await break_glass_log.end(call.interactions.store.db, where | {"until": {"$gt": datetime.now(UTC)}})
        if closed is None:
            raise fail("not-found", "this record is not open by break-glass")
        self._tokens.forget(call.access.token_id)
        await call.interactions.reads.write(_event(call.access, _STOPPED, str(call.id), "by the person", call.act.peer))
        return _answer(("ended", _instant(datetime.now(UTC))))

    async def _require_fresh_login(self, call: Call) -> None:
        since = call.access.authenticated_at
        if since is not None and datetime.now(UTC) - since <= FRESH:
            return
        seconds = int(FRESH.total_seconds())
        text = f"breaking the glass needs a login within the last {seconds} s: authorize again, with max_age={seconds}"
        await self._tried(call, call.id, "the login was too long ago")
        raise challenge(text, seconds)

    async def _require_right(self, call: Call) -> None:
        access, known = call.access, role(call.access.role)
        scoped = any(scope.level == "user" and scope.covers("Patient", "r") for scope in access.scopes)
        if not (known and known.breaks_glass and access.user and access.user_name and scoped):
            act = Act("break-glass", source="break-glass", detail="refused", peer=call.act.peer)
            text = "breaking the glass is for people of the department, in roles that may, with a scope user/Patient.r"
            await call.interactions.store.ensure("AuditEvent")
            await call.interactions.reads.write(audit.audit_event(act, access, (), failed=text))
            raise fail("forbidden", text)


async def would_open(interactions: Interactions, access: Access, patient: str) -> bool:
    """Whether there is something of this patient that the person sees only when the record is open: what $break-glass is for."""
    about, known = access.circumstances, role(access.role)
    if about is None or known is None or not known.breaks_glass or patient in about.opened:
        return False
    opened = access.under(replace(about, opened=about.opened | {patient}))

    async def hidden(kind: str) -> bool:
        now, then = (who.filter(kind, "r") for who in (access, opened))
        where = [membership.of(kind, [patient]), *([then] if then else []), {"$nor": [now]}]
        return now is not None and await interactions.store.current(kind).find_one({"$and": where}, {"_id": 1}) is not None

    kinds = [k for k in await interactions.store.known_types() if membership.belongs(k) and access.allows(k, "r")]
    return any(await asyncio.gather(*map(hidden, kinds)))


@contextlib.asynccontextmanager
async def watching(interactions: Interactions) -> AsyncIterator[None]:
    """Put what runs out on record, for as long as the block lasts; of several processes one does it."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            with contextlib.suppress(PyMongoError):
                await close_what_is_over(interactions)

    async with beside(watch()):
        yield


async def close_what_is_over(interactions: Interactions) -> int:
    """Put the end of what has run out on record, once; how many there were."""
    done = 0
    while (over := await break_glass_log.end(interactions.store.db, {"until": {"$lte": datetime.now(UTC)}})) is not None:
        access = Access(client_id="break-glass", scopes=(), token_id="", user_name=over["user_name"])
        await interactions.store.ensure("AuditEvent")
        await interactions.reads.write(_event(access, _STOPPED, over["patient"], f"its time was over at {over['until']:%FT%TZ}"))
        done += 1
    return done


def _reason(call: Call) -> str:
    reason = " ".join((arguments.one(call, "reason") or "").split())
    if not _SHORTEST_REASON <= len(reason) <= _LONGEST_REASON or len(set(reason.casefold())) < 5:
        text = f"say in words why the record is opened: {_SHORTEST_REASON} to {_LONGEST_REASON} characters"
        raise fail("required", text, "Parameters.parameter")
    return reason


def _minutes(call: Call) -> int:
    text = arguments.one(call, "minutes") or str(LONGEST)
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and 1 <= int(text) <= LONGEST):
        raise fail("value", f"minutes is 1 to {LONGEST}", "Parameters.parameter")
    return int(text)


async def _by_identifier(call: Call) -> str | None:
    """The one patient with this identifier, hidden or not: who may ask for this knows it from the patient or the order."""
    given = arguments.one(call, "identifier") or ""
    system, _, value = given.partition("|")
    if not system or not value:
        raise fail("required", "identifier is written system|value", "Parameters.parameter")
    where = keyed(keys("Patient", "token", "identifier", "", given, call.base_url))
    found = await call.interactions.store.current("Patient").find(where, {"_id": 1}, limit=2).to_list()
    return str(found[0]["_id"]) if len(found) == 1 else None


def _event(access: Access, what: Resource, patient: str | None, text: str, peer: str | None = None) -> Resource:
    """The AuditEvent (FHIR R4; DICOM PS3.15 A.5.3.11 "Security Alert")."""
    act = Act("break-glass", source="break-glass", detail=text, peer=peer)
    event = audit.audit_event(act, access, audit.seen([str(Target("Patient", patient))] if patient else []))
    event["agent"][0]["purposeOfUse"] = [{"coding": [_BTG]}]
    return event | {"type": _ALERT, "subtype": [what], "purposeOfEvent": [{"coding": [_BTG]}]}


def _review(access: Access, patient: str, event: str, reason: str) -> Resource:
    """What the privacy officer is to look at. It is nobody's `for`, and very restricted: its patient's record stays as it is."""
    system, _, code = REVIEW.partition("|")
    return {
        "resourceType": "Task",
        "meta": {"security": [{"system": labels.SYSTEM, "code": "V"}]},
        "status": "requested",
        "intent": "order",
        "priority": "urgent",
        "code": {"coding": [{"system": system, "code": code, "display": "Review of an emergency access"}]},
        "description": f"{access.user_name} ({access.role}) opened this record in an emergency",
        "focus": {"reference": f"Patient/{patient}"},
        "requester": {"reference": access.user},
        "reasonCode": {"text": reason},
        "authoredOn": clock.instant(clock.now()),
        "input": [{"type": {"text": "AuditEvent"}, "valueReference": {"reference": f"AuditEvent/{event}"}}],
    }


def _answer(*parts: tuple[str, Resource]) -> Answer:
    return Answer({"resourceType": "Parameters", "parameter": [{"name": name, **value} for name, value in parts]})


def _instant(moment: datetime) -> Resource:
    return {"valueInstant": clock.instant(moment)}
