"""FHIRStarter with the plainest MongoDB storage, for `benchmarks.peers`: it runs in an environment of its own, not in ours.

PYTHON peer_fhirstarter.py PORT MONGODB_URI DATABASE

Its own validation (fhir.resources) on each create and on what it reads, one insert a create (majority, journaled), an index for
the search; no tokens, history or audit.
"""

import json
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.patient import Patient
from fhir.resources.R4B.servicerequest import ServiceRequest
from fhirstarter import FHIRProvider, FHIRStarter, InteractionContext  # type: ignore[import-not-found] # not in our environment
from fhirstarter.exceptions import FHIRResourceNotFoundError  # type: ignore[import-not-found] # nor this
from pymongo import AsyncMongoClient
from pymongo.write_concern import WriteConcern

_PAGE = 20


def application(uri: str, database: str) -> FHIRStarter:
    """Create and read of both types, and the search of ServiceRequests by patient and status."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri)
    db = client.get_database(database, write_concern=WriteConcern("majority", j=True))

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        await db["ServiceRequest"].create_index([("subject.reference", 1), ("status", 1)])
        yield

    async def insert(resource: Any) -> str:
        resource.id = uuid.uuid4().hex
        document = json.loads(resource.model_dump_json())
        await db[document["resourceType"]].insert_one({"_id": resource.id, **document})
        return str(resource.id)

    async def create_patient(_context: InteractionContext, resource: Patient) -> str:
        return await insert(resource)

    async def create_request(_context: InteractionContext, resource: ServiceRequest) -> str:
        return await insert(resource)

    async def read_patient(_context: InteractionContext, id_: str) -> Patient:
        document = await db["Patient"].find_one({"_id": id_}, {"_id": 0})
        if document is None:
            raise FHIRResourceNotFoundError
        return Patient.model_validate(document)

    async def search_request(_context: InteractionContext, patient: str | None, status: str | None) -> Bundle:
        where = {"subject.reference": patient, "status": status}
        documents = await db["ServiceRequest"].find(where, {"_id": 0}, limit=_PAGE).to_list()
        entry = [{"resource": document, "search": {"mode": "match"}} for document in documents]
        return Bundle.model_validate({"resourceType": "Bundle", "type": "searchset", "entry": entry or None})

    provider = FHIRProvider()
    provider.create(Patient)(create_patient)
    provider.create(ServiceRequest)(create_request)
    provider.read(Patient)(read_patient)
    provider.search_type(ServiceRequest)(search_request)
    app = FHIRStarter(title="benchmark", lifespan=lifespan)
    app.add_providers(provider)
    return app


def main() -> None:
    port, uri, database = sys.argv[1:]
    uvicorn.run(application(uri, database), port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
