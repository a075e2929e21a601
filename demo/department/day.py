"""A day of the department: patients come by HL7 v2, are booked over FHIR, examined over DICOM and reported over FHIR.

It is told around the present moment: what is three hours ago has been read, what is now is in the rooms, the rest is to come.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from demo import ehr
from demo.apps import App
from demo.bookings import booking
from demo.department.rooms import EXAMINATIONS, STATIONS, Examination
from demo.scanner import Scanner
from demo.server import Server

Resource = dict[str, Any]
State = Literal[
    "held", "unscheduled", "booked", "noshow", "arrived", "started", "unread", "claimed", "preliminary", "final", "critical"
]
_CRITICAL: Final = "RID49480"  # RadLex: ACR category 1, to be told within minutes
_SCANNED: Final = ("unread", "claimed", "preliminary", "final", "critical")


@dataclass(frozen=True, slots=True)
class Case:
    """A patient's examination: HL7 v2's priority (table 0485), why, at which scanner, and how many minutes from now."""

    family: str
    given: str
    sex: str
    born: str
    code: str
    priority: str
    reason: str
    station: str = ""
    minutes: int = 0
    state: State = "booked"

    @property
    def examination(self) -> Examination:
        return EXAMINATIONS[self.code]


# At CT 1 the time from 20 to 60 minutes is left to the patient of the play.
_CHEST, _ABDOMEN, _HEAD, _BRAIN, _KNEE, _XR, _US = EXAMINATIONS
CASES: Final = (
    Case("Abel", "Anton", "M", "19520314", _CHEST, "R", "C34.1^Lung cancer, restaging^I10", "CT1", -190, "final"),
    Case("Brandt", "Berta", "F", "19471102", _CHEST, "R", "R05^Cough for six weeks^I10", "CT1", -160, "final"),
    Case(
        "Conrad", "Carla", "F", "19890621", _ABDOMEN, "A", "R10.3^Pain in the right lower abdomen^I10", "CT1", -130, "preliminary"
    ),
    Case("Dietz", "Dora", "F", "19631219", _CHEST, "S", "R06.0^Sudden breathlessness^I10", "CT1", -100, "critical"),
    Case("Engel", "Emil", "M", "19780405", _ABDOMEN, "R", "K80.2^Gallstones, follow-up^I10", "CT1", -70, "unread"),
    Case("Falk", "Frieda", "F", "19550930", _CHEST, "R", "R91^Nodule in the lung, follow-up^I10", "CT1", -40, "started"),
    Case("Gruber", "Georg", "M", "19660117", _CHEST, "R", "R04.2^Coughing up blood^I10", "CT1", -10, "arrived"),
    Case("Haas", "Hanna", "F", "19921008", _ABDOMEN, "R", "R19.0^Swelling in the abdomen^I10", "CT1", 60),
    Case("Imhof", "Ilse", "F", "19380226", _CHEST, "R", "J18.9^Pneumonia, course^I10", "CT1", 120),
    Case("Jung", "Jakob", "M", "19840713", _HEAD, "S", "S06.0^Fall, unconscious for a minute^I10", "CT2", -100, "unread"),
    Case("Keller", "Klara", "F", "19710503", _HEAD, "A", "R51^Worst headache ever^I10", "CT2", -70, "claimed"),
    Case("Lang", "Leo", "M", "19450811", _HEAD, "R", "F03^Dementia, first examination^I10", "CT2", -40, "unread"),
    Case("Moser", "Marta", "F", "19590124", _HEAD, "A", "R42^Vertigo since yesterday^I10", "CT2", 10, "arrived"),
    Case("Neumann", "Nils", "M", "20010329", _HEAD, "R", "G44.2^Headache for months^I10", "CT2", 50),
    Case("Otto", "Olga", "F", "19740916", _BRAIN, "R", "G35^Multiple sclerosis, course^I10", "MR1", -170, "final"),
    Case("Pohl", "Peter", "M", "19680422", _KNEE, "R", "M23.2^Knee locks after a twist^I10", "MR1", -120, "preliminary"),
    Case("Quandt", "Quirin", "M", "19950707", _KNEE, "R", "S83.5^Cruciate ligament torn?^I10", "MR1", -80, "unread"),
    Case("Richter", "Rosa", "F", "19810212", _BRAIN, "A", "R56.8^First seizure^I10", "MR1", -30, "started"),
    Case("Seidel", "Sven", "M", "19570618", _BRAIN, "R", "H53.4^Loss of the visual field^I10", "MR1", 30, "arrived"),
    Case("Thiel", "Thea", "F", "19990525", _KNEE, "R", "M25.5^Pain in the knee^I10", "MR1", 80),
    Case("Ulrich", "Uwe", "M", "19620301", _BRAIN, "R", "D33^Tumour of the brain, follow-up^I10", "MR1", 130),
    Case("Vogt", "Vera", "F", "19331204", _XR, "R", "J18.9^Pneumonia?^I10", "DX1", -140, "final"),
    Case("Wagner", "Willi", "M", "19700820", _XR, "R", "Z01.8^Before an operation^I10", "DX1", -110, "final"),
    Case("Xaver", "Xenia", "F", "19860111", _XR, "A", "R07.4^Pain in the chest^I10", "DX1", -50, "unread"),
    Case("Yildiz", "Yusuf", "M", "19790919", _XR, "R", "R05^Cough^I10", "DX1", -40, "noshow"),
    Case("Zeller", "Zita", "F", "20040430", _XR, "R", "Z02.1^For an employer^I10", "DX1", 10, "arrived"),
    Case("Albers", "Alma", "F", "19490602", _XR, "R", "I50.9^Heart failure, course^I10", "DX1", 40),
    Case("Böhm", "Bruno", "M", "19560715", _US, "R", "R10.1^Pain in the upper abdomen^I10", "US1", -60, "unread"),
    Case("Claus", "Cora", "F", "19910326", _US, "R", "N20.0^Kidney stones^I10", "US1", -20, "started"),
    Case("Dörr", "Dirk", "M", "19651128", _US, "R", "K76.0^Fatty liver^I10", "US1", 20, "arrived"),
    Case("Ebert", "Edda", "F", "19770809", _US, "R", "R94.5^Liver values raised^I10", "US1", 60),
    Case("Frank", "Fritz", "M", "19430119", _CHEST, "R", "C18^Bowel cancer, staging^I10", state="unscheduled"),
    Case("Gerber", "Gerda", "F", "19600214", _BRAIN, "R", "G40^Epilepsy, course^I10", state="unscheduled"),
    Case("Huber", "Hugo", "M", "19880501", _KNEE, "R", "M17^Arthrosis of the knee^I10", state="unscheduled"),
    Case("Iversen", "Inka", "F", "19520828", _CHEST, "A", "R63.4^Loss of weight^I10", state="unscheduled"),
    Case("Jahn", "Jutta", "F", "19671013", _US, "R", "R16.0^Liver enlarged^I10", state="unscheduled"),
    Case("Köhler", "Kai", "M", "19940404", _HEAD, "S", "S02^Blow to the face^I10", state="unscheduled"),
    Case("Lorenz", "Lotte", "F", "19580707", _ABDOMEN, "R", "", state="held"),
    Case("Maurer", "Moritz", "M", "19730323", _ABDOMEN, "A", "", state="held"),
)
_TEXTS: Final = {
    "final": "No evidence of acute disease. Heart size normal. No pleural effusion.",
    "preliminary": "Preliminary: no free fluid. Comparison with earlier images is pending.",
    "critical": "Central pulmonary embolism on both sides with strain of the right heart.",
}


class Day:
    """Plays the cases, in their order."""

    def __init__(self, server: Server, app: App) -> None:
        self._server, self._app = server, app
        self._scanners = {s.title: Scanner(s.title, server.dicom_port) for s in STATIONS}
        now = datetime.now(UTC)
        self._now = now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0)  # where slots begin

    async def play(self) -> int:
        """How many patients came."""
        at: dict[str, list[tuple[int, Case]]] = {}
        for number, case in enumerate(CASES, 1):
            at.setdefault(case.station, []).append((number, case))
        await asyncio.gather(*(self._one_after_the_other(cases) for cases in at.values()))
        await self._twice(CASES[1], len(CASES) + 1)
        await self._contradiction(1, CASES[0])
        for scanner in self._scanners.values():
            await scanner.worklist("", "")
        return len(CASES)

    async def _one_after_the_other(self, cases: list[tuple[int, Case]]) -> None:
        for number, case in cases:
            await self._case(number, case)

    async def _case(self, number: int, case: Case) -> None:
        await self._say(self._admission(number, case))
        await self._say(self._order(number, case))
        if case.state in ("held", "unscheduled"):
            return
        order = (await self._app.search(f"ServiceRequest?identifier=D-{number:03}&intent=order"))[0]
        await self._booked(case, order)
        if case.state in ("started", *_SCANNED):
            await self._examined(number, case)
        if case.state in ("claimed", "preliminary", "final", "critical"):
            await self._read(case, order)

    async def _booked(self, case: Case, order: Resource) -> None:
        start = self._now + timedelta(minutes=case.minutes)
        status = {"booked": "booked", "noshow": "booked"}.get(case.state, "arrived")
        appointment = booking(order, f"Device/{case.station.lower()}", start, case.examination.minutes, status)
        made = await self._app.ok("POST", "Appointment", appointment)
        if case.state == "noshow":
            await self._app.ok("POST", f"Appointment/{made['id']}/$no-show")

    async def _examined(self, number: int, case: Case) -> None:
        scanner = self._scanners[case.station]
        items = await scanner.worklist("", "", PatientID=f"D{number:04}")
        if not items:
            raise RuntimeError(f"{case.family}, {case.given} is not on the worklist of {case.station}")
        begun = self._now + timedelta(minutes=case.minutes + 4)
        uid = await scanner.begin(items[0], at=begun)
        if case.state != "started":
            await scanner.end(uid, images=4, at=begun + timedelta(minutes=case.examination.minutes - 6))

    async def _read(self, case: Case, order: Resource) -> None:
        procedure = (await self._app.search(f"ServiceRequest?based-on=ServiceRequest/{order['id']}&intent=filler-order"))[0]
        reading = (await self._app.search(f"Task?based-on=ServiceRequest/{procedure['id']}&code=interpretation"))[0]
        reader = "rita" if case.state == "preliminary" else "ada"
        claimed = reading | {"status": "in-progress", "owner": {"reference": f"Practitioner/{reader}"}}
        await self._app.ok("PUT", f"Task/{reading['id']}", claimed)
        if case.state == "claimed":
            return
        report = await self._app.ok("POST", "DiagnosticReport", {
            "resourceType": "DiagnosticReport",
            "status": "preliminary" if case.state == "preliminary" else "final",
            "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}],
            "code": order["code"],
            "subject": order["subject"],
            "resultsInterpreter": [{"reference": f"Practitioner/{reader}"}],
            "conclusion": _TEXTS[case.state],
        })  # fmt: skip
        if case.state == "critical":  # who has ordered it is told, and hasn't answered yet
            told = [{"name": "category", "valueCode": _CRITICAL}, {"name": "finding", "valueString": _TEXTS[case.state]}]
            await self._app.ok(
                "POST", f"DiagnosticReport/{report['id']}/$critical", {"resourceType": "Parameters", "parameter": told}
            )

    async def _twice(self, case: Case, number: int) -> None:
        """The same examination of the same patient is ordered again."""
        first = CASES.index(case) + 1
        again = self._order(number, case).replace(f"D{number:04}".encode(), f"D{first:04}".encode())
        await self._say(again)

    async def _contradiction(self, number: int, case: Case) -> None:
        """The HIS tells of a patient what contradicts what is known of it."""
        other = Case(case.family, "Anja", "F", "19790101", case.code, "R", "")
        await self._say(
            self._admission(number, other).replace(f"A{number:04}".encode(), f"A9{number:04}".encode()), accepted=False
        )

    # HL7 v2

    async def _say(self, message: bytes, *, accepted: bool = True) -> None:
        ack = await ehr.send(self._server.mllp_port, message)
        if accepted and ack.all("MSA")[0].field(1) != "AA":
            raise RuntimeError(ack.raw.decode("utf-8", "replace"))

    def _admission(self, number: int, case: Case) -> bytes:
        return _changed(ehr.registration(f"A{number:04}", f"D{number:04}", case.family, case.given), case)

    def _order(self, number: int, case: Case) -> bytes:
        message = _changed(ehr.order(f"O{number:04}", f"D-{number:03}", f"D{number:04}", case.family, case.given), case)
        text = case.reason.split("^")[1] if case.reason else ""
        for was, becomes in (
            ("24627-2^CT Chest^LN", f"{case.code}^{case.examination.name}^LN"),
            ("Cough for six weeks", text),
            ("CT|||||||R05^Cough^I10", f"{case.examination.modality}|||||||{case.reason}"),
            ("^^^^^R", f"^^^^^{case.priority}"),
        ):
            message = message.replace(was.encode(), becomes.encode())
        return message


def _changed(message: bytes, case: Case) -> bytes:
    return message.replace(b"|19700131|F", f"|{case.born}|{case.sex}".encode())
