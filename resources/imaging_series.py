"""ImagingStudy.series: what the scanner announced, and what has arrived at the PACS."""

from dataclasses import dataclass, field
from typing import Any, Final

from fhir_server.elements import extension
from fhir_server.references import ref
from fhir_server.registry import Resource
from resources import terms

ANNOUNCED: Final = "ANNOUNCED"
UNAVAILABLE: Final = "UNAVAILABLE"
# PS3.3 C.4.23.1.1, the best first.
AVAILABILITIES: Final = ("ONLINE", "NEARLINE", "OFFLINE", UNAVAILABLE)


@dataclass(slots=True)
class ArrivedSeries:
    """A series as the PACS has it. `instances`: {uid: (SOP class UID, availability)}, as far as they are told one by one.

    count: the number of instances, where it is told; else those of `instances` that are available
    """

    uid: str
    modality: str = ""
    description: str = ""
    retrieve_ae_title: str = ""
    instances: dict[str, tuple[str, str]] = field(default_factory=dict)
    count: int | None = None
    availability: str = "ONLINE"


def availability(series: Resource) -> str:
    """What is known of a series: ANNOUNCED when nobody has said more than the scanner."""
    return str((extension(series, terms.AVAILABILITY) or {}).get("valueCode", ANNOUNCED))


def with_performed(study: Resource, series: list[Resource], started: str | None) -> Resource:
    """The study with series that a scanner announces. What the PACS has told of them already, is kept.

    Series that it names again are replaced (a second step may add to a study, PS3.4 F.7).
    """
    known = {s["uid"]: s for s in study.get("series", ())}
    for new in series:
        old = known.get(new["uid"])
        if old is not None and availability(old) != ANNOUNCED:
            rest = [e for e in new["extension"] if e["url"] not in {terms.AVAILABILITY, terms.RETRIEVE_AE_TITLE}]
            kept = {k: v for k, v in old.items() if k in {"numberOfInstances", "instance", "endpoint"}}
            arrived = [e for e in old["extension"] if e["url"] in {terms.AVAILABILITY, terms.RETRIEVE_AE_TITLE}]
            known[new["uid"]] = new | kept | {"extension": arrived + rest}
        else:
            known[new["uid"]] = new
    study = counted(study | {"series": list(known.values())})
    return study if started is None or "started" in study else study | {"started": started}


def without_announced(study: Resource, uids: set[str]) -> Resource:
    """The study without series that a scanner announced for it by mistake, unless the PACS has told of them."""
    kept = [s for s in study.get("series", ()) if s["uid"] not in uids or availability(s) != ANNOUNCED]
    return counted({k: v for k, v in study.items() if k != "series"} | ({"series": kept} if kept else {}))


def with_arrived(study: Resource, arrived: list[ArrivedSeries], endpoint: Resource | None) -> Resource:
    """The study with what the PACS has of these series."""
    known = {s["uid"]: s for s in study.get("series", ())}
    for new in arrived:
        known[new.uid] = _arrived(known.get(new.uid), new, endpoint)
    study = counted(study | {"series": list(known.values())})
    if endpoint is not None and ref(endpoint) not in study.get("endpoint", []):
        study["endpoint"] = [*study.get("endpoint", ()), ref(endpoint)]
    return study


def _arrived(known: Resource | None, new: ArrivedSeries, endpoint: Resource | None) -> Resource:
    series: dict[str, Any] = dict(known or {"uid": new.uid, "modality": {"system": terms.DCM, "code": new.modality or "OT"}})
    if new.description and "description" not in series:
        series["description"] = new.description
    instances = {i["uid"]: i for i in series.get("instance", ())} if availability(series) != ANNOUNCED else {}
    for uid, (sop_class, state) in new.instances.items():
        instances.pop(uid, None)
        if state != UNAVAILABLE:
            instances[uid] = {"uid": uid, "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{sop_class}"}}
    if new.instances:
        series = {k: v for k, v in series.items() if k != "instance"}
        if instances:
            series["instance"] = list(instances.values())
    series["numberOfInstances"] = new.count if new.count is not None else len(instances)
    own = [{"url": terms.AVAILABILITY, "valueCode": new.availability}]
    if new.retrieve_ae_title:
        own.append({"url": terms.RETRIEVE_AE_TITLE, "valueString": new.retrieve_ae_title})
    replaced = {e["url"] for e in own}
    series["extension"] = own + [e for e in series.get("extension", ()) if e["url"] not in replaced]
    if endpoint is not None:
        series["endpoint"] = [ref(endpoint)]
    return series


def counted(study: Resource) -> Resource:
    """The study with its counts and modalities as its series are."""
    series = study.get("series", ())
    rest = {k: v for k, v in study.items() if k not in {"modality", "numberOfSeries", "numberOfInstances"}}
    if not series:
        return rest
    modalities = {s["modality"]["code"]: s["modality"] for s in series}
    return rest | {
        "modality": list(modalities.values()),
        "numberOfSeries": len(series),
        "numberOfInstances": sum(s.get("numberOfInstances", 0) for s in series),
    }


def is_available(study: Resource) -> bool:
    """Whether the PACS has something of it that can be had."""
    return any(availability(s) not in {ANNOUNCED, UNAVAILABLE} and s.get("numberOfInstances", 0) for s in study.get("series", ()))
