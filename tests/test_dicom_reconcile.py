"""$reconcile: a person says which order an examination belongs to, and everything that hangs on it follows."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.uid import generate_uid

from bridges.dicom import study_arrival
from bridges.dicom.study_arrival import Arrived
from fhir_server.audit import Act
from fhir_server.elements import extension
from fhir_server.operations import Call
from fhir_server.outcome import FhirError
from fhir_server.references import ref
from fhir_server.unit_of_work import UnitOfWork
from resources import terms
from resources.imaging_series import ArrivedSeries
from resources.reconcile_operation import reconcile
from tests.dicom_client import ACCESS, ZONE, Department, Resource, Running, Scheduled, mpps, mpps_end, running_department
from tests.smart_world import World

_patients = iter(range(1, 1000))


@pytest.fixture(scope="module")
def site(mongodb_uri: str) -> Iterator[Running]:
    with running_department(mongodb_uri) as running:
        running.run(running.department.station("CT1"))
        yield running


def schedule(site: Running, **patient: Any) -> Scheduled:
    number = next(_patients)

    async def work(dep: Department) -> Scheduled:
        (device,) = await dep.search("Device", identifier="CT1")
        return await dep.scheduled(f"C{number}", device, f"2026-09-{number // 20 + 1:02d}T{number % 20:02d}:15", **patient)

    return site.run(work(site.department))


def performed(site: Running, data: Any, *ends: Any) -> Resource:
    uid = str(generate_uid(prefix=None))
    scanner = site.department.scanner()
    assert scanner.create(data, uid)[0].Status in {0x0000, 0x0107}
    for end in ends:
        assert scanner.set(end, uid).Status == 0x0000
    (found,) = site.run(site.department.search("Procedure", identifier=f"{terms.DICOM_UID}|urn:oid:{uid}"))
    return found


def unscheduled(site: Running, patient_id: str = "NOBODY-WE-KNOW", *ends: Any) -> tuple[Resource, str]:
    """An examination that nobody scheduled, and its Study Instance UID."""
    data = mpps(None, patient_id=patient_id)
    return performed(site, data, *ends), str(data.ScheduledStepAttributesSequence[0].StudyInstanceUID)


def now(site: Running, resource: Resource) -> Resource:
    return site.run(site.department.read(ref(resource)["reference"]))


def study_of(site: Running, uid: str) -> Resource:
    (found,) = site.run(site.department.search("ImagingStudy", identifier=f"{terms.DICOM_UID}|urn:oid:{uid}"))
    return found


def call(site: Running, what: Resource, **references: Resource) -> Call:
    rows = [{"name": name, "valueReference": ref(resource)} for name, resource in references.items()]
    body = {"resourceType": "Parameters", "parameter": rows}
    of = site.department.interactions
    return Call(of, ACCESS, Act("operation", "rest"), "http://x/fhir", what["resourceType"], what["id"], body=body)


def settle(site: Running, what: Resource, **references: Resource) -> Resource:
    return site.run(_settle(call(site, what, **references)))


async def _settle(asked: Call) -> Resource:
    return (await reconcile(asked)).resource


def refused(site: Running, what: Resource, **references: Resource) -> FhirError:
    with pytest.raises(FhirError) as error:
        settle(site, what, **references)
    return error.value


def open_items(site: Running, resource: Resource) -> list[Resource]:
    found = site.run(site.department.search("Task", focus=ref(resource)["reference"], status="requested"))
    return [t for t in found if t["code"]["coding"][0]["code"] != terms.INTERPRETATION]


def readings(site: Running, study: Resource) -> list[str]:
    found = site.run(site.department.search("Task", focus=ref(study)["reference"], code="interpretation"))
    return sorted(t["status"] for t in found)


def test_an_unscheduled_examination_becomes_that_of_an_order(site: Running) -> None:
    scheduled = schedule(site)
    done, uid = unscheduled(site, "NOBODY-WE-KNOW", mpps_end(images=4))
    assert len(open_items(site, done)) == 1
    answer = settle(site, done, order=scheduled.order)
    moved = now(site, done)
    assert (moved["subject"], moved["basedOn"]) == (scheduled.order["subject"], [ref(scheduled.procedure)])
    assert (extension(moved, terms.SCHEDULED_STEP) or {})["valueReference"] == ref(scheduled.step)
    study = study_of(site, uid)
    assert (study["subject"], study["basedOn"]) == (scheduled.order["subject"], [ref(scheduled.procedure)])
    assert study["numberOfInstances"] == 4
    assert now(site, scheduled.step)["status"] == "completed"
    assert scheduled.appointment is not None
    assert now(site, scheduled.appointment)["status"] == "fulfilled"
    assert now(site, scheduled.study)["status"] == "cancelled"
    assert readings(site, study) == ["requested"]
    assert open_items(site, done) == []
    names = [p["name"] for p in answer["parameter"]]
    assert names == ["order", "step", "procedure", "imaging-study", "closed"]


def test_one_that_goes_on_follows_its_order_to_the_end(site: Running) -> None:
    scheduled = schedule(site)
    data, uid = mpps(None, patient_id="NOBODY"), str(generate_uid(prefix=None))
    scanner = site.department.scanner()
    scanner.create(data, uid)
    (begun,) = site.run(site.department.search("Procedure", identifier=f"{terms.DICOM_UID}|urn:oid:{uid}"))
    settle(site, begun, order=scheduled.procedure)
    assert now(site, scheduled.step)["status"] == "in-progress"
    assert scanner.set(mpps_end(images=2), uid).Status == 0x0000
    assert now(site, scheduled.step)["status"] == "completed"
    study = study_of(site, str(data.ScheduledStepAttributesSequence[0].StudyInstanceUID))
    assert (study["subject"], study["numberOfInstances"]) == (scheduled.order["subject"], 2)


def test_a_doubted_patient_that_was_right_lets_the_step_go_on(site: Running) -> None:
    scheduled = schedule(site)
    data = mpps(scheduled)
    data.PatientSex = "M"
    done = performed(site, data, mpps_end())
    assert now(site, scheduled.step)["status"] == "accepted"
    settle(site, done, order=scheduled.order)
    assert extension(now(site, done), terms.IDENTITY_IN_DOUBT) is None
    assert now(site, scheduled.step)["status"] == "completed"
    assert open_items(site, done) == []
    assert readings(site, scheduled.study) == ["requested"]


def test_the_wrong_patient_gives_the_examination_back(site: Running) -> None:
    wrong, right = schedule(site), schedule(site)
    done = performed(site, mpps(wrong), mpps_end(images=3))
    assert readings(site, wrong.study) == ["requested"]
    settle(site, done, order=right.order)
    assert now(site, right.step)["status"] == "completed"
    assert now(site, done)["subject"] == right.order["subject"]
    assert now(site, wrong.study)["subject"] == right.order["subject"]
    step = now(site, wrong.step)
    assert step["status"] == "accepted"
    assert wrong.appointment is not None
    assert now(site, wrong.appointment)["status"] == "booked"
    assert "output" not in step
    assert readings(site, wrong.study) == ["cancelled", "requested"]
    (planned,) = site.run(site.department.search("ImagingStudy", basedon=ref(wrong.procedure)["reference"]))
    assert (planned["status"], planned["subject"]) == ("registered", wrong.order["subject"])
    assert planned["id"] != wrong.study["id"]


def test_the_same_call_with_the_former_order_takes_it_back(site: Running) -> None:
    one, other = schedule(site), schedule(site)
    done = performed(site, mpps(one), mpps_end())
    settle(site, done, order=other.order)
    settle(site, done, order=one.order)
    assert now(site, one.step)["status"] == "completed"
    aside = {"meta": None, "extension": None}  # its history of states is longer
    assert now(site, other.step) | aside == other.step | aside
    assert other.appointment is not None
    assert now(site, other.appointment)["status"] == "booked"
    assert now(site, done)["subject"] == one.order["subject"]
    assert now(site, one.study)["subject"] == one.order["subject"]


@pytest.mark.parametrize("was", ["booked", "arrived", "checked-in"])
def test_what_is_taken_back_leaves_the_other_booking_as_it_was(site: Running, was: str) -> None:
    one, other = schedule(site), schedule(site)
    assert other.appointment is not None
    site.run(site.department.update(other.appointment, status=was))
    done = performed(site, mpps(one), mpps_end())
    settle(site, done, order=other.order)
    assert now(site, other.appointment)["status"] == "fulfilled"
    settle(site, done, order=one.order)
    assert now(site, other.appointment)["status"] == was
    assert now(site, other.step)["status"] == ("accepted" if was == "booked" else "ready")


def test_what_is_taken_back_is_booked_anew_where_somebody_else_has_the_time(site: Running) -> None:
    one, other = schedule(site), schedule(site)
    done = performed(site, mpps(one), mpps_end())
    settle(site, done, order=other.order)

    async def taken(dep: Department) -> None:
        assert other.appointment is not None
        (device,) = await dep.search("Device", identifier="CT1")
        order = await dep.order(await dep.patient("TAKER"))
        await dep.book(order, device, other.appointment["start"], other.appointment["end"])

    site.run(taken(site.department))
    settle(site, done, order=one.order)
    assert other.appointment is not None
    assert now(site, other.appointment)["status"] == "fulfilled"
    assert now(site, other.step)["status"] == "requested"


def test_images_without_a_scanners_word_are_the_examination(site: Running) -> None:
    scheduled = schedule(site)
    uid = str(generate_uid(prefix=None))

    async def arrive() -> Resource:
        async def work(unit: UnitOfWork) -> Resource:
            arrived = Arrived(uid, [ArrivedSeries(f"{uid}.1"[:64], modality="CT", count=3)])
            return await study_arrival.settle(unit, arrived, ZONE)

        return await site.department.interactions.transact(ACCESS, Act("test", "test"), work)

    study = site.run(arrive())
    assert len(open_items(site, study)) == 1
    settle(site, study, order=scheduled.order)
    assert now(site, scheduled.step)["status"] == "completed"
    assert now(site, study)["subject"] == scheduled.order["subject"]
    assert open_items(site, study) == []
    (made,) = site.run(site.department.search("Procedure", based_on=ref(scheduled.procedure)["reference"]))
    assert made["status"] == "completed"


def test_a_study_of_two_orders_is_not_moved_but_asked_to_be_split(site: Running) -> None:
    one, other = schedule(site), schedule(site)
    performed(site, mpps(one), mpps_end())
    second = performed(site, mpps(one), mpps_end())
    settle(site, second, order=other.order)
    assert now(site, second)["subject"] == other.order["subject"]
    assert now(site, one.study)["subject"] == one.order["subject"]
    assert [t["code"]["coding"][0]["code"] for t in open_items(site, one.study)] == ["study-to-be-split"]
    assert now(site, one.step)["status"] == "completed"


# Refusals


def test_an_order_that_is_over_takes_nothing(site: Running) -> None:
    scheduled = schedule(site)
    site.run(site.department.update(scheduled.order, status="revoked"))
    done, _ = unscheduled(site)
    error = refused(site, done, order=scheduled.order)
    assert (error.code, error.status) == ("business-rule", 422)
    assert "reference" not in now(site, done)["subject"]
    assert len(open_items(site, done)) == 1


def test_what_is_reported_is_not_taken_away(site: Running) -> None:
    one, other = schedule(site), schedule(site)
    done = performed(site, mpps(one), mpps_end())

    async def report() -> None:
        await site.department.create(
            {
                "resourceType": "DiagnosticReport",
                "status": "final",
                "code": one.order["code"],
                "subject": one.order["subject"],
                "basedOn": [ref(one.order)],
                "conclusion": "Nothing.",
            }
        )

    site.run(report())
    error = refused(site, done, order=other.order)
    assert error.code == "conflict"
    assert now(site, done)["subject"] == one.order["subject"]


def test_a_step_of_another_order_is_refused(site: Running) -> None:
    one, other = schedule(site), schedule(site)
    done, _ = unscheduled(site)
    assert refused(site, done, order=one.order, step=other.step).code == "business-rule"


def test_an_order_of_an_inactive_record_is_refused(site: Running) -> None:
    scheduled = schedule(site)
    patient = site.run(site.department.read(scheduled.order["subject"]["reference"]))
    site.run(site.department.update(patient, active=False))
    done, _ = unscheduled(site)
    assert refused(site, done, order=scheduled.order).code == "conflict"


def test_what_is_not_asked_well_is_refused(site: Running) -> None:
    done, _ = unscheduled(site)
    assert refused(site, done).code == "required"
    assert refused(site, done, order=done).code == "value"
    missing = {"resourceType": "ServiceRequest", "id": "nothing-here"}
    assert refused(site, done, order=missing).code == "not-found"
    assert refused(site, {"resourceType": "Procedure", "id": "nothing-here"}, order=missing).code == "not-found"


def test_of_two_who_settle_it_at_once_nobody_leaves_half_of_it(site: Running) -> None:
    one, other = schedule(site), schedule(site)
    done, uid = unscheduled(site, "NOBODY", mpps_end())

    async def both() -> None:
        await asyncio.gather(
            _settle(call(site, done, order=one.order)), _settle(call(site, done, order=other.order)), return_exceptions=True
        )

    site.run(both())
    subject = now(site, done)["subject"]
    assert study_of(site, uid)["subject"] == subject
    states = {s.order["subject"]["reference"]: now(site, s.step)["status"] for s in (one, other)}
    assert states.pop(subject["reference"]) == "completed"
    assert set(states.values()) <= {"accepted", "requested"}


def test_a_reference_of_its_own_never_changes_the_patient(site: Running) -> None:
    one, other = schedule(site), schedule(site)
    done = performed(site, mpps(one), mpps_end())
    with pytest.raises(FhirError, match="subject can't be changed"):
        site.run(site.department.update(now(site, done), subject=other.order["subject"]))


# Who may


def examination(world: World) -> tuple[str, str]:
    """An unscheduled Procedure and an order, over REST."""
    patient = world.app.create({"resourceType": "Patient", "active": True})
    order = world.app.create(
        {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "code": {"text": "CT chest"},
            "subject": {"reference": f"Patient/{patient['id']}"},
        }
    )
    done = world.app.create({"resourceType": "Procedure", "status": "completed", "subject": {"display": "unknown patient"}})
    return done["id"], order["id"]


def parameters(order: str) -> Resource:
    rows = [{"name": "order", "valueReference": {"reference": f"ServiceRequest/{order}"}}]
    return {"resourceType": "Parameters", "parameter": rows}


@pytest.mark.parametrize(
    ("role", "status"),
    [("technologist", 200), ("admin", 200), ("radiologist", 403), ("scheduler", 403), ("referrer", 403), ("auditor", 403)],
)
def test_technologists_and_administrators_settle_examinations(world: World, role: str, status: int) -> None:
    done, order = examination(world)
    answer = world.person(role).send("POST", f"Procedure/{done}/$reconcile", parameters(order))
    assert answer.status_code == status, answer.text


def test_scopes_to_read_are_not_enough(world: World) -> None:
    done, order = examination(world)
    caller = world.person("technologist", "user/*.rs")
    assert caller.send("POST", f"Procedure/{done}/$reconcile", parameters(order)).status_code == 403


def test_who_settled_it_is_in_the_audit_trail(world: World) -> None:
    done, order = examination(world)
    world.person("technologist").send("POST", f"Procedure/{done}/$reconcile", parameters(order))
    found = world.app.send("GET", f"AuditEvent?entity=Procedure/{done}").json()["entry"]
    assert any("$reconcile" in str(e["resource"]) for e in found)
