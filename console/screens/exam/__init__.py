"""One exam, everything: its present state, and a timeline of all that happened to it through every door (docs/console/exam.md).

record.py      what belongs to it          timeline.py   what happened, as events
summary.py     what it is like now         versions.py   the versions of its parts
messages.py    HL7 v2 and DICOM messages   message_rights.py   who reads what of them
trail.py       AuditEvents, for auditors   actions.py    what can be done here
"""

import base64

import orjson
from starlette.responses import Response

from console import dicom_view, differences, emergency
from console.screen import Door, Screen, does, shows
from console.screens.exam import actions, messages, record, summary, timeline, trail, versions, words
from console.screens.exam.record import Exam
from console.screens.exam.versions import Version
from console.visit import Visit
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Resource

_SEES = "ServiceRequest.r"
SCREEN = Screen("exam", "/exams", "e", "")


async def show(visit: Visit) -> Response:
    """The exam; for who may read AuditEvents alone, those."""
    if not visit.can(_SEES) and visit.can("AuditEvent.s"):
        return await trail.show(visit)
    await visit.require(_SEES)
    try:
        exam = await record.load(visit.desk, visit.id())
    except FhirError as error:
        if error.code == "not-found" and emergency.may(visit):
            return await actions.show_closed(visit)
        raise
    if (order := record.order_of(exam.order)) and order != exam.id:
        return visit.to(f"/exams/{order}")
    events = timeline.page(visit, await _events(visit, exam))
    return visit.page(
        "exam/index.html", exam=exam, now=summary.of(visit, exam), timeline=events, may=summary.may,
        works_at=summary.works_at, opens_more=await actions.opens_more(visit, exam), is_open=actions.is_open(visit, exam),
    )  # fmt: skip


async def _events(visit: Visit, exam: Exam) -> list[timeline.Event]:
    parts = ",".join(exam.parts)
    written, rows, provenances = await visit.desk.together(
        versions.of_exam(visit.desk, exam, visit.allows("Binary", "r")), messages.of_exam(visit, exam), _provenances(visit, parts)
    )
    return [
        *timeline.of_messages(visit, rows),
        *timeline.of_versions(visit, exam, written, rows),
        *timeline.of_provenance(visit, provenances),
    ]


async def _provenances(visit: Visit, parts: str) -> list[Resource]:
    if not visit.allows("Provenance", "s"):
        return []
    return (await visit.desk.search("Provenance", target=parts, _count="200")).matches


async def show_version(visit: Visit) -> Response:
    """A version of a part, and what is different from the one before."""
    exam = await record.load(visit.desk, visit.id())
    reference, number = f"{visit.id('type')}/{visit.id('part')}", visit.id("version")
    if not (number.isascii() and number.isdecimal() and len(number) < 7 and int(number)):
        raise fail("not-found", "there is no such version")
    if reference not in {f"Binary/{id_}" for id_ in exam.data_sets}:
        exam.require(reference)
    version = await versions.one(visit.desk, reference, int(number))
    name = words.name(visit.t, version.resource or {})
    newest = exam.parts.get(reference, {}).get("meta", {}).get("versionId", "")
    shown = {"exam": exam, "version": version, "name": name, "newest": newest}
    if version.type == "Binary":
        return visit.page("exam/data_set.html", rows=_data_set(version), **shown)
    rows, left_off = differences.differences(version.before or {}, version.resource)
    return visit.page("exam/version.html", rows=rows, left_off=left_off, **shown)


def _data_set(version: Version) -> list[dicom_view.Attribute]:
    now, was = (orjson.loads(base64.b64decode(r["data"])) if r else None for r in (version.resource, version.before))
    return dicom_view.rows(now or {}, was)


async def to_find(visit: Visit) -> Response:
    """Exams are found by patient or number."""
    return visit.to("/find")


_ONE = "/exams/{id}"
DOORS: list[Door] = [
    shows("/exams", to_find),
    shows(_ONE, show),
    shows(_ONE + "/versions/{type}/{part}/{version}", show_version, needs=_SEES),
    shows(_ONE + "/messages/{message}", messages.show, needs="$exam-messages"),
    shows(_ONE + "/move", actions.show_move, needs="$move"),
    does(_ONE + "/move/find", actions.show_move, needs="$move"),
    does(_ONE + "/move", actions.move, again=actions.show_move, needs="$move"),
    does(_ONE + "/open", actions.open_closed, again=actions.show_closed, needs=_SEES),
    does(_ONE + "/open-record", actions.open_record, again=show, needs=_SEES),
    does(_ONE + "/close-record", actions.close_record, again=show, needs=_SEES),
]
