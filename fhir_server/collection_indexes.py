"""MongoDB's indexes of a resource type's two collections (`store.py`), which searches and history go by.

Whoever changes what is in here changes `store.CATALOG_VERSION`: then the indexes are made anew at the next start.
"""

from pymongo import IndexModel

from fhir_server import audit_chain
from fhir_server.search.index import LISTED, ranked, searchable, unions


def history_indexes() -> list[IndexModel]:
    """For the versions of one resource, and for those of a type in the order of their making."""
    return [IndexModel([("id", 1), ("version", -1)]), IndexModel([("updated", 1), ("id", 1), ("version", 1)])]


def current_indexes(resource_type: str) -> list[IndexModel]:
    """For the current versions of a type: its keys, its sort orders, each with `_id` at the end for paging; of lists both."""
    always = ["search.t", "updated"]
    some: list[str] = []  # what not every resource has
    found: list[IndexModel] = [audit_chain.INDEX] if resource_type == "AuditEvent" else []
    for name, kind in searchable(resource_type).items():
        if kind == "date" and name != "_lastUpdated":
            some += [f"search.d.{name}.s", f"search.d.{name}.e"]
        elif kind == "number":
            some += [f"search.n.{name}.l", f"search.n.{name}.h"]
        elif kind == "quantity" and name not in unions(resource_type):
            path = f"search.q.{name}"
            found += [IndexModel([(f"{path}.u", 1), (f"{path}.{end}", 1)], sparse=True) for end in ("l", "h")]
        elif kind == "special":
            found.append(IndexModel([(f"search.g.{name}", "2dsphere")]))
    if ranked(resource_type):
        some.append("search.rank")
    if resource_type in LISTED:
        found.append(IndexModel([("search.by", 1), ("search.to", 1), ("_id", 1), ("search.from", 1)]))
    found += [IndexModel([(path, 1), ("_id", 1)]) for path in always]
    return found + [IndexModel([(path, 1), ("_id", 1)], partialFilterExpression={path: {"$exists": True}}) for path in some]
