"""Databases for what a module of tests plays with, each empty when it is taken.

One that is given back is emptied and taken again: to make its hundred collections with their five hundred indexes takes mongod
more than a second of processor time, and a disk several seconds.
"""

from uuid import uuid4

from pymongo import MongoClient
from pymongo.database import Database

from fhir_server.database import Document

MANY = 5000  # documents: more are quicker dropped than deleted
_idle: dict[str, list[str]] = {}


def take(uri: str) -> str:
    """The name of an empty database."""
    idle = _idle.setdefault(uri, [])
    return idle.pop() if idle else f"test_{uuid4().hex[:12]}"


def give_back(uri: str, name: str) -> None:
    """Once nobody writes to it any more. What is not as the server makes it is dropped."""
    client: MongoClient[Document] = MongoClient(uri, w="majority")
    with client:
        if _emptied(client[name]):
            _idle.setdefault(uri, []).append(name)
        else:
            client.drop_database(name)


def _emptied(db: Database[Document]) -> bool:
    made = list(db.list_collections())
    if any(c["type"] != "collection" or c["options"] or c["name"].startswith("system.") for c in made):
        return False  # a test has given it a view, a validator or the profiler
    counts = {c["name"]: db[c["name"]].estimated_document_count() for c in made}
    if sum(counts.values()) > MANY:
        return False
    for name, count in counts.items():
        if count:
            db[name].delete_many({})
    return True
