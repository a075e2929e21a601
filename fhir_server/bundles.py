"""Transaction and batch Bundles (FHIR R4 3.1.0.11): each entry an interaction, answered in its place."""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from pymongo.errors import ConnectionFailure

from fhir_server import bundle_transaction, clock, fhir_json
from fhir_server.bundle_entries import EntryAsk, refuse_unknown
from fhir_server.exchange import Ask, Reply
from fhir_server.ids import new_id
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError, fail, operation_outcome
from fhir_server.registry import Resource
from fhir_server.transactions import unavailable

log = structlog.get_logger()

MAX_ENTRIES = 5000
MAX_ANSWER = 50 * 1024 * 1024  # bytes of what the entries of a batch read
Entry = dict[str, Any]


async def process(
    interactions: Interactions, perform: Callable[[Ask], Awaitable[Reply]], ask: Ask, bundle: Resource, base_url: str
) -> Resource:
    """The response Bundle of a transaction (all or nothing) or batch (each entry on its own).

    `perform` does one interaction; `ask` is the request that the Bundle came with; `base_url` our FHIR base.
    """
    refuse_unknown(bundle, "Bundle", "Bundle")
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        raise fail("structure", "this element repeats, so it must be an array", "Bundle.entry")
    if len(entries) > MAX_ENTRIES:
        raise fail("too-costly", f"a Bundle holds at most {MAX_ENTRIES} entries", "Bundle.entry", status=413)
    kind = bundle.get("type")
    if kind == "transaction":
        asks = [_asked(entry, i, ask, base_url) for i, entry in enumerate(entries)]
        replies = await bundle_transaction.run(interactions, ask.access, asks, ask.act("transaction"), base_url)
        return _response(kind, [_answer(a, r) for a, r in zip(asks, replies, strict=True)])
    if kind == "batch":
        answers: list[Entry] = []
        size = 0
        for i, entry in enumerate(entries):
            full = size > MAX_ANSWER and "resource" not in (entry if isinstance(entry, dict) else {})
            answers.append(_refused(_too_much()) if full else await _alone(perform, entry, i, ask, base_url))
            size += len(fhir_json.dumps(answers[-1]))
        return _response(kind, answers)
    raise fail("value", "a Bundle sent here is a transaction or a batch", "Bundle.type")


def _too_much() -> FhirError:
    return fail(
        "too-costly", f"the answer has more than {MAX_ANSWER // 1024 // 1024} MiB already: ask for less at once", status=413
    )


def _asked(entry: Any, index: int, ask: Ask, base_url: str) -> EntryAsk:
    return EntryAsk(entry, f"Bundle.entry[{index}]", ask.access, ask.prefer, ask.peer, base_url)


async def _alone(perform: Callable[[Ask], Awaitable[Reply]], entry: Any, index: int, ask: Ask, base_url: str) -> Entry:
    """One entry of a batch, on its own: whatever becomes of it, the others are done."""
    try:
        asked = _asked(entry, index, ask, base_url)
        return _answer(asked, await perform(asked))
    except FhirError as error:
        return _refused(error)
    except ConnectionFailure:
        return _refused(unavailable())
    except Exception:
        log.exception("an entry of a batch failed", entry=index)
        return _refused(fail("exception", "an internal error; it is in the server's log"))


def _answer(asked: EntryAsk, reply: Reply) -> Entry:
    """The entry that answers an interaction. `Prefer` decides over what is written, never over what is asked for."""
    response: Entry = {"status": str(reply.status)}
    answer: Entry = {"response": response}
    if reply.stored is not None:
        resource, meta = reply.stored, reply.stored["meta"]
        response["location"] = f"{resource['resourceType']}/{resource['id']}/_history/{meta['versionId']}"
        response["etag"] = f'W/"{meta["versionId"]}"'
        response["lastModified"] = meta["lastUpdated"]
    if reply.resource is None or asked.head:
        return answer
    if asked.method != "GET" and reply.resource["resourceType"] == "OperationOutcome":
        response["outcome"] = reply.resource
        return answer
    return {"resource": reply.resource, **answer}


def _refused(error: FhirError) -> Entry:
    return {"response": {"status": str(error.status), "outcome": operation_outcome(*error.issues)}}


def _response(kind: str, entries: list[Entry]) -> Resource:
    return {
        "resourceType": "Bundle",
        "id": new_id(),
        "meta": {"lastUpdated": clock.instant(clock.now())},
        "type": f"{kind}-response",
        **({"entry": entries} if entries else {}),
    }
