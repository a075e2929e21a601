"""What the pages about partners, scanners and messages show alike, as plain values."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from babel.numbers import format_decimal

from bridges.partner_states import PartnerState
from bridges.scanner_states import ScannerState
from bridges.traffic import Rate, Refusal, reference_of
from bridges.v2.operations import Operator
from console.screens.interfaces.charts import Chart, chart
from console.visit import Visit
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Resource
from smart_auth.roles import INTERFACE_WORK

_OPEN: Final = "requested,received,accepted,ready,in-progress,on-hold"
_REASON: Final = 300  # characters of a reason in a list


def operator(visit: Visit) -> Operator:
    """The message store in the name of who is at the browser: what is done there is on record."""
    return Operator(visit.console.interactions, visit.access, visit.zone)


def rate_chart(visit: Visit, rate: Rate) -> Chart:
    """The messages of 24 hours."""
    return chart(rate.all, _told(visit, rate), rate.failed)


def _told(visit: Visit, rate: Rate) -> str:
    t = visit.t
    told = [t.count("interfaces.in-24-hours", rate.total)]
    if rate.failures:
        told.append(t("interfaces.failed", n=rate.failures))
    if rate.total:
        told.append(t("interfaces.most-an-hour", n=max(rate.all)))
    return ", ".join(told)


def days_chart(visit: Visit, scanner: ScannerState) -> Chart:
    """The worklist queries of 14 days."""
    total, today = (format_decimal(n, locale=visit.t.locale) for n in (sum(scanner.days), scanner.days[-1]))
    return chart(scanner.days, visit.t("interfaces.queries-of-14-days", n=total, today=today))


@dataclass(frozen=True, slots=True)
class Alert:
    """An open work item about an interface; `done` is where it is settled."""

    id: str
    version: str
    kind: str
    text: str
    since: str

    @property
    def done(self) -> str:
        return f"/interfaces/alerts/{self.id}"


async def alerts(visit: Visit, about: str = "") -> list[Alert]:
    """The open ones, the newest first; of one partner or scanner, whose reference or AE title is in its subject."""
    found = await visit.desk.search("Task", code=INTERFACE_WORK, status=_OPEN, _sort="-authored-on", _count="200")
    return [_alert(t) for t in found if not about or _is_about(t, about)]


def _alert(task: Resource) -> Alert:
    kind = str(task["code"]["coding"][0]["code"])
    return Alert(task["id"], task["meta"]["versionId"], kind, task.get("description", ""), task.get("authoredOn", ""))


def _is_about(task: Resource, about: str) -> bool:
    return any(about in str(i.get("value", "")).split() for i in task.get("identifier", ()))


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message in a list. `partner` is a reference or MSH-3 and MSH-4; `text` an error, an answer, or what it was about."""

    id: str
    sent: bool
    when: datetime
    type: str
    control_id: str
    partner: str
    name: str
    state: str
    text: str
    attempts: int = 0

    @property
    def path(self) -> str:
        return f"/interfaces/messages/{self.id}"

    @property
    def can_go_again(self) -> bool:
        """Whether the message store sends or processes it again on demand."""
        return self.state in ({"refused", "dead", "invalid", "cancelled"} if self.sent else {"AE", "AR", "held"})


def message_row(document: dict[str, Any], names: dict[str, str]) -> MessageRow:
    """A row of a document of the outbox or of the messages received; `names` are those of Endpoints by reference."""
    sent = "destination" in document
    partner = reference_of(document["destination"]) if sent else document.get("partner") or document.get("sender", "")
    if sent:
        text = document.get("error") or document.get("answer") or ""
    else:
        text = "; ".join(document["errors"]) or ", ".join(_short(reference) for reference in document["about"][:3])
    return MessageRow(
        str(document["_id"]),
        sent,
        document["created"] if sent else document["received"],
        document.get("type", ""),
        document.get("control_id", ""),
        partner,
        names.get(partner, partner),
        document["state"] if sent else document.get("state") or document["outcome"],
        text[:_REASON],
        document.get("attempts", 0),
    )


def _short(reference: str) -> str:
    """A reference for a narrow place: `Patient/…b32f1c`."""
    kind, _, id_ = reference.rpartition("/")
    return f"{kind}/…{id_[-6:]}" if len(id_) > 16 else reference


def names_of(states: list[PartnerState] | None = None, endpoints: list[Resource] | None = None) -> dict[str, str]:
    """The names of Endpoints by their references."""
    listed = [s.endpoint for s in states or ()] + list(endpoints or ())
    return {f"Endpoint/{e['id']}": str(e.get("name") or e["id"]) for e in listed}


@dataclass(frozen=True, slots=True)
class RefusalRow:
    """Why something was refused, and where the newest such message is."""

    of: Refusal
    name: str

    @property
    def path(self) -> str:
        return f"/interfaces/messages/{self.of.message}"


async def endpoints(visit: Visit) -> list[Resource]:
    """All Endpoints, by name."""
    found = await visit.desk.search("Endpoint")
    return sorted(found, key=lambda e: str(e.get("name") or e["id"]).lower())


async def read(visit: Visit, resource_type: str) -> Resource:
    """The Endpoint or Device of the address. FhirError when it isn't there."""
    return await visit.desk.read(f"{resource_type}/{visit.id()}")


def not_possible(error: Exception) -> FhirError:
    """What the message store refuses, as a page tells it."""
    return fail("business-rule", str(error))


def back(visit: Visit, otherwise: str) -> str:
    """The page of this screen from which a form was sent."""
    said = visit.form.text("back")
    return said if said.startswith("/interfaces") and "?" not in said else otherwise


def is_refused(visit: Visit) -> bool:
    """Whether the form of the settings was refused, and is shown again as it was typed."""
    return bool(visit.errors) and visit.form.get("version") is not None


def meanwhile(visit: Visit, stored: dict[str, str]) -> list[tuple[str, str]]:
    """What somebody else has stored, where it isn't what was typed: whoever saves again now does so knowing it."""
    if not is_refused(visit) or visit.status != 412:
        return []
    return [(visit.t(f"interfaces.field.{name}"), value) for name, value in stored.items() if value != visit.form.text(name)]
