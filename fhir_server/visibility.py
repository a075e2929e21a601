"""Reading one resource and its versions as a caller may see them: what it may not see is as if it had never been there.

A resource is judged by its current version, or the last one before it was deleted; and each version that is shown by itself.
Whoever is not restricted reads the store as it is. For the others a look at what is hidden takes the same steps as one at what
isn't there.
"""

from collections.abc import AsyncIterator

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.matching import matches
from fhir_server.store import Document, Store, Version, version
from smart_auth.access import Access


async def read(
    store: Store, access: Access, resource_type: str, id_: str, session: AsyncClientSession | None = None
) -> Version | None:
    """The current version; a tombstone if it was deleted; None if there is nothing, or nothing for this caller."""
    where = access.filter(resource_type, "r") if access.restricted else None
    if where is None:
        return await store.read(resource_type, id_, session)
    found = await store.current(resource_type).find_one({"_id": id_}, session=session)
    if found is not None and matches(where, id_, found["search"]["t"]):
        return version(found, id_)
    past = await store.history(resource_type).find({"id": id_}, sort=[("version", -1)], limit=2, session=session).to_list()
    if found is not None or len(past) < 2 or past[0]["method"] != "DELETE":
        return None
    last = version(past[1], id_)
    return version(past[0], id_) if last.resource is not None and access.covers(last.resource, "r") else None


async def vread(
    store: Store, access: Access, resource_type: str, id_: str, number: int, session: AsyncClientSession | None = None
) -> Version | None:
    """One version, current or earlier."""
    if not access.restricted or access.filter(resource_type, "r") is None:
        return await store.vread(resource_type, id_, number, session)
    current = await read(store, access, resource_type, id_, session)
    if current is None or current.version == number:
        return current
    wanted = {"id": id_, "version": {"$lte": number, "$gte": number - 1}}
    found = await store.history(resource_type).find(wanted, sort=[("version", -1)], session=session).to_list()
    shown = [v async for v in visible(access, _versions(found, id_))]
    return next((v for v in shown if v.version == number), None)


async def visible(access: Access, newest_first: AsyncIterator[Version]) -> AsyncIterator[Version]:
    """Those versions of one resource that may be shown; a deletion if the version before it may."""
    deletion: Version | None = None
    async for found in newest_first:
        if found.resource is None:
            deletion = found
            continue
        if access.covers(found.resource, "r"):
            if deletion is not None:
                yield deletion
            yield found
        deletion = None


async def _versions(documents: list[Document], id_: str) -> AsyncIterator[Version]:
    for document in documents:
        yield version(document, id_)
