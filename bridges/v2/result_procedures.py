"""Which requested procedures of an order a result is of, by its codes: a report of one must not end the others."""

from dataclasses import replace

from bridges.v2.order_lookup import Found, OrderNames
from bridges.v2.result_groups import ResultGroup
from fhir_server.elements import codings, identifier_value
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import imaging_study, service_request, terms

_VOID = frozenset({"revoked", "entered-in-error"})


async def chosen(unit: UnitOfWork, group: ResultGroup, names: OrderNames, found: Found) -> tuple[Found, bool]:
    """What is found with the procedures that OBR-4 or OBR-44 name, and whether it can't be told which of several are meant.

    Ids and studies have chosen before. The order's own code, where no procedure has it, names all of them.
    """
    said = {c.strip() for n in (4, 44) for i in (1, 4) if (c := group.obr.get(n, i)).strip()}
    meant: list[Resource] = []
    unnamed = False
    for order in found.orders:
        every = await service_request.procedures_of(unit, order["id"])
        live = [p for p in every if p["status"] not in _VOID]
        own = [p for p in found.procedures if any(p["id"] == e["id"] for e in every)]
        if len(live) < 2 or _by_number(names, own, found.studies):
            meant += own
            continue
        coded = [p for p in own if _codes(p) & said]
        meant += coded or own
        unnamed = unnamed or not (coded or _codes(order) & said)
    ids = {p["id"] for p in meant}
    of = {f"ServiceRequest/{i}" for i in ids}
    studies = [s for s in found.studies if any(r.get("reference") in of for r in s.get("basedOn", ()))]
    return replace(found, procedures=meant, studies=studies), unnamed


def _by_number(names: OrderNames, procedures: list[Resource], studies: list[Resource]) -> bool:
    """Whether one of the procedures is named by its id or its study."""
    ids = {s.field.get(1).strip() for s in names.procedures}
    uids = {s.field.get(1).strip() for s in names.studies}
    of = {r.get("reference") for s in studies if imaging_study.study_uid(s) in uids for r in s.get("basedOn", ())}
    return any(identifier_value(p, terms.REQUESTED_PROCEDURE_ID) in ids or f"ServiceRequest/{p['id']}" in of for p in procedures)


def _codes(request: Resource) -> set[str]:
    return {c["code"] for c in codings(request.get("code")) if "code" in c}
