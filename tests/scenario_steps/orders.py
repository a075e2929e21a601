"""The HIS and its patients, the EHR and its orders, and what the department says to these."""

from demo import ehr
from tests.scenario import act_of, step
from tests.scenario_steps.catalogue import BY_NAME, EXAMINATIONS
from tests.scenario_steps.staff import PEOPLE
from tests.scenario_steps.world import Case, World

_ORDER_CONTROL = {"orders": "NW", "cancels": "CA", "holds": "HD", "releases": "RL", "discontinues": "DC"}


@step("the HIS registers the patient")
async def registers(world: World) -> None:
    await world.exam.admit()


@step("the HIS registers an unknown patient from an accident")
async def registers_unknown(world: World) -> None:
    exam = world.exam
    await exam.say(
        "HIS|EXAMPLEHOSP", "ADT^A04^ADT_A01", f"EVN|A04|{ehr.stamp()}",
        f"PID|1||{exam.patient_id}^^^EXAMPLEHOSP^MR||Unknown^Alpha^^^^^U",
        f"PV1|1|E|ER^1||||||||||||||||V{exam.patient_id}^^^EXAMPLEHOSP^VN",
    )  # fmt: skip


@step("the HIS corrects the name to (.+)")
async def corrects_name(world: World, family: str) -> None:
    exam = world.exam
    await exam.say(
        "HIS|EXAMPLEHOSP", "ADT^A08^ADT_A01", f"EVN|A08|{ehr.stamp()}",
        f"PID|1||{exam.patient_id}^^^EXAMPLEHOSP^MR||{family}^Mara^^^^^L||19700131|F", "PV1|1|O",
    )  # fmt: skip


@step("the HIS finds out who it is and merges the record")
async def merges(world: World) -> None:
    await world.exam.merge(f"M{world.exam.number}")


@step("the EHR (orders|cancels|holds|releases|discontinues) it")
async def orders(world: World, what: str) -> None:
    await world.exam.ordered(_ORDER_CONTROL[what])


@step("the EHR orders a CT of the chest over FHIR")
async def orders_over_fhir(world: World) -> None:
    await world.exam.ordered_over_fhir()


@step("the EHR orders it once more under another number")
async def orders_again(world: World) -> None:
    world.exam = Case(world.stage, world.exam.number + 10_000, 0, world.exam.start, world.exam.lock, world.exam.patient_id)
    await world.exam.ordered()


@step("the EHR tries to (cancel|hold|discontinue) it")
async def tries(world: World, what: str) -> None:
    message = ehr.order(world.exam.control_id("O"), world.exam.placer, world.exam.patient_id, control=_ORDER_CONTROL[f"{what}s"])
    ack = await ehr.send(world.stage.server.mllp_port, message)
    world.refusal = ack.raw.decode() if ack.all("MSA")[0].field(1) != "AA" else ""


@step("that is refused, as (.+)")
async def refused(world: World, why: str) -> None:
    assert why in world.refusal, world.refusal or "it was not refused"


@step("the same message comes again")
async def again(world: World) -> None:
    await world.exam.send(world.exam.sent)


@step("it is refused that (.+?): (.+)")
async def impossible(world: World, line: str, why: str) -> None:
    act, given = act_of(line)
    refusal = "it was not refused"
    try:
        with world.staff.over_the_app():  # a screen may not even offer it
            await act(world, *given)
    except (AssertionError, RuntimeError) as error:
        refusal = str(error)
    assert why in refusal, refusal


@step("the HIS registers a woman of 31")
async def registers_woman(world: World) -> None:
    world.exam.born = "19950204"
    await world.exam.admit()


@step("the HIS registers another patient, whose order it should have been")
async def registers_right(world: World) -> None:
    world.right = Case(world.stage, world.exam.number + 5_000, 0, world.exam.start, world.exam.lock)
    await world.right.admit()


@step("the HIS registers another patient from an accident")
async def registers_next(world: World) -> None:
    start = world.exam.start
    await world.another(same_patient=False).admit()
    world.exam.start = start


@step(f"the EHR (also |urgently )?orders ({EXAMINATIONS})( without a reason)?")
async def orders_one(world: World, how: str | None, what: str, without: str | None) -> None:
    if how == "also ":
        world.another(same_patient=True)
    world.wants(what)
    world.exam.priority = "S" if how == "urgently " else "R"
    world.exam.reason = without is None
    await world.exam.ordered()


@step(f"({PEOPLE}) accepts the order, as (.+)")
async def accepts(world: World, who: str, why: str) -> None:
    await world.person(who).do(f"ServiceRequest/{world.exam.order['id']}/$accept", reason=why)


@step(f"({PEOPLE}) (holds|rejects|cancels) the order, as (.+)")
async def decides(world: World, who: str, what: str, why: str) -> None:
    await world.person(who).do(f"ServiceRequest/{world.exam.order['id']}/${what.removesuffix('s')}", reason=why)


@step(f"({PEOPLE}) replaces the order by ({EXAMINATIONS}), as (.+)")
async def replaces(world: World, who: str, what: str, why: str) -> None:
    was = world.exam.order
    instead = {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "code": BY_NAME[what].coded,
        "subject": was["subject"],
        "reasonCode": was["reasonCode"],
    }
    answer = await world.person(who).do(f"ServiceRequest/{was['id']}/$cancel", reason=why, replacement=instead)
    world.another(same_patient=True)
    world.wants(what)
    (made,) = (p["valueReference"]["reference"] for p in answer["parameter"] if p["name"] == "replacement")
    world.exam.order = await world.stage.app.ok("GET", made)


@step(f"({PEOPLE}) adds ({EXAMINATIONS}), as (.+)")
async def adds(world: World, who: str, what: str, why: str) -> None:
    path = f"ServiceRequest/{world.exam.order['id']}/$add-procedure"
    await world.person(who).do(path, code=BY_NAME[what].coded, reason=why)


@step(f"({PEOPLE}) moves the order to the right patient, as (.+)")
async def moves_order(world: World, who: str, why: str) -> None:
    assert world.right is not None
    patient = await world.stage.one(f"Patient?identifier={world.right.patient_id}")
    to = {"reference": f"Patient/{patient['id']}"}
    await world.person(who).do(f"ServiceRequest/{world.exam.order['id']}/$move", patient=to, reason=why, correctReports=True)
    world.exam.patient_id = world.right.patient_id
    world.exam.order = await world.current(world.exam.order)


@step("the payer authorizes it")
async def authorizes(world: World) -> None:
    app, patient = world.stage.app, world.exam.order["subject"]
    payer = await app.ok("POST", "Organization", {"resourceType": "Organization", "name": "Example Health"})
    insurer = {"reference": f"Organization/{payer['id']}"}
    cover = {"resourceType": "Coverage", "status": "active", "beneficiary": patient, "payor": [insurer]}
    coverage = {"reference": f"Coverage/{(await app.ok('POST', 'Coverage', cover))['id']}"}
    authorization = {
        "resourceType": "ClaimResponse",
        "status": "active",
        "type": {"text": "institutional"},
        "use": "preauthorization",
        "patient": patient,
        "created": f"{world.exam.start:%Y-%m-%d}",
        "insurer": insurer,
        "outcome": "complete",
        "preAuthRef": f"AUTH{world.exam.number}",
        "preAuthPeriod": {"start": f"{world.exam.start:%Y-%m-%d}", "end": f"{world.exam.start:%Y-%m-%d}"},
        "insurance": [{"sequence": 1, "focal": True, "coverage": coverage}],
    }
    number = (await app.ok("POST", "ClaimResponse", authorization))["id"]
    await world.stage.write(world.exam.order, insurance=[coverage, {"reference": f"ClaimResponse/{number}"}])


@step(f"({PEOPLE}) has it booked without authorization, as (.+)")
async def overrides(world: World, who: str, why: str) -> None:
    await world.person(who).do(f"ServiceRequest/{world.exam.order['id']}/$override-authorization", reason=why)
