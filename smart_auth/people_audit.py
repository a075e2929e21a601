"""AuditEvents of what people do at the login pages, and of what an operator does to users (DICOM PS3.15 A.5.3, "User
Authentication" and "Security Alert"; in FHIR as IHE's Basic Audit Log Patterns have their agents).

The agent is the user by name. A name that no user has is not written down: it may be a password in the wrong field.
"""

import getpass
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server import audit
from fhir_server.audit import Act
from fhir_server.store import Document, Store
from smart_auth.access import Access
from smart_auth.users import User

T = TypeVar("T")
USER = "urn:fhir-ris:user"
OPERATOR = "urn:fhir-ris:operator"
UNKNOWN = "unknown user"
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_AUTHENTICATION = {"system": _DCM, "code": "110114", "display": "User Authentication"}
_ALERT = {"system": _DCM, "code": "110113", "display": "Security Alert"}
_SUBTYPES = {
    "login": {"system": _DCM, "code": "110122", "display": "Login"},
    "logout": {"system": _DCM, "code": "110123", "display": "Logout"},
}
_CHANGED = {"system": _DCM, "code": "110137", "display": "User Security Attributes Changed"}


def of_user(event: str, ok: bool, name: str | None, detail: str, peer: str) -> Document:
    """What somebody did at the login and account pages; of a refusal `detail` says why."""
    act = Act(event, source="login", detail=detail or None, peer=peer or None)
    made = audit.audit_event(act, Access.system(name or UNKNOWN), (), failed=None if ok else detail or "refused")
    made["agent"][0]["who"] = _who(USER, name)
    return _typed(made, event)


def of_administrator(event: str, by: User, whose: User | None, detail: str = "", peer: str = "") -> Document:
    """What an administrator did at the console to a user (`whose`), or to an app."""
    about: list[Document] = []
    if whose is not None:
        about = [{"what": {"reference": whose.fhir_user}, "description": f"user {whose.name}"}]
    access = Access("console", (), "", user=by.fhir_user, user_name=by.name, role=by.role)
    act = Act(event, source="login", detail=detail or None, peer=peer or None)
    return _typed(audit.audit_event(act, access, about), event)


def of_operator(event: str, user: User, detail: str = "") -> Document:
    """What was done to a user on the command line, by whom the operating system takes for its caller."""
    whose: Document = {"what": {"reference": user.fhir_user}, "description": f"user {user.name}"}
    made = audit.audit_event(Act(event, source="login", detail=detail or None), Access.system("command-line"), [whose])
    made["agent"][0]["who"] = _who(OPERATOR, _caller())
    return _typed(made, event)


async def recorded(store: Store, change: Callable[[AsyncClientSession], Awaitable[T]], told: Callable[[T], Document | None]) -> T:
    """Make a change and store its AuditEvent in one transaction; `told` makes the event of what the change returned, if any."""
    await store.ensure("AuditEvent")
    async with store.trail.lane() as lane, store.db.client.start_session() as session:
        chained = False

        async def both(session: AsyncClientSession) -> T:
            nonlocal chained
            result = await change(session)
            event = told(result)
            chained = event is not None
            if event is not None:
                await audit.record(store, lane, [event], session)
                lane.committing()
            return result

        result = await session.with_transaction(both)
        if chained:
            lane.committed()
        return result


def _typed(event: Document, name: str) -> Document:
    about_login = name in _SUBTYPES or name == "second-factor"
    event["type"] = _AUTHENTICATION if about_login else _ALERT
    event["subtype"] = [*event["subtype"], *([_SUBTYPES[name]] if name in _SUBTYPES else [] if about_login else [_CHANGED])]
    return event


def _who(system: str, name: str | None) -> Document:
    return {"display": UNKNOWN} if name is None else {"identifier": {"system": system, "value": name}, "display": name}


def _caller() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user on this machine, as in some containers
        return "operator"
