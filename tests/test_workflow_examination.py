"""From the order to the signed report: what an order is made into, holding and revoking it, examining, reading, completing."""

import pytest

from tests.department import DCM, Department, Resource, identifiers, unused


async def second_procedure(ris: Department, order: Resource, modality: str = "MR") -> Resource:
    return await ris.create(
        {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "filler-order",
            "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}],
            "code": {"text": "another examination"},
            "subject": order["subject"],
            "orderDetail": [{"coding": [{"system": DCM, "code": modality}]}],
        }
    )


async def second_step(ris: Department, order: Resource) -> Resource:
    procedure = await ris.procedure(order)
    return await ris.create(
        {
            "resourceType": "Task",
            "status": "requested",
            "intent": "plan",
            "basedOn": [{"reference": f"ServiceRequest/{procedure['id']}"}],
        }
    )


async def states(ris: Department, order: Resource, appointment: Resource | None = None) -> dict[str, str]:
    """Order, procedure, study, step (with its DICOM status), appointment: all on one line."""
    step = await ris.step(order)
    sps = step.get("businessStatus", {"coding": [{"code": "-"}]})["coding"][0]["code"]
    found = {
        "order": (await ris.read(order))["status"],
        "procedure": (await ris.procedure(order))["status"],
        "study": (await ris.study(order))["status"],
        "step": f"{step['status']} {sps}",
    }
    return found | ({"appointment": (await ris.read(appointment))["status"]} if appointment else {})


def expected(order: str, procedure: str, study: str, step: str, appointment: str) -> dict[str, str]:
    return {"order": order, "procedure": procedure, "study": study, "step": step, "appointment": appointment}


# The order


def test_an_order_made_by_fhir_is_planned_like_any_other(ris):
    async def scenario():
        order = await ris.order()
        assert identifiers(order).keys() == {"FILL", "ACSN"}
        assert order["category"][0]["coding"][0]["code"] == "363679005"
        assert await states(ris, order) == {
            "order": "active", "procedure": "active", "study": "registered", "step": "requested -",
        }  # fmt: skip

    ris.run(scenario())


def test_a_draft_is_planned_when_it_becomes_active(ris):
    async def scenario():
        order = await ris.order(status="draft")
        assert await ris.procedures(order) == []
        assert "identifier" not in order
        await ris.become(order, "active")
        assert len(await ris.steps(order)) == 1
        assert identifiers(await ris.read(order)).keys() == {"FILL", "ACSN"}

    ris.run(scenario())


def test_a_requested_procedure_added_by_fhir_gets_its_id_its_study_and_its_step(ris):
    async def scenario():
        order = await ris.order()
        added = await second_procedure(ris, order)
        assert identifiers(added).keys() == {"urn:fhir-ris:requested-procedure-id"}
        assert len(await ris.steps(order)) == 2
        (study,) = await ris.search("ImagingStudy", basedon=f"ServiceRequest/{added['id']}")
        assert study["identifier"][0]["value"].startswith("urn:oid:2.25.")
        step = await second_step(ris, await ris.order())
        assert identifiers(step).keys() == {"urn:fhir-ris:scheduled-procedure-step-id"}
        assert step["for"]["reference"].startswith("Patient/")
        assert step["focus"] == step["basedOn"][0]

    ris.run(scenario())


def test_numbers_once_given_stay_whatever_a_client_sends_back(ris):
    async def scenario():
        raw = {"url": "urn:fhir-ris:v2-raw", "valueString": "X1^EHR^^"}
        typed = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]}
        value = unused("L")
        order = await ris.order(identifier=[{"extension": [raw], "type": typed, "system": "urn:x", "value": value}])
        numbers = identifiers(order)
        await ris.update(order, identifier=[{"type": typed, "system": "urn:x", "value": value}], note=[{"text": "n"}])
        kept = await ris.read(order)
        assert identifiers(kept) == numbers
        assert next(i for i in kept["identifier"] if "extension" in i)["extension"] == [raw]
        for code in ("PLAC", "FILL", "ACSN"):
            changed = [i | ({"value": "OTHER"} if i["type"]["coding"][0]["code"] == code else {}) for i in kept["identifier"]]
            assert (await ris.refused(ris.update(kept, identifier=changed))).status == 422
        for resource in (await ris.procedure(order), await ris.step(order), await ris.study(order)):
            changed = [resource["identifier"][0] | {"value": "9"}]
            assert (await ris.refused(ris.update(resource, identifier=changed))).status == 422

    ris.run(scenario())


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"code": None}, 400),
        ({"subject": {"reference": "Group/1"}}, 400),
        ({"subject": {"display": "somebody"}}, 400),
        ({"subject": {"reference": "Patient/none"}}, 422),
    ],
)
def test_an_order_needs_its_patient_and_what_is_ordered(ris, change, status):
    async def scenario():
        patient = await ris.patient()
        good = {
            "resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": {"text": "CT"},
            "subject": {"reference": f"Patient/{patient['id']}"},
        }  # fmt: skip
        before = await ris.counts()
        attempt = ris.create({k: v for k, v in (good | change).items() if v is not None})
        assert (await ris.refused(attempt)).status == status
        assert await ris.counts() == before

    ris.run(scenario())


def test_nothing_of_an_order_can_be_another_patient_s(ris):
    async def scenario():
        order, other = await ris.order(), await ris.patient()
        theirs = {"reference": f"Patient/{other['id']}"}
        procedure = await ris.procedure(order)
        study = [{"reference": f"ImagingStudy/{(await ris.study(order))['id']}"}]
        attempts = [
            ris.update(order, subject=theirs),
            second_procedure(ris, order | {"subject": theirs}),
            ris.create(
                {
                    "resourceType": "Task", "status": "requested", "intent": "plan", "for": theirs,
                    "basedOn": [{"reference": f"ServiceRequest/{procedure['id']}"}],
                }
            ),
            ris.report(order | {"subject": theirs}),
ris.report(order | {"subject": theirs}, basedOn=None, imagingStudy=study),
        ]  # fmt: skip
        for attempt in attempts:
            assert (await ris.refused(attempt)).status in {400, 422}
        # To say the name beside the reference is no change.
        await ris.update(order, subject=order["subject"] | {"display": "Muster, Mara"})

    ris.run(scenario())


def test_hold_and_release_reach_all_that_has_not_begun(ris):
    async def scenario():
        order = await ris.order()
        appointment = await ris.book(order, await ris.scanner())
        await ris.become(appointment, "arrived")
        await ris.become(order, "on-hold")
        assert await states(ris, order, appointment) == expected("on-hold", "on-hold", "registered", "on-hold -", "arrived")
        await ris.become(order, "active")
        assert await states(ris, order, appointment) == expected("active", "active", "registered", "ready ARRIVED", "arrived")

    ris.run(scenario())


@pytest.mark.parametrize("reached", ["requested", "booked", "arrived", "on-hold"])
def test_a_revoked_order_takes_back_all_that_has_not_begun(ris, reached):
    async def scenario():
        order = await ris.order()
        appointment = None if reached == "requested" else await ris.book(order, await ris.scanner())
        if reached == "arrived":
            await ris.become(appointment, "arrived")
        if reached == "on-hold":
            await ris.become(order, "on-hold")
        await ris.become(order, "revoked")
        found = await states(ris, order, appointment)
        assert found == {"order": "revoked", "procedure": "revoked", "study": "cancelled", "step": "cancelled CANCELED"} | (
            {"appointment": "cancelled"} if appointment else {}
        )

    ris.run(scenario())


@pytest.mark.parametrize("reached", ["in-progress", "completed"])
def test_an_order_that_has_begun_is_not_revoked_and_nothing_changes(ris, reached):
    async def scenario():
        order = await ris.order()
        appointment = await ris.book(order, await ris.scanner())
        await ris.perform(order, reached)
        before = await states(ris, order, appointment)
        for status in ("revoked", "on-hold"):
            error = await ris.refused(ris.become(order, status))
            assert (error.status, error.code) == (409, "conflict")
        assert await states(ris, order, appointment) == before

    ris.run(scenario())


def test_the_rest_of_a_begun_order_can_be_held(ris):
    async def scenario():
        order = await ris.order()
        waiting = await second_step(ris, order)
        done = next(s for s in await ris.steps(order) if s["id"] != waiting["id"])
        await ris.perform(order, "completed", done)
        await ris.become(order, "on-hold")
        assert (await ris.read(waiting))["status"] == "on-hold"
        assert (await ris.read(done))["status"] == "completed"

    ris.run(scenario())


# The examination


def test_the_examination_moves_step_and_appointment_and_asks_for_the_reading(ris):
    async def scenario():
        order = await ris.order(priority="stat")
        appointment = await ris.book(order, await ris.scanner())
        performed = await ris.perform(order, "in-progress")
        assert await states(ris, order, appointment) == expected(
            "active", "active", "registered", "in-progress STARTED", "checked-in"
        )
        step = await ris.step(order)
        assert step["output"][0]["valueReference"] == {"reference": f"Procedure/{performed['id']}"}
        assert step["executionPeriod"] == {"start": "2026-09-08T08:05:00Z"}
        assert await ris.readings(order) == []
        period = {"start": "2026-09-08T08:05:00Z", "end": "2026-09-08T08:25:00Z"}
        await ris.become(performed, "completed", performedPeriod=period)
        assert await states(ris, order, appointment) == expected(
            "active", "active", "registered", "completed COMPLETED", "fulfilled"
        )
        assert (await ris.step(order))["executionPeriod"] == period
        (reading,) = await ris.readings(order)
        study = await ris.study(order)
        assert (reading["status"], reading["priority"], reading["for"]) == ("requested", "stat", order["subject"])
        assert reading["focus"] == {"reference": f"ImagingStudy/{study['id']}"}

    ris.run(scenario())


def test_a_stopped_examination_fails_its_step_and_asks_people_what_to_do(ris):
    async def scenario():
        order = await ris.order()
        appointment = await ris.book(order, await ris.scanner())
        performed = await ris.perform(order, "in-progress")
        reason = {"text": "patient would not lie still"}
        await ris.become(performed, "stopped", statusReason=reason)
        assert await states(ris, order, appointment) == expected(
            "active", "active", "registered", "failed DISCONTINUED", "fulfilled"
        )
        step = await ris.step(order)
        assert step["statusReason"] == reason
        assert await ris.readings(order) == []
        assert len(await ris.work_items("examination-stopped", focus=f"Task/{step['id']}")) == 1
        await ris.become(order, "revoked")
        assert (await ris.step(order))["status"] == "failed"

    ris.run(scenario())


def test_a_stopped_examination_is_repeated_as_another_step(ris):
    async def scenario():
        order, scanner = await ris.order(), await ris.scanner()
        await ris.book(order, scanner)
        await ris.perform(order, "stopped")
        again = await second_step(ris, order)
        await ris.book(order, scanner, "2026-09-08T10:00:00Z")
        await ris.perform(order, "completed", again)
        assert len(await ris.readings(order)) == 1
        await ris.report(order)
        assert (await ris.read(order))["status"] == "completed"

    ris.run(scenario())


@pytest.mark.parametrize(
    ("ends", "readings"),
    [(("completed", "completed"), 1), (("completed", "stopped"), 1), (("stopped", "completed"), 1), (("stopped", "stopped"), 0)],
)
def test_the_study_is_read_after_the_last_step(ris, ends, readings):
    async def scenario():
        order = await ris.order()
        await second_step(ris, order)
        appointment = await ris.book(order, await ris.scanner())
        one, two = await ris.steps(order)
        await ris.perform(order, ends[0], one)
        assert await ris.readings(order) == []
        assert (await ris.read(appointment))["status"] == "checked-in"
        await ris.perform(order, ends[1], two)
        assert len(await ris.readings(order)) == readings
        assert (await ris.read(appointment))["status"] == "fulfilled"

    ris.run(scenario())


def test_the_study_is_read_also_when_the_last_step_is_cancelled(ris):
    async def scenario():
        order = await ris.order()
        await second_step(ris, order)
        one, two = await ris.steps(order)
        await ris.perform(order, "completed", one)
        await ris.become(two, "cancelled")
        assert len(await ris.readings(order)) == 1

    ris.run(scenario())


def test_an_examination_without_its_scanner_s_word_is_ended_by_hand(ris):
    async def scenario():
        order = await ris.order()
        appointment = await ris.book(order, await ris.scanner())
        await ris.become(await ris.step(order), "completed")
        assert (await ris.read(appointment))["status"] == "fulfilled"
        assert len(await ris.readings(order)) == 1

    ris.run(scenario())


def test_a_step_cancelled_by_hand_gives_its_time_back(ris):
    async def scenario():
        order, scanner = await ris.order(), await ris.scanner()
        appointment = await ris.book(order, scanner)
        await ris.become(await ris.step(order), "cancelled")
        assert (await ris.read(appointment))["status"] == "cancelled"
        await ris.book(await ris.order(), scanner)

    ris.run(scenario())


@pytest.mark.parametrize("before", ["requested", "on-hold", "booked"])
def test_what_the_scanner_does_counts_whatever_was_planned(ris, before):
    async def scenario():
        order = await ris.order()
        if before == "booked":
            await ris.book(order, await ris.scanner())
        if before == "on-hold":
            await ris.become(order, "on-hold")
        await ris.perform(order)
        assert (await ris.step(order))["status"] == "completed"
        await ris.report(order)
        assert (await ris.read(order))["status"] == "completed"

    ris.run(scenario())


def test_a_procedure_that_names_only_the_requested_procedure_performs_its_open_steps(ris):
    async def scenario():
        order = await ris.order()
        step = await ris.step(order)
        done = {"resourceType": "Procedure", "status": "completed", "subject": order["subject"], "basedOn": [step["focus"]]}
        await ris.create(done)
        assert (await ris.step(order))["status"] == "completed"

    ris.run(scenario())


# The report


def test_reading_from_preliminary_to_final_to_corrected(ris):
    async def scenario():
        order = await ris.order()
        await ris.perform(order)
        report = await ris.report(order, "preliminary")
        assert [r["status"] for r in await ris.readings(order)] == ["in-progress"]
        final = await ris.become(report, "final", conclusion="Final.")
        assert final["issued"]
        assert [r["status"] for r in await ris.readings(order)] == ["completed"]
        assert (await ris.procedure(order))["status"] == "completed"
        assert (await ris.read(order))["status"] == "completed"
        await ris.become(report, "corrected", conclusion="Corrected.")
        await ris.update(await ris.read(report), conclusion="Corrected again.")
        await ris.become(report, "appended", conclusion="Corrected again. And more.")

    ris.run(scenario())


def test_a_signed_report_stays_as_it_was_signed(ris):
    async def scenario():
        order = await ris.order()
        report = await ris.report(order, "final")
        for change in (
            {"conclusion": "Something else."},
            {"conclusion": None, "conclusionCode": [{"text": "x"}]},
            {"issued": None},
        ):
            attempt = ris.update(report, **change)
            if change == {"issued": None}:
                assert (await attempt)["issued"] == report["issued"]
            else:
                assert (await ris.refused(attempt)).status == 422
        for status in ("preliminary", "registered", "partial"):
            assert (await ris.refused(ris.become(report, status))).status == 422
        assert (await ris.refused(ris.delete(report))).status == 422
        assert (await ris.read(report))["conclusion"] == "No acute finding."

    ris.run(scenario())


def test_an_unsigned_report_can_be_deleted_and_an_empty_one_not_signed(ris):
    async def scenario():
        order = await ris.order()
        await ris.delete(await ris.report(order, "preliminary"))
        empty = {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "CT"}, "subject": order["subject"]}
        assert (await ris.refused(ris.create(empty))).status == 422

    ris.run(scenario())


def test_an_order_is_completed_when_all_its_procedures_are_reported(ris):
    async def scenario():
        order = await ris.order()
        first = await ris.procedure(order)
        second = await second_procedure(ris, order)
        for step in await ris.steps(order):
            await ris.perform(order, "completed", step)
        await ris.report(order, "final", basedOn=[{"reference": f"ServiceRequest/{first['id']}"}])
        assert (await ris.read(first))["status"] == "completed"
        assert (await ris.read(order))["status"] == "active"
        await ris.report(order, "final", basedOn=[{"reference": f"ServiceRequest/{second['id']}"}])
        assert (await ris.read(order))["status"] == "completed"

    ris.run(scenario())


def test_a_report_that_names_just_the_study_ends_the_order_too(ris):
    async def scenario():
        order = await ris.order()
        await ris.perform(order)
        study = await ris.study(order)
        report = {
            "resourceType": "DiagnosticReport", "status": "final", "code": {"text": "CT"}, "subject": order["subject"],
            "imagingStudy": [{"reference": f"ImagingStudy/{study['id']}"}], "conclusion": "x",
        }  # fmt: skip
        await ris.create(report)
        assert (await ris.read(order))["status"] == "completed"

    ris.run(scenario())


def test_a_report_signed_before_the_scanner_says_done_ends_the_order_when_it_does(ris):
    async def scenario():
        order = await ris.order()
        performed = await ris.perform(order, "in-progress")
        await ris.report(order, "final")
        assert (await ris.read(order))["status"] == "active"
        await ris.become(performed, "completed")
        assert (await ris.read(order))["status"] == "completed"
        assert await ris.readings(order) == []

    ris.run(scenario())


def test_an_audit_event_can_t_be_changed_or_deleted(ris):
    async def scenario():
        await ris.order()
        event = (await ris.search("AuditEvent", subtype="create"))[0]
        assert (await ris.refused(ris.update(event, outcome="8"))).status == 422
        assert (await ris.refused(ris.delete(event))).status == 422

    ris.run(scenario())


def test_what_a_signed_report_says_in_parts_changes_only_with_the_report(ris):
    async def scenario():
        code = {"text": "Size"}
        size = await ris.create({"resourceType": "Observation", "status": "final", "code": code, "valueString": "4 mm"})
        member = {"reference": f"Observation/{size['id']}"}
        panel = await ris.create({"resourceType": "Observation", "status": "final", "code": code, "hasMember": [member]})
        report = await ris.report(await ris.order(), "preliminary", result=[{"reference": f"Observation/{panel['id']}"}])
        size = await ris.update(size, valueString="5 mm")
        report = await ris.become(report, "final")
        refused = await ris.refused(ris.update(size, valueString="50 mm"))
        assert report["id"] in str(refused)
        await ris.update(size, meta={"tag": [{"system": "urn:example", "code": "seen"}]})
        assert (await ris.read(size))["valueString"] == "5 mm"

    ris.run(scenario())
