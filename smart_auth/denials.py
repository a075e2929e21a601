"""What patients have denied: Consent resources (FHIR R4) as rules on the index.

Looked at are active Consents of the scope `patient-privacy` (or any other than treatment, research and advance directives), by
their provisions, of which each nested one is an exception to the one it is in:
- `actor`: the person, one of its PractitionerRoles, an Organization of these, or a Group or CareTeam that it is in;
- `securityLabel`: resources with this label (of confidentiality labels: with this one or a higher one);
- `class`: resource types; `purpose`: rules for purposes other than treatment don't concern us; `period`: by today's date.
A condition that can't be judged (`action`, `code`, `data`, `dataPeriod`, an actor known by identifier) counts as met for what is
denied and as not met for what is permitted: rather too little is shown than too much.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_server.references import target
from fhir_server.search.conditions import keyed
from fhir_server.search.dates import interval
from fhir_server.search.index import denies
from smart_auth import labels
from smart_auth.logic import Rule, every, none, some

Provision = Mapping[str, Any]

_NO_PRIVACY = frozenset({"treatment", "research", "adr"})
_OURS = frozenset({"TREAT", "ETREAT", "BTG", "CAREMGT", "PurposeOfUse"})
_RESOURCE_TYPES = "http://hl7.org/fhir/resource-types"
_UNJUDGED = ("action", "code", "data", "dataPeriod")
_HIGHER = {"U": "ULMNRV", "L": "LMNRV", "M": "MNRV", "N": "NRV", "R": "RV", "V": "V"}


@dataclass(frozen=True, slots=True)
class Denial:
    """What some patients (logical ids) have denied this person: the provision, of which the outermost applies."""

    patients: frozenset[str]
    provision: Provision
    who: frozenset[str]
    now: datetime

    def hides(self, resource_type: str) -> Rule:
        """Which resources of a type, if they are of one of these patients, it hides."""
        return every(self._concerns(self.provision, resource_type, doubt=True), self._denied(self.provision, resource_type))

    def _denied(self, provision: Provision, resource_type: str) -> Rule:
        """Whether what the provision concerns is denied: its own word holds where none of its exceptions speaks."""
        inner = [p for p in provision.get("provision", ()) if isinstance(p, dict)]
        perhaps = [every(self._concerns(p, resource_type, doubt=True), self._denied(p, resource_type)) for p in inner]
        surely = [self._concerns(p, resource_type, doubt=False) for p in inner]
        return some([*perhaps, every(provision.get("type") == "deny", none(*surely))])

    def _concerns(self, provision: Provision, resource_type: str, *, doubt: bool) -> Rule:
        """What a provision is about. `doubt`: whether a condition that can't be judged is taken as met."""
        if not doubt and any(name in provision for name in _UNJUDGED):
            return False
        if not _in_period(provision.get("period"), self.now) or not _purpose_is_ours(provision):
            return False
        if not self._is_actor(provision, doubt=doubt) or not _is_class(provision, resource_type, doubt=doubt):
            return False
        wanted = [c for c in provision.get("securityLabel", ()) if isinstance(c, dict)]
        return keyed(sorted({k for c in wanted for k in _keys(c, doubt=doubt)})) if wanted else True

    def _is_actor(self, provision: Provision, *, doubt: bool) -> bool:
        actors = provision.get("actor", ())
        references = {str(target(a.get("reference")) or "") for a in actors}
        return not actors or bool(self.who & references) or (doubt and "" in references)


def is_denial(consent: Mapping[str, Any]) -> bool:
    """Whether a Consent denies anything that rights have to look at."""
    codes = {c.get("code") for c in consent.get("scope", {}).get("coding", ())}
    return (
        consent.get("status") == "active"
        and (not codes or not codes <= _NO_PRIVACY)
        and "patient" in consent
        and denies(consent.get("provision"))
    )


def denials(consents: Iterable[Mapping[str, Any]], who: frozenset[str], now: datetime) -> tuple[Denial, ...]:
    """What of these concerns this person (`who`: references to it, and to what it belongs to); equal provisions joined."""
    patients: dict[str, set[str]] = {}
    provisions: dict[str, Provision] = {}
    for consent in consents:
        to = target(consent.get("patient"))
        if to is None or to.type != "Patient" or not is_denial(consent):
            continue
        text = json.dumps(consent["provision"], sort_keys=True, default=str)
        patients.setdefault(text, set()).add(to.id)
        provisions[text] = consent["provision"]
    return tuple(Denial(frozenset(ids), provisions[text], who, now) for text, ids in patients.items())


def actors(consents: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any of them names actors: only then need it be known what the person belongs to."""
    return any('"actor"' in json.dumps(c.get("provision"), default=str) for c in consents)


def _in_period(period: Any, now: datetime) -> bool:
    if not isinstance(period, dict):
        return True
    span = interval("Period", period)
    return span is None or span[0] <= now < span[1]


def _purpose_is_ours(provision: Provision) -> bool:
    codes = {c.get("code") for c in provision.get("purpose", ())}
    return not codes or bool(codes & _OURS)


def _is_class(provision: Provision, resource_type: str, *, doubt: bool) -> bool:
    classes = provision.get("class", ())
    types = {c.get("code") for c in classes if c.get("system") == _RESOURCE_TYPES}
    return not classes or resource_type in types or (doubt and any(c.get("system") != _RESOURCE_TYPES for c in classes))


def _keys(coding: Mapping[str, Any], *, doubt: bool) -> list[str]:
    system, code = coding.get("system", ""), coding.get("code", "")
    codes = _HIGHER.get(code, code) if doubt and system == labels.SYSTEM else [code]
    return [labels.key(system, c) for c in codes]
