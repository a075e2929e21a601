"""`_explain=true`: how MongoDB finds the matches of a search, for people who tune."""

from typing import TYPE_CHECKING, Any

from fhir_server.search import paging
from fhir_server.search.query import Query

if TYPE_CHECKING:
    from fhir_server.store import Store


async def explain(store: "Store", query: Query, place: paging.Place | None) -> dict[str, Any]:
    """The plan of the first step towards a page, run once.

    `order`: whether an index gives it or it is sorted in memory; `stages` of the plan, from the outside in; `indexes` with the
    bounds that are walked; `keys` and `documents` examined; `returned`; `milliseconds`; and the `filter` itself.
    """
    await store.require_sortable(query)
    in_memory = paging.is_in_memory(query)
    if in_memory:
        command: dict[str, Any] = {
            "aggregate": query.type,
            "pipeline": paging.pipeline(query, place, query.count + 1),
            "cursor": {},
        }
    else:
        where = store.steps(query, place)[0]
        command = {"find": query.type, "filter": where, "sort": dict(paging.order(query)), "limit": query.count + 1}
    answer = await store.db.command("explain", command, verbosity="executionStats")
    plan = answer["stages"][0]["$cursor"] if "stages" in answer else answer
    stats = plan["executionStats"]
    stages = list(_stages(plan["queryPlanner"]["winningPlan"]))
    return {
        "type": query.type,
        "order": "memory" if in_memory or any(s["stage"] == "SORT" for s in stages) else "index",
        "stages": [s["stage"] for s in stages],
        "indexes": [{"name": s["indexName"], "bounds": s["indexBounds"]} for s in stages if "indexName" in s],
        "keys": stats["totalKeysExamined"],
        "documents": stats["totalDocsExamined"],
        "returned": stats["nReturned"],
        "milliseconds": stats["executionTimeMillis"],
        "filter": str(command.get("filter", query.filter)),
    }


def _stages(plan: dict[str, Any]) -> Any:
    """The stages of a winning plan, with MongoDB 7's slot-based plans under `queryPlan`; each shard's on a sharded cluster."""
    plan = plan.get("queryPlan", plan)
    yield plan
    for inner in [plan.get("inputStage"), *plan.get("inputStages", ()), *(s["winningPlan"] for s in plan.get("shards", ()))]:
        if inner:
            yield from _stages(inner)
