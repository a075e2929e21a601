"""Orders by ORM^O01: what they become, which are refused, and what cancel, hold and release do."""

import asyncio

import pytest

from bridges.v2.message import parse
from fhir_server.ids import new_id
from tests.department import DCM, LOINC, Department, Resource, booking, code, condition, identifiers, place, text, unused, v2


def fields(name: str, values: dict[int, str]) -> str:
    """A segment of the fields that have a value."""
    return f"{name}|" + "|".join(values.get(n, "") for n in range(1, max(values) + 1))


def orm(
    patient: str,
    placer: str,
    control: str = "NW",
    *,
    orc: dict[int, str] | None = None,
    obr: dict[int, str] | None = None,
    version: str = "2.5.1",
    birth: str = "19700131",
    more: tuple[str, ...] = (),
) -> bytes:
    """An order for a CT of the chest; `orc` and `obr` set further fields, `more` are segments behind."""
    return v2(
        f"MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ORM^O01|{{id}}|P|{version}||||||UNICODE UTF-8",
        fields("PID", {3: f"{patient}^^^EXAMPLEHOSP^MR", 5: "Muster^Mara", 7: birth, 8: "F"}),
        *group(placer, control, orc, obr),
        *more,
    )


def group(placer: str, control: str = "NW", orc: dict[int, str] | None = None, obr: dict[int, str] | None = None) -> list[str]:
    return [
        fields("ORC", {1: control, 2: placer} | (orc or {})),
        fields("OBR", {1: "1", 4: "24627-2^CT Chest^LN", 24: "CT"} | (obr or {})),
    ]


async def ordered(ris: Department, placer: str) -> Resource:
    return await ris.one("ServiceRequest", identifier=placer.split("^")[0], intent="order")


async def new_order(ris: Department, **options) -> tuple[str, str, Resource]:
    """(patient id, placer number, the order as it is stored)."""
    patient, placer = unused("P"), unused("L")
    await ris.accepted(orm(patient, f"{placer}^EHR", **options))
    return patient, placer, await ordered(ris, placer)


# New orders: what they become


def test_every_field_of_a_new_order_has_its_place(ris):
    async def scenario():
        patient, placer, doctor, visit = unused("P"), unused("L"), unused("D"), unused("V")
        accession, procedure_id, step_id, uid = unused("A"), unused("R"), unused("S"), f"1.2.3.{unused('')}"
        await ris.accepted(
            "MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907093000||ORM^O01|{id}|P|2.3.1||||||8859/1",
            fields("PID", {3: f"{patient}^^^EXAMPLEHOSP^MR", 5: "Muster^Mara", 7: "19700131", 8: "F"}),
            fields("PV1", {2: "I", 3: "SURG^201^B", 8: "815^Referrer^Rolf", 19: visit}),
            "ORC|NW|" + fields("x", {
                1: f"{placer}^EHR", 3: "GRP-1^EHR", 6: "^^^20260907140000^^S", 8: "20260907093000",
                11: f"{doctor}^Doktor^Dora^M^^Dr.",
            })[2:],
            fields("OBR", {
                1: "1", 2: f"{placer}^EHR", 4: "MRLSP^MRI lumbar spine^L^36801-9^MR L-spine^LN", 12: "MRSA^Isolation^L",
                13: "pain\\.br\\deficit", 18: accession, 19: procedure_id, 20: step_id, 24: "MR",
                31: "M54.5^Low back pain^I10~^^^X1^unclear^99OWN",
            }),
            "NTE|1||first line~second line",
            "DG1|1||M54.5^Low back pain^I10",
            "DG1|2||G55^Compression^I10",
            f"ZDS|{uid}^100^Application^DICOM",
        )  # fmt: skip
        order = await ordered(ris, placer)
        subject = await ris.read(order["subject"]["reference"])
        encounter = await ris.read(order["encounter"]["reference"])
        requester = await ris.read(order["requester"]["reference"])
        assert identifiers(subject) == {"MR": patient}
        assert identifiers(encounter) == {"VN": visit}
        assert identifiers(requester) == {"urn:fhir-ris:v2-authority:EXAMPLEHOSP": doctor}
        assert requester["name"] == [{"family": "Doktor", "given": ["Dora", "M"], "prefix": ["Dr."]}]
        assert (order["status"], order["intent"], order["priority"]) == ("active", "order", "stat")
        assert order["category"][0]["coding"][0]["code"] == "363679005"
        assert identifiers(order).keys() == {"PLAC", "FILL", "ACSN"}
        assert identifiers(order) | {"FILL": ""} == {"PLAC": placer, "ACSN": accession, "FILL": ""}
        assert order["requisition"]["value"] == "GRP-1"
        assert order["code"] == {
            "coding": [
                {"system": "urn:fhir-ris:v2-local:EXAMPLEHOSP", "code": "MRLSP", "display": "MRI lumbar spine"},
                {"system": LOINC, "code": "36801-9", "display": "MR L-spine"},
            ],
            "text": "MRI lumbar spine",
        }
        assert order["orderDetail"] == [{"coding": [{"system": DCM, "code": "MR"}]}]
        assert order["authoredOn"] == "2026-09-07T09:30:00+02:00"
        assert order["occurrenceDateTime"] == "2026-09-07T14:00:00+02:00"
        assert [r["coding"][0]["code"] for r in order["reasonCode"]] == ["M54.5", "X1", "G55"]
        assert [n["text"] for n in order["note"]] == ["Danger: Isolation", "pain\ndeficit", "first line\nsecond line"]

        procedure = await ris.procedure(order)
        assert identifiers(procedure) == {"urn:fhir-ris:requested-procedure-id": procedure_id}
        for element in ("code", "subject", "encounter", "requester", "priority", "reasonCode", "note", "orderDetail"):
            assert procedure[element] == order[element]
        study = await ris.study(order)
        assert (study["status"], study["subject"]) == ("registered", order["subject"])
        assert identifiers(study) == {"urn:dicom:uid": f"urn:oid:{uid}"}
        step = await ris.step(order)
        assert (step["status"], step["intent"], step["priority"], step["for"]) == ("requested", "plan", "stat", order["subject"])
        assert identifiers(step) == {"urn:fhir-ris:scheduled-procedure-step-id": step_id}
        assert step["focus"] == {"reference": f"ServiceRequest/{procedure['id']}"}
        assert step["input"][0]["valueCodeableConcept"]["coding"] == [{"system": DCM, "code": "MR"}]
        assert "businessStatus" not in step

    ris.run(scenario())


def test_what_the_placer_doesn_t_assign_we_do_and_scanners_can_take_it(ris):
    async def scenario():
        _, _, order = await new_order(ris)
        _, _, other = await new_order(ris)
        procedure, step, study = await ris.procedure(order), await ris.step(order), await ris.study(order)
        ids = [*identifiers(order).values(), *identifiers(procedure).values(), *identifiers(step).values()]
        assert identifiers(order).keys() == {"PLAC", "FILL", "ACSN"}
        assert len(set(ids)) == 5
        assert all(0 < len(i) <= 16 for i in ids)
        uid = study["identifier"][0]["value"].removeprefix("urn:oid:")
        assert uid.startswith("2.25.")
        assert len(uid) <= 64
        taken = {*identifiers(other).values(), *identifiers(await ris.procedure(other)).values()}
        assert not taken & set(ids)
        assert (await ris.study(other))["identifier"] != study["identifier"]

    ris.run(scenario())


def test_an_order_finds_the_patient_the_visit_and_the_doctor_that_are_there(ris):
    async def scenario():
        patient, doctor, visit = unused("P"), unused("D"), unused("V")
        head = "MSH|^~\\&|HIS|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||{}|{{id}}|P|2.5.1"
        shared = [
            fields("PID", {3: f"{patient}^^^EXAMPLEHOSP^MR", 5: "Muster^Mara", 7: "19700131", 8: "F"}),
            fields("PV1", {2: "O", 7: f"{doctor}^Doktor^Dora", 19: visit}),
        ]
        await ris.accepted(head.format("ADT^A04"), *shared)
        await ris.accepted(head.format("ORM^O01"), *shared, *group(f"{unused('L')}^EHR", orc={12: f"{doctor}^Doktor^Dora"}))
        assert len(await ris.search("Patient", identifier=patient)) == 1
        assert (await ris.one("Encounter", identifier=visit))["status"] == "arrived"
        assert len(await ris.search("Practitioner", identifier=doctor)) == 1

    ris.run(scenario())


@pytest.mark.parametrize(
    "ei",
    [
        "{n}^EHR",
        "{n}",
        "{n}^EHR^1.2.3^ISO",
        "pl {n}  x^ehr lower",
        " {n} ^EHR",
        "{n}\\T\\\\S\\\\F\\^E\\E\\HR",
        "{n},$^EHR",
        "{n}^EHR^^",
        "{n}é^ÄÖ",
        "{n}\\X41\\^EHR",
        "{n}^ehr&sub",
        "Ö{n}\\R\\^EHR^urn:x^URI",
    ],
)
def test_the_placer_order_number_comes_back_byte_for_byte(ris, ei):
    async def scenario():
        given = ei.replace("{n}", unused("L"))
        destination = await ris.destination("ORM^O01", "ORU^R01")
        await ris.accepted(orm(unused("P"), given, obr={2: given}))
        order = (await ris.search("ServiceRequest", intent="order", _sort="-_lastUpdated"))[0]
        await ris.book(order, await ris.scanner())
        await ris.report(order, "preliminary")
        sent = await ris.sent(destination)
        assert [m.first("ORC").raw(2) for m in sent] == [given, given]
        assert [m.first("OBR").raw(2) for m in sent] == [given, given]
        assert code(await ris.receive(orm(unused("P"), given))) == "AE"

    ris.run(scenario())


def test_the_placer_order_number_comes_back_also_when_the_order_used_other_separators(ris):
    async def scenario():
        destination = await ris.destination("ORM^O01")
        placer, patient = unused("L"), unused("P")
        await ris.accepted(
            "MSH#$%!*#EHR#EXAMPLEHOSP#FHIR_RIS#RAD#20260907##ORM$O01#{id}#P#2.5.1",
            f"PID#1##{patient}$$$EXAMPLEHOSP##Muster$Mara##19700131#F",
            f"ORC#NW#{placer}|x!S!y$EHR",
            "OBR#1###24627-2$CT Chest$LN",
        )
        order = (await ris.search("ServiceRequest", intent="order", _sort="-_lastUpdated"))[0]
        await ris.book(order, await ris.scanner())
        (message,) = await ris.sent(destination)
        assert message.first("ORC").get(2) == f"{placer}|x$y"

    ris.run(scenario())


@pytest.mark.parametrize(
    ("given", "priority"),
    [
        ({"orc": {7: "^^^^^S"}}, "stat"),
        ({"orc": {7: "^^^^^A"}}, "asap"),
        ({"obr": {27: "^^^^^r"}}, "routine"),
        ({"obr": {5: "S"}}, "stat"),
        ({"orc": {7: "^^^^^C"}, "obr": {5: "R"}}, "urgent"),
        ({}, None),
    ],
)
def test_the_priority_is_read_where_senders_put_it(ris, given, priority):
    async def scenario():
        _, _, order = await new_order(ris, **given)
        assert order.get("priority") == priority
        assert (await ris.step(order))["priority"] == (priority or "routine")

    ris.run(scenario())


def test_timing_notes_and_studies_go_with_the_order_that_they_follow(ris):
    async def scenario():
        patient, first, second, uid = unused("P"), unused("L"), unused("L"), f"1.2.4.{unused('')}"
        await ris.accepted(
            orm(
                patient,
                f"{first}^EHR",
                more=(
                    "NTE|1||of the first",
                    fields("ORC", {1: "NW", 2: f"{second}^EHR"}),
                    "TQ1|1||||||20260910090000||S^Stat^HL70485",
                    fields("OBR", {4: "MRLSP^MRI^L", 24: "MR"}),
                    "NTE|1||of the second",
                    f"ZDS|{uid}^100^Application^DICOM",
                ),
            )
        )
        one, two = await ordered(ris, first), await ordered(ris, second)
        assert "priority" not in one
        assert "occurrenceDateTime" not in one
        assert one["note"] == [{"text": "of the first"}]
        assert (two["priority"], two["occurrenceDateTime"]) == ("stat", "2026-09-10T09:00:00+02:00")
        assert two["note"] == [{"text": "of the second"}]
        assert (await ris.study(two))["identifier"][0]["value"] == f"urn:oid:{uid}"
        assert (await ris.study(one))["identifier"][0]["value"].startswith("urn:oid:2.25.")

    ris.run(scenario())


def test_the_modality_comes_from_the_order_else_from_the_catalogue(ris):
    async def scenario():
        system = "urn:fhir-ris:v2-system:99CAT"
        for name, status in (("A,B", "active"), ("B", "active"), ("C", "retired")):
            await ris.create(
                {
                    "resourceType": "ActivityDefinition",
                    "status": status,
                    "identifier": [{"system": system, "value": name}],
                    "topic": [{"coding": [{"system": DCM, "code": "MR" if name == "A,B" else "US"}]}],
                }
            )
        for obr, expected in (
            ({4: "B^Ultrasound^99CAT", 24: "CT"}, "CT"),
            ({4: "B^Ultrasound^99CAT", 24: "RAD"}, "US"),
            ({4: "A,B^MRI^99CAT", 24: ""}, "MR"),
            ({4: "X^Unknown^L^B^Ultrasound^99CAT", 24: ""}, "US"),
            ({4: "C^Old^99CAT", 24: ""}, None),
        ):
            _, _, order = await new_order(ris, obr=obr)
            details = (await ris.step(order)).get("input", [])
            assert [d["valueCodeableConcept"]["coding"][0]["code"] for d in details] == ([expected] if expected else [])

    ris.run(scenario())


# New orders: which are refused

LONG = "A2345678901234567"


@pytest.mark.parametrize("version", ["2.5.1", "2.3.1"])
@pytest.mark.parametrize(
    ("change", "where", "error"),
    [
        ({"orc": {2: ""}}, "ORC-2", "101"),
        ({"orc": {2: '""'}}, "ORC-2", "101"),
        ({"orc": {2: "^EHR"}}, "ORC-2", "101"),
        ({"orc": {1: ""}}, "ORC-1", "101"),
        ({"orc": {1: "XX"}}, "ORC-1", "103"),
        ({"orc": {1: "IP"}}, "ORC-1", "103"),
        ({"obr": {4: ""}}, "OBR-4", "101"),
        ({"obr": {4: "^only a text"}}, "OBR-4", "101"),
        ({"obr": {18: LONG}}, "OBR-18", "102"),
        ({"obr": {19: LONG}}, "OBR-19", "102"),
        ({"obr": {20: LONG}}, "OBR-20", "102"),
        ({"obr": {18: "A\\E\\B"}}, "OBR-18", "102"),
        ({"orc": {7: "^^^^^X"}}, "ORC-7.6", "103"),
        ({"obr": {27: "^^^^^9"}}, "OBR-27.6", "103"),
        ({"obr": {5: "SOON"}}, "OBR-5", "103"),
        ({"orc": {7: "^^^20261301"}}, "ORC-7.4", "102"),
        ({"orc": {9: "yesterday"}}, "ORC-9", "102"),
        ({"obr": {36: "20260230"}}, "OBR-36", "102"),
        ({"more": ("TQ1|1||||||2026-09-10",)}, "TQ1-7", "102"),
        ({"more": ("TQ1|1||||||||X",)}, "TQ1-9", "103"),
        ({"more": ("ZDS|no-uid^100^Application^DICOM",)}, "ZDS-1", "102"),
        ({"birth": "1970-01-31"}, "PID-7", "102"),
        ({"more": (*group("L-second", obr={5: "Q"}),)}, "OBR(2)-5", "103"),
        ({"more": (*group(""),)}, "ORC(2)-2", "101"),
        ({"more": ("ORC|NW|L-without-obr^EHR",)}, "OBR(2)", "100"),
        ({"more": ("ORC|ZZ|L-unknown^EHR",)}, "ORC(2)-1", "103"),
    ],
)
def test_an_order_that_can_t_be_taken_is_refused_with_its_place_and_nothing_is_written(ris, change, where, error, version):
    async def scenario():
        before = await ris.counts()
        ack = await ris.receive(orm(unused("P"), f"{unused('L')}^EHR", version=version, **change))
        shown = where.split(".")[0] if version == "2.3.1" else where
        assert (code(ack), place(ack), condition(ack)) == ("AE", shown, error), ack.raw
        assert text(ack)
        assert await ris.counts() == before
        kept = await ris.db["messages"].find_one({"control_id": ack.segments[1].field(2)})
        assert (kept["outcome"], kept["about"]) == ("AE", [])
        events = await ris.search("AuditEvent", subtype="ORM^O01", _sort="-_lastUpdated")
        assert events[0]["outcomeDesc"] == f"AE {kept['control_id']}"

    ris.run(scenario())


@pytest.mark.parametrize(("dropped", "where"), [("PID", "PID"), ("ORC", "ORC"), ("OBR", "OBR"), ("3", "PID-3")])
def test_an_order_that_lacks_a_segment_or_the_patient_is_refused(ris, dropped, where):
    async def scenario():
        before = await ris.counts()
        message = orm("" if dropped == "3" else unused("P"), f"{unused('L')}^EHR").decode()
        kept = [line for line in message.split("\r") if line and not line.startswith(dropped)]
        ack = await ris.receive(v2(*kept))
        assert (code(ack), place(ack)) == ("AE", where)
        assert await ris.counts() == before

    ris.run(scenario())


def test_several_orders_of_one_message_are_taken_together_or_not_at_all(ris):
    async def scenario():
        patient, first, second = unused("P"), unused("L"), unused("L")
        ack = await ris.receive(orm(patient, f"{first}^EHR", more=(*group(f"{second}^EHR", obr={4: ""}),)))
        assert (code(ack), place(ack)) == ("AE", "OBR(2)-4")
        assert await ris.search("ServiceRequest", identifier=f"{first},{second}") == []
        await ris.accepted(orm(patient, f"{first}^EHR", more=(*group(f"{second}^EHR"),)))
        assert len(await ris.search("ServiceRequest", identifier=f"{first},{second}", intent="order")) == 2
        ack = await ris.receive(orm(patient, f"{unused('L')}^EHR", more=(*group(f"{second}^EHR"),)))
        assert (code(ack), place(ack), condition(ack)) == ("AE", "ORC(2)-2", "205")

    ris.run(scenario())


def test_the_same_placer_number_again_is_refused(ris):
    async def scenario():
        patient, placer, order = await new_order(ris)
        before = await ris.counts()
        ack = await ris.receive(orm(patient, f"{placer}^EHR"))
        assert (code(ack), place(ack), condition(ack)) == ("AE", "ORC-2", "205")
        assert await ris.counts() == before
        # Another authority's number of the same text is another number.
        await ris.accepted(orm(patient, f"{placer}^OTHER"))
        assert await ris.read(order) == order

    ris.run(scenario())


@pytest.mark.parametrize("spelling", ["{}^EHR", "{}^EHR^1.2.3^ISO"])
def test_the_same_placer_number_for_a_different_patient_is_refused_and_shown(ris, spelling):
    async def scenario():
        _, placer, order = await new_order(ris)
        other = unused("P")
        message = orm(other, spelling.format(placer))
        first = await ris.answer(message)
        ack = parse(first)
        assert (code(ack), place(ack), condition(ack)) == ("AE", "ORC-2", "205")
        assert "different patient" in text(ack)
        assert await ris.search("Patient", identifier=other) == []
        assert await ris.read(order) == order
        (item,) = await ris.work_items("patient-mismatch", focus=f"ServiceRequest/{order['id']}")
        assert (item["status"], item["for"]) == ("requested", order["subject"])
        assert ack.segments[1].field(2) in item["description"]
        # Repeated, it is neither processed nor shown again.
        assert await ris.answer(message) == first
        assert len(await ris.work_items("patient-mismatch", focus=f"ServiceRequest/{order['id']}")) == 1

    ris.run(scenario())


def test_the_mix_up_in_a_later_order_group_is_shown_at_the_order_concerned(ris):
    async def scenario():
        _, placer, order = await new_order(ris)
        ack = await ris.receive(orm(unused("P"), f"{unused('L')}^EHR", more=(*group(f"{placer}^EHR"),)))
        assert (code(ack), place(ack)) == ("AE", "ORC(2)-2")
        assert len(await ris.work_items("patient-mismatch", focus=f"ServiceRequest/{order['id']}")) == 1

    ris.run(scenario())


def test_an_order_that_contradicts_what_is_known_of_the_patient_is_taken_and_shown(ris):
    async def scenario():
        patient, _, order = await new_order(ris)
        known = await ris.read(order["subject"]["reference"])
        placer = unused("L")
        await ris.accepted(orm(patient, f"{placer}^EHR", birth="19710131"))
        assert (await ordered(ris, placer))["subject"] == order["subject"]
        assert await ris.read(known) == known
        (item,) = await ris.work_items("patient-mismatch", focus=f"Patient/{known['id']}")
        assert "date of birth" in item["description"]
        # A partial date of birth is no contradiction.
        await ris.accepted(orm(patient, f"{unused('L')}^EHR", birth="1970"))
        assert len(await ris.work_items("patient-mismatch", focus=f"Patient/{known['id']}")) == 1

    ris.run(scenario())


def test_an_accession_number_or_study_of_another_patient_is_refused(ris):
    async def scenario():
        accession, uid = unused("A"), f"1.2.5.{unused('')}"
        patient, _, _ = await new_order(ris, obr={18: accession}, more=(f"ZDS|{uid}",))
        ack = await ris.receive(orm(unused("P"), f"{unused('L')}^EHR", obr={18: accession}))
        assert (code(ack), place(ack), condition(ack)) == ("AE", "OBR-18", "205")
        ack = await ris.receive(orm(unused("P"), f"{unused('L')}^EHR", more=(f"ZDS|{uid}",)))
        assert (code(ack), place(ack), condition(ack)) == ("AE", "ZDS-1", "205")
        await ris.accepted(orm(patient, f"{unused('L')}^EHR", obr={18: accession}))

    ris.run(scenario())


def test_an_order_for_a_patient_whose_record_is_not_active_is_refused(ris):
    async def scenario():
        patient, _, order = await new_order(ris)
        await ris.update(await ris.read(order["subject"]["reference"]), active=False)
        ack = await ris.receive(orm(patient, f"{unused('L')}^EHR"))
        assert (code(ack), place(ack), condition(ack)) == ("AE", "PID-3", "204")
        assert len(await ris.search("Patient", identifier=patient)) == 1

    ris.run(scenario())


# Twice, and at once


def test_an_order_that_comes_twice_is_one_order(ris):
    async def scenario():
        patient, placer = unused("P"), unused("L")
        message = orm(patient, f"{placer}^EHR")
        answers = await asyncio.gather(*(ris.answer(message) for _ in range(10)))
        answers.append(await ris.answer(message))
        assert len(set(answers)) == 1
        assert code(parse(answers[0])) == "AA"
        assert len(await ris.steps(await ordered(ris, placer))) == 1

    ris.run(scenario())


def test_two_orders_at_once_under_one_placer_number_make_one_order(ris):
    async def scenario():
        placer, patients = unused("L"), [unused("P"), unused("P")]
        acks = await asyncio.gather(*(ris.receive(orm(p, f"{placer}^EHR")) for p in patients))
        assert sorted(code(a) for a in acks) == ["AA", "AE"]
        order = await ordered(ris, placer)
        assert len(await ris.work_items("patient-mismatch", focus=f"ServiceRequest/{order['id']}")) == 1

    ris.run(scenario())


def test_many_connections_may_name_the_same_doctor_and_visit(ris):
    async def scenario():
        patient, doctor, visit = unused("P"), unused("D"), unused("V")
        pv1 = fields("PV1", {2: "O", 7: f"{doctor}^Doktor^Dora", 19: visit})
        messages = [orm(patient, f"{unused('L')}^EHR", orc={12: f"{doctor}^Doktor^Dora"}, more=(pv1,)) for _ in range(24)]

        async def connection(mine):
            return [code(await ris.receive(m)) for m in mine]

        codes = await asyncio.gather(*(connection(messages[i::6]) for i in range(6)))
        assert {c for cs in codes for c in cs} == {"AA"}
        assert len(await ris.search("Practitioner", identifier=doctor)) == 1
        assert len(await ris.search("Encounter", identifier=visit)) == 1

    ris.run(scenario())


# What the placer says of an order later


@pytest.mark.parametrize("control", ["CA", "DC"])
def test_a_cancelled_order_takes_everything_with_it(ris, control):
    async def scenario():
        patient, placer, order = await new_order(ris)
        appointment = await ris.book(order, await ris.scanner())
        await ris.accepted(orm(patient, f"{placer}^EHR", control))
        assert (await ris.read(order))["status"] == "revoked"
        assert (await ris.procedure(order))["status"] == "revoked"
        assert (await ris.study(order))["status"] == "cancelled"
        step = await ris.step(order)
        assert (step["status"], step["businessStatus"]["coding"][0]["code"]) == ("cancelled", "CANCELED")
        assert (await ris.read(appointment))["status"] == "cancelled"
        # Once more is no error, and nothing changes.
        before = await ris.counts()
        await ris.accepted(orm(patient, f"{placer}^EHR", control))
        assert await ris.counts() == before

    ris.run(scenario())


def test_a_cancelled_time_can_be_booked_by_somebody_else(ris):
    async def scenario():
        patient, placer, order = await new_order(ris)
        scanner = await ris.scanner()
        await ris.book(order, scanner)
        await ris.accepted(orm(patient, f"{placer}^EHR", "CA"))
        await ris.book(await ris.order(), scanner)

    ris.run(scenario())


def test_the_cancel_of_a_placer_who_spells_everything_differently_is_understood(ris):
    async def scenario():
        patient, placer, order = await new_order(ris)
        await ris.accepted(
            "MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ORM^O01|{id}|P|2.3.1",
            f"PID|||OLD^^^REGION~{patient}^^^EXAMPLEHOSP||MUSTER^M||1970|F",
            "ORC|CA",
            f"OBR|1|{placer}^EHR^1.2.3^ISO",
        )
        assert (await ris.read(order))["status"] == "revoked"

    ris.run(scenario())


def test_a_cancel_that_names_no_known_order_is_refused_and_shown(ris):
    async def scenario():
        placer = unused("L")
        ack = await ris.receive(orm(unused("P"), f"{placer}^EHR", "CA"))
        assert (code(ack), place(ack), condition(ack)) == ("AE", "ORC-2", "204")
        assert await ris.search("ServiceRequest", identifier=placer) == []
        assert len([i for i in await ris.work_items("unknown-order") if f"about {placer}," in i["description"]]) == 1

    ris.run(scenario())


@pytest.mark.parametrize("control", ["CA", "HD", "RL"])
def test_a_cancel_for_a_different_patient_is_refused_and_shown(ris, control):
    async def scenario():
        _, placer, order = await new_order(ris)
        ack = await ris.receive(orm(unused("P"), f"{placer}^EHR", control))
        assert (code(ack), place(ack), condition(ack)) == ("AE", "PID-3", "205")
        assert await ris.read(order) == order
        assert len(await ris.work_items("patient-mismatch", focus=f"ServiceRequest/{order['id']}")) == 1

    ris.run(scenario())


@pytest.mark.parametrize("control", ["CA", "HD"])
@pytest.mark.parametrize("reached", ["in-progress", "completed"])
def test_what_has_begun_can_neither_be_cancelled_nor_held(ris, control, reached):
    async def scenario():
        patient, placer, order = await new_order(ris)
        await ris.book(order, await ris.scanner())
        await ris.perform(order, reached)
        ack = await ris.receive(orm(patient, f"{placer}^EHR", control))
        assert (code(ack), place(ack)) == ("AE", "ORC-1")
        assert await ris.read(order) == order
        assert (await ris.step(order))["status"] == reached

    ris.run(scenario())


def test_a_completed_order_can_t_be_cancelled(ris):
    async def scenario():
        patient, placer, order = await new_order(ris)
        await ris.perform(order)
        await ris.report(order)
        ack = await ris.receive(orm(patient, f"{placer}^EHR", "CA"))
        assert (code(ack), place(ack)) == ("AE", "ORC-1")
        assert (await ris.read(order))["status"] == "completed"

    ris.run(scenario())


def test_a_held_order_waits_and_goes_on_where_it_was(ris):
    async def scenario():
        patient, placer, order = await new_order(ris)
        appointment = await ris.book(order, await ris.scanner())
        await ris.accepted(orm(patient, f"{placer}^EHR", "HD"))
        assert [(await ris.read(order))["status"], (await ris.procedure(order))["status"]] == ["on-hold", "on-hold"]
        step = await ris.step(order)
        assert step["status"] == "on-hold"
        assert "businessStatus" not in step
        assert (await ris.read(appointment))["status"] == "booked"
        await ris.accepted(orm(patient, f"{placer}^EHR", "RL"))
        assert [(await ris.read(order))["status"], (await ris.procedure(order))["status"]] == ["active", "active"]
        assert (await ris.step(order))["status"] == "accepted"
        assert len(await ris.steps(order)) == 1

    ris.run(scenario())


def test_release_of_what_is_not_held_and_hold_of_what_is_revoked(ris):
    async def scenario():
        patient, placer, _ = await new_order(ris)
        await ris.accepted(orm(patient, f"{placer}^EHR", "RL"))
        await ris.accepted(orm(patient, f"{placer}^EHR", "CA"))
        for control in ("HD", "RL"):
            ack = await ris.receive(orm(patient, f"{placer}^EHR", control))
            assert (code(ack), place(ack)) == ("AE", "ORC-1")

    ris.run(scenario())


# The dialect of a site in the IHE 2.3.1 habit, Latin-1, with another spelling of the name in the cancel

SITE_NEW = (
    "MSH|^~\\&|ORDERBETA|BETA|RIS|BETARAD|20260907093000||ORM^O01|{id}|P|2.3.1||||||8859/1",
    "PID|||PB-4711^^^BETA||DUPONT^JEAN-FRANÇOIS||19511103|M|||12 RUE IMAGINAIRE^^VILLENEUVE^^99990^FR||0555010203|||||PB-ACC-99",
    "PV1||I|SURG^201^B||||30002^MARTIN^CLAIRE||||||||A0||||V-20260907-3",
    "ORC|NW|B-100200^ORDERBETA|||||^^^20260907140000^^S||20260907093000|30009^DURAND^PAUL||30002^MARTIN^CLAIRE|||||SURG",
    (
        "OBR|1|B-100200^ORDERBETA||MRLSP^MRI lumbar spine^L|||||||||lombalgie, déficit moteur jambe G||^^^^|30002^MARTIN^CLAIRE||"
        "ACC-B-5501|RP-B-5501|SPS-B-5501||||MR|||^^^20260907140000^^S|||PORT|^lower back pain with deficit|||||20260907140000"
    ),
    "ZDS|1.2.826.0.1.3680043.9.9999.20260907.5501^100^Application^DICOM",
)
SITE_CANCEL = (
    "MSH|^~\\&|ORDERBETA|BETA|RIS|BETARAD|20260907101500||ORM^O01|{id}|P|2.3.1||||||8859/1",
    "PID|||PB-4711^^^BETA||DUPONT^JEAN||19511103|M",
    "PV1||I|SURG^201^B",
    "ORC|CA|B-100200^ORDERBETA|||||||20260907101500|||30002^MARTIN^CLAIRE",
    "OBR|1|B-100200^ORDERBETA||MRLSP^MRI lumbar spine^L",
)


def test_an_old_dialect_is_understood_from_order_to_cancel(ris):
    async def scenario():
        await ris.accepted(v2(*SITE_NEW, charset="latin-1"))
        order = await ordered(ris, "B-100200")
        assert identifiers(order)["ACSN"] == "ACC-B-5501"
        assert order["priority"] == "stat"
        assert order["note"] == [{"text": "lombalgie, déficit moteur jambe G"}]
        assert order["reasonCode"] == [{"text": "lower back pain with deficit"}]
        patient = await ris.read(order["subject"]["reference"])
        assert patient["name"][0]["given"] == ["JEAN-FRANÇOIS"]
        await ris.book(order, await ris.scanner("MR"))
        await ris.accepted(v2(*SITE_CANCEL, charset="latin-1"))
        assert (await ris.read(order))["status"] == "revoked"
        assert (await ris.read(patient))["name"][0]["given"] == ["JEAN-FRANÇOIS"]
        assert await ris.work_items("patient-mismatch", patient=f"Patient/{patient['id']}") == []

    ris.run(scenario())


def test_an_order_made_by_fhir_can_be_cancelled_by_v2(ris):
    async def scenario():
        patient = unused("P")
        await ris.accepted(
            "MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ADT^A04|{id}|P|2.5.1",
            fields("PID", {3: f"{patient}^^^EXAMPLEHOSP", 5: "Muster^Mara"}),
        )
        placer = unused("L")
        typed = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]}
        number = {"type": typed, "system": "urn:fhir-ris:v2-authority:EHR", "value": placer}
        order = await ris.order(await ris.one("Patient", identifier=patient), identifier=[number])
        appointment = await ris.create(booking(order, await ris.scanner()))
        await ris.accepted(orm(patient, f"{placer}^EHR", "CA"))
        assert (await ris.read(appointment))["status"] == "cancelled"

    ris.run(scenario())


def test_a_patient_with_very_many_open_orders_gets_another_one(ris):
    async def scenario():
        patient, first, last = unused("P"), unused("L"), unused("L")
        await ris.accepted(orm(patient, first))
        known = await ris.one("ServiceRequest", identifier=first, intent="order")
        stored = await ris.db["ServiceRequest"].find_one({"_id": known["id"]})
        ids = [new_id() for _ in range(600)]
        await ris.db["ServiceRequest"].insert_many([stored | {"_id": i, "resource": stored["resource"] | {"id": i}} for i in ids])
        await ris.accepted(orm(patient, last))
        order = await ris.one("ServiceRequest", identifier=last, intent="order")
        assert len(await ris.work_items("duplicate-order", focus=f"ServiceRequest/{order['id']}")) == 1
        await ris.accepted(orm(patient, last, "CA"))

    ris.run(scenario())
