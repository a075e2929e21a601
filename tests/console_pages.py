"""A small department in which every page of the console has something to show, and those pages."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from bridges.dicom.habits import Habits
from fhir_server import audit_verify, metrics
from fhir_server.audit_key import audit_key
from resources.alerts import Alerts
from resources.safety import questionnaires
from smart_auth.access import Access
from smart_auth.clients import Clients
from smart_auth.consents import Consents
from smart_auth.scopes import parse_scopes
from smart_auth.users import User
from tests import exam_story
from tests import test_console_interfaces as interfaces
from tests import test_console_orders as orders
from tests import test_console_reading as reading
from tests import test_console_rooms as rooms
from tests import test_console_schedule as schedule
from tests import test_console_trail as trail
from tests.console_world import CT_CHEST, LOINC, ConsoleWorld, Resource
from tests.dicom_client import mpps
from tests.reading_world import parameters, reference, section
from tests.test_console_charges import charged
from tests.test_console_numbers import PERIOD, examined

NUMBERS = f"{PERIOD}&view="


@dataclass(frozen=True, slots=True)
class Look:
    """A page and who looks at it.

    `shows`: what it must have, that it isn't looked at in its empty state; `typed`: what is searched for on it first;
    `seldom`: it is made like another one, and only looked at when all are.
    """

    role: str
    path: str
    shows: str = "h1"
    typed: str = ""
    status: int = 200
    seldom: bool = False


_ROWS = "main [data-row]"
_LISTS = "scanners locations hours schedules procedures questionnaires number-patterns staff organizations endpoints".split()
_TYPES = dict(zip(_LISTS, "Device Location HealthcareService Schedule ActivityDefinition Questionnaire NamingSystem Practitioner "
                          "Organization Endpoint".split(), strict=True))  # fmt: skip
# `{name}`: what `furnish` has made. The address of a door may stand here more than once, for its states.
LOOKS: tuple[Look, ...] = (
    Look("scheduler", "/", "main a strong"),
    Look("technologist", "/", ".rooms tbody tr"),
    Look("radiologist", "/", "#readings a"),
    Look("referrer", "/", "#results a"),
    Look("interface-admin", "/", "main a strong"),
    Look("admin", "/", "main a strong"),
    Look("auditor", "/", "main a strong"),
    Look("privacy-officer", "/", "main a strong"),
    Look("scheduler", "/orders", _ROWS),
    *(Look("scheduler", f"/orders?tab={tab}", _ROWS) for tab in ("hold", "items", "unscheduled", "all")),
    Look("scheduler", "/orders/new"),
    Look("scheduler", "/orders/new", "main [data-row]", "{family}"),
    Look("scheduler", "/orders/new?patient={patient}"),
    Look("scheduler", "/orders/records?one={patient}&other={other}", "tbody tr"),
    Look("scheduler", "/orders/items/{doubt}", "tbody tr"),
    Look("scheduler", "/orders/{draft}", ".decide"),
    Look("radiologist", "/orders/{odd}", ".decide"),
    Look("scheduler", "/orders/{insured}", "[data-part=cover]"),
    Look("scheduler", "/schedule", "#board"),
    Look("scheduler", "/schedule?day={day}", ".booking, [id^='b-']"),
    Look("scheduler", "/schedule?day={day}&view=week&list=waiting", "#board"),
    Look("scheduler", "/schedule?day={day}&booking={booking}", ".picked"),
    Look("scheduler", "/schedule?day={day}&order={unscheduled}", ".picked"),
    Look("scheduler", "/schedule?day={day}&order={unscheduled}&at={at}&on={ct}", "#confirm"),
    Look("scheduler", "/schedule?day={day}&booking={booking}&move=1&at={at}&on={ct}", "#confirm"),
    Look("scheduler", "/schedule?day={day}&scanner={ct}", ".picked"),
    Look("scheduler", "/schedule?day={day}&slot={slot}", ".picked"),
    Look("scheduler", "/schedule?day={day}&at={at}&on={ct}", ".picked"),
    Look("technologist", "/rooms", _ROWS),
    *(Look("technologist", f"/rooms/steps/{{{step}}}", ".path") for step in ("step", "started", "done")),
    Look("radiologist", "/rooms/steps/{step}", ".path"),
    Look("technologist", "/rooms/of/{procedure}", ".path"),
    *(Look("technologist", f"/rooms/steps/{{step}}/questions/{name}", ".question")
      for name in ("mri-safety", "pregnancy", "renal-function")),
    Look("technologist", "/rooms/settle", "tbody tr"),
    Look("technologist", "/rooms/settle/Procedure/{stray}", "thead form", "{stray_family}"),
    *(Look("radiologist", f"/reading?view={view}", _ROWS) for view in ("unread", "mine", "preliminary")),
    Look("radiologist", "/reading/critical", "[id^='c-']"),
    Look("radiologist", "/reading/critical/{critical}", "#by"),
    Look("referrer", "/reading/critical", "[id^='c-']"),
    Look("referrer", "/reading/critical/{critical}", "[data-key=F8]"),
    Look("radiologist", "/reading/reports/{signed}?verify=yes", "#signatures table"),
    Look("referrer", "/reading/reports/{signed}", ".report"),
    *(Look("radiologist", f"/reading/reports/{{signed}}/{act}", "main form")
      for act in ("addend", "correct", "withdraw", "critical")),
    *(Look("radiologist", f"/reading/{{{state}}}") for state in ("unread", "claimed", "read")),
    Look("radiologist", "/reading/{drafted}", "#editor"),
    *(Look("scheduler", f"/numbers?{NUMBERS}{view}", "table") for view in ("turn-around", "volumes", "scanners", "backlog")),
    Look("interface-admin", "/interfaces", "tbody tr"),
    Look("interface-admin", "/interfaces/messages", "tbody tr"),
    Look("interface-admin", "/interfaces/messages?way=out", "tbody tr"),
    Look("interface-admin", "/interfaces/messages/{received}", ".v2-segment"),
    Look("interface-admin", "/interfaces/messages/{dead}", ".v2-segment"),
    Look("interface-admin", "/interfaces/partners/{partner}", "[data-part=aside] tbody tr"),
    Look("interface-admin", "/interfaces/partners/{desk}", "[data-part=received] tbody tr"),
    Look("interface-admin", "/interfaces/scanners/{ct}"),
    Look("admin", "/administration", "main a"),
    Look("admin", "/administration/users", _ROWS),
    Look("admin", "/administration/users/new"),
    Look("admin", "/administration/users/{user}", "[data-part=logins] tbody tr"),
    Look("admin", "/administration/apps", _ROWS),
    Look("admin", "/administration/apps/new"),
    Look("admin", "/administration/apps/shoe-viewer"),
    Look("admin", "/administration/charges", _ROWS),
    Look("admin", "/administration/charges/reconciliation?date={charged_on}", "tbody tr"),
    Look("admin", "/administration/charges/orders/{charged_order}"),
    Look("admin", "/administration/charges/{charge}"),
    *(Look("admin", f"/administration/{name}", _ROWS) for name in _LISTS),
    *(Look("admin", f"/administration/{name}/new") for name in _LISTS if name != "endpoints"),
    *(Look("admin", f"/administration/{name}/new/json", "#json", seldom=name != "scanners")
      for name in _LISTS if name != "endpoints"),
    *(Look("admin", f"/administration/{name}/{{{name}}}") for name in _LISTS if name != "endpoints"),
    *(Look("admin", f"/administration/{name}/{{{name}}}/json", seldom=name not in ("scanners", "endpoints")) for name in _LISTS),
    Look("privacy-officer", "/audit", _ROWS),
    Look("auditor", "/audit/checks", "section"),
    Look("privacy-officer", "/audit/events/{event}"),
    Look("privacy-officer", "/audit/reviews", "article"),
    Look("scheduler", "/find"),
    Look("radiologist", "/find", "#results tbody tr", "{family}"),
    Look("radiologist", "/exams/{exam}", "article.event"),
    Look("auditor", "/exams/{exam}", "tbody tr"),
    Look("radiologist", "/exams/{exam}/versions/DiagnosticReport/{report}/2", "del"),
    Look("radiologist", "/exams/{exam}/messages/{message}", ".v2-segment"),
    Look("scheduler", "/exams/{exam}/move"),
    Look("scheduler", "/exams/{exam}/move", "[name=patient]", "{family}"),
    Look("radiologist", "/patients/{patient}", "tbody tr"),
    Look("scheduler", "/patients/{patient}", "tbody tr"),
    Look("radiologist", "/patients/{closed}", "#reason", status=404),
    Look("radiologist", "/exams/{closed_exam}", "summary", status=404),
    Look("technologist", "/administration", status=403),
)  # fmt: skip


class Furnished:
    """The department: `names` are what the addresses of LOOKS stand for, `users` who looks, by role."""

    def __init__(self, world: ConsoleWorld) -> None:
        self.world = world
        self.room = reading.Room(world)
        self.users: dict[str, User] = {"radiologist": self.room.ada, "referrer": self.room.referrer}
        for role in ("scheduler", "technologist", "admin", "interface-admin", "auditor", "privacy-officer"):
            self.users[role] = world.user(role)
        self.names: dict[str, str] = {}
        for part in (self._orders, self._schedule, self._exam, self._rooms, self._reading, self._interfaces, self._charges,
                     self._administration, self._trail):  # fmt: skip
            self.names |= {name: str(value) for name, value in part().items()}

    def _orders(self) -> dict[str, str]:
        world = self.world
        orders.furnish(world)
        patient, hidden = world.patient(), world.patient(**closed())
        other = world.patient(name=[{"family": patient["name"][0]["family"], "given": ["Zweite"]}])
        draft = world.order(patient, status="draft", priority="stat")
        strange = {"coding": [{"system": "urn:example:codes", "code": "X", "display": "Thermography"}]}
        odd = world.order(patient, status="draft", code=strange)
        held = world.order(patient)
        world.update(held, status="on-hold")
        insured, _ = orders.insured(world)
        differs = [orders.detail("known", "name", valueString="A"), orders.detail("told", "name", valueString="B")]
        doubt = world.create(orders.item("patient-mismatch", f"Patient/{other['id']}", other, input=differs))
        unscheduled = world.order(world.patient(), priority="urgent")
        return {
            "patient": patient["id"], "family": patient["name"][0]["family"], "other": other["id"],
            "closed": hidden["id"], "draft": draft["id"], "odd": odd["id"],
            "insured": insured["id"], "doubt": doubt["id"], "unscheduled": unscheduled["id"],
            "closed_exam": world.order(hidden)["id"],
        }  # fmt: skip

    def _schedule(self) -> dict[str, str]:
        house, world = schedule.House(self.world), self.world
        booked = [house.booked(hour, scanner) for hour in (8, 9, 13) for scanner in (house.ct, house.ct2)]
        late = house.booked(15)
        world.update(late, status="noshow")
        of, when = f"Schedule/{house.schedules[0]['id']}", f"{schedule.at(16):%Y-%m-%dT%H:%M}Z"
        (blocked,) = world.search("Slot", schedule=of, start=when)
        world.update(blocked, status="busy-unavailable", comment="The tube is changed")
        waits = house.order(name="Geduld")
        world.create(
            {
                "resourceType": "Appointment",
                "status": "waitlist",
                "basedOn": [{"reference": f"ServiceRequest/{waits['id']}"}],
                "created": datetime.now(UTC).isoformat(),
                "participant": [{"actor": waits["subject"], "status": "needs-action"}],
            }
        )
        return {
            "day": schedule.TOMORROW.date().isoformat(), "at": f"{schedule.at(11):%Y-%m-%dT%H:%MZ}", "ct": house.ct["id"],
            "booking": booked[0]["id"], "slot": blocked["id"],
        }  # fmt: skip

    def _exam(self) -> dict[str, str]:
        exam_story.destination(self.world)
        story = exam_story.whole(self.world)
        assert story.report is not None
        came = self._stored("messages", {"about": f"ServiceRequest/{story.order['id']}"})
        return {"exam": story.order["id"], "report": story.report["id"], "message": came, "received": came}

    def _rooms(self) -> dict[str, str]:
        world = self.world
        world.app.run(questionnaires.publish(world.app.ris.interactions))
        step = rooms.scheduled(world, "MR", minutes=-15, priority="stat")
        world.operation(f"Task/{step['id']}/$track", parameters(state="arrived")["parameter"])
        started, done, stopped = (rooms.scheduled(world, minutes=-n) for n in (20, 90, 60))
        for one in (started, done, stopped):
            world.operation(f"Task/{one['id']}/$start")
        world.operation(f"Task/{done['id']}/$complete")
        why = {"name": "reason", "valueCodeableConcept": {"coding": [{"system": rooms.DCM, "code": "110513"}]}}
        world.operation(f"Task/{stopped['id']}/$stop", [why])
        title = rooms.title_of(world, started)
        habits = Habits(world.app.db)
        habits.asked(title, 1)
        world.app.run(habits.flush())
        patient = world.read(step["for"]["reference"])
        data = mpps(None, patient_id=patient["identifier"][0]["value"], station=rooms.title_of(world, step))
        data.PatientName = f"{patient['name'][0]['family']}^{patient['name'][0]['given'][0]}"
        stray = rooms.Scanner(world, rooms.title_of(world, step)).begin(data)
        return {
            "step": step["id"], "started": started["id"], "done": done["id"], "stray": stray["id"],
            "stray_family": patient["name"][0]["family"],
            "procedure": step["focus"]["reference"].partition("/")[2],
        }  # fmt: skip

    def _reading(self) -> dict[str, str]:
        world, room = self.world, self.room
        patient = world.read(f"Patient/{self.names['patient']}")
        whose = {"reference": f"Patient/{patient['id']}"}
        allergy = {"resourceType": "AllergyIntolerance", "patient": whose, "code": {"text": "Iodine"}, "criticality": "high"}
        world.create(allergy | reading._active("allergyintolerance-clinical"))
        unread = room.study(patient, priority="urgent", note=[{"text": "Patient is anxious"}])
        claimed, drafted, early, read = (room.study(patient) for _ in range(4))
        room.study(patient, priority="stat")
        self._does("radiologist", f"Task/{claimed['id']}/$claim")
        said = (section(reading.FINDINGS, "Nodule in the left lobe."), section(reading.IMPRESSION, "Nodule."))
        reports = []
        for one, sign in ((drafted, ""), (early, "preliminary"), (read, "final")):
            report = self._does("radiologist", f"Task/{one['id']}/$start-report")
            self._does("radiologist", f"DiagnosticReport/{report['id']}/$write", *said)
            if sign == "final":
                self._does("radiologist", f"DiagnosticReport/{report['id']}/$sign")
            elif sign:
                world.update(report, status=sign)
            reports.append(report["id"])
        signed = reports[2]
        self._does("radiologist", f"DiagnosticReport/{signed}/$addend", *parameters(text="Compared with 2024.")["parameter"])
        told = [
            {"name": "category", "valueCode": "RID49480"},
            {"name": "finding", "valueString": "Pneumothorax on the left"},
            reference("recipient", self.room.referrer.fhir_user),
        ]
        self._does("radiologist", f"DiagnosticReport/{signed}/$critical", *told)
        (critical,) = world.search("CommunicationRequest", subject=f"Patient/{patient['id']}")
        return {
            "unread": unread["id"], "claimed": claimed["id"], "drafted": drafted["id"], "read": read["id"], "signed": signed,
            "critical": critical["id"],
        }  # fmt: skip

    def _interfaces(self) -> dict[str, str]:
        world = self.world
        examined(world, 120)
        partner = interfaces.endpoint(world, "Fussy billing of the university hospital")
        dead = [interfaces.post(world, partner, state="dead", error="AE: the account is closed", attempts=3) for _ in range(3)]
        interfaces.post(world, partner)
        desk = interfaces.endpoint(world, "Registration desk", kind="none", header=["accept-application: DESK"])
        world.v2(interfaces.adt("MRN777", application="DESK")[1])
        world.v2(interfaces.adt("", application="DESK")[1])
        raised = Alerts(world.app.ris.interactions, "alerts", "v2", metrics.ALERTS)
        world.app.run(raised.settle({f"silent Endpoint/{desk['id']}": "It has sent nothing for an hour"}))
        return {"partner": partner["id"], "dead": dead[0], "desk": desk["id"]}

    def _charges(self) -> dict[str, str]:
        world = self.world
        held = charged(world, subject={"reference": f"Patient/{self.names['patient']}"})
        lone = charged(world, reason=[{"text": "Cough"}], occurrenceDateTime="2026-07-07T10:00:00Z")
        order = world.search("ServiceRequest", _id=self.names["exam"])[0]
        assert lone["occurrenceDateTime"]
        return {"charge": held["id"], "charged_on": "2026-07-07", "charged_order": order["id"]}

    def _administration(self) -> dict[str, str]:
        world = self.world
        user = self.users["radiologist"]
        clients = Clients(world.app.db)
        app = world.app.run(
            clients.add("shoe-viewer", "launch openid fhirUser user/Patient.rs", redirect_uris=["https://viewer.example/back"])
        )
        world.app.run(Consents(world.app.db).remember(user, app, ["user/Patient.rs"]))
        world.create({"resourceType": "Location", "name": "Room 1", "status": "active", "mode": "instance"})
        naming = {"resourceType": "NamingSystem", "name": "Accession", "status": "active", "kind": "identifier"}
        unique = [{"type": "uri", "value": "urn:example:accession", "preferred": True}]
        world.create(naming | {"date": "2026-01-01", "uniqueId": unique})
        entry = {"resourceType": "ActivityDefinition", "status": "active", "kind": "ServiceRequest", "title": "CT Chest"}
        made = world.create(entry | {"code": CT_CHEST, "identifier": [{"system": LOINC, "value": "30746-2"}]})
        names = {name: world.search(kind)[0]["id"] for name, kind in _TYPES.items()}
        return names | {"user": user.name, "procedures": made["id"], "questionnaires": self.room.template["id"]}

    def _trail(self) -> dict[str, str]:
        app = self.world.app
        trail.opened(self.world, "Notfall")
        trail.read_by_somebody(self.world, self.world.read(f"Patient/{self.names['patient']}"))
        app.run(audit_verify.check(app.db, audit_key(app.data_dir), "otis", 100))
        return {"event": self.world.search("AuditEvent")[0]["id"]}

    def _does(self, role: str, operation: str, *parameters_: Resource) -> Any:
        """An operation, as the user of this role."""
        user = self.users[role]
        access = Access("app", parse_scopes("user/*.cruds"), "t", user=user.fhir_user, user_name=user.name, role=role)
        db = self.world.app.ris.interactions.store.db

        async def settled() -> Access:
            return await access.settled(db)

        return self.world.operation(operation, list(parameters_) or None, self.world.app.run(settled()))

    def _stored(self, collection: str, which: dict[str, Any]) -> str:
        found = self.world.app.run(self.world.app.db[collection].find_one(which))
        assert found is not None
        return str(found["_id"])

    def path(self, look: Look) -> str:
        return look.path.format(**{name: quote(value, safe=":") for name, value in self.names.items()})

    def typed(self, look: Look) -> str:
        return look.typed.format(**self.names)


def closed() -> Resource:
    """The label of a record that is closed."""
    return {"meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]}}
