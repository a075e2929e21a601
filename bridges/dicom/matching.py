"""A worklist query: its keys, what MongoDB can preselect by them, the exact matching, and the answer (PS3.4 C.2.2.2, K.6.1.2)."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bridges.dicom import dimse, time_keys
from bridges.dicom.dicom_json import CHARACTER_SET, Attributes, Element, element, items, name_groups, tag, text, texts_of, vr_of
from bridges.dicom.romanisation import folded
from bridges.dicom.wild_cards import Matcher, matcher
from bridges.dicom.worklist_keys import IDENTIFYING, ROOT, STEP, Key

_SPS = tag("ScheduledProcedureStepSequence")
_START_DATE, _START_TIME = tag("ScheduledProcedureStepStartDate"), tag("ScheduledProcedureStepStartTime")
# Said by the answer as it needs, never matched.
_NEVER_MATCHED = {CHARACTER_SET, tag("TimezoneOffsetFromUTC")}
_MOST_VALUES = 50  # of a key; with them, the alternatives of date and time
# Characters of a value. No VR that is matched has longer ones, whatever the character set (PS3.5 6.2).
_LONGEST_NAME, _LONGEST_VALUE = 5 * 64, 1024
_PRESELECTED = {
    "PatientID": "patient_ids",
    "AccessionNumber": "accession",
    "RequestedProcedureID": "procedure_id",
    "StudyInstanceUID": "study_uid",
}
_PRESELECTED_IN_STEP = {
    "ScheduledStationAETitle": "stations",
    "Modality": "modality",
    "ScheduledProcedureStepID": "step_id",
}
# What the items of sequences hold: a code (PS3.3 8.8), an id with its issuer (10.14, 10.17), the code of a person (10.1).
_WITHIN = {
    tag(k)
    for k in (
        "CodeValue LongCodeValue CodingSchemeDesignator CodeMeaning LocalNamespaceEntityID UniversalEntityID "
        "UniversalEntityIDType PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence TypeOfPatientID "
        "PersonIdentificationCodeSequence"
    ).split()
}
_OTHER = Key("", False, "3", "single value", "")  # an attribute within a sequence
NameMatcher = Callable[[dict[str, str]], bool]  # of a name by its component groups
Condition = Callable[[Element], bool]  # whether the attribute of a row is what a key asks for
_DECIDED = {tag(k) for k in (*_PRESELECTED, *_PRESELECTED_IN_STEP)}


@dataclass(slots=True)
class WorklistQuery:
    """The keys of a C-FIND identifier. `step` holds those of the one scheduled procedure step item."""

    root: Attributes
    step: Attributes
    windows: list[time_keys.Window]
    # Tags of step attributes that were asked for beside the sequence: they are answered in both places.
    lifted: frozenset[str] = frozenset()
    unsupported: bool = False
    _conditions: list[tuple[str, Condition]] = field(default_factory=list)
    _step_conditions: list[tuple[str, Condition]] = field(default_factory=list)

    @classmethod
    def of(cls, identifier: Attributes) -> "WorklistQuery":
        """The query of an identifier. Refused (A900, C001) when it can't be one."""
        root = {name: one for name, one in identifier.items() if not _is_private(name)}
        step_items = items(root, "ScheduledProcedureStepSequence")
        if not root:
            raise dimse.Refused(dimse.IDENTIFIER_DOES_NOT_MATCH, "the identifier has no keys")
        if len(step_items) > 1:
            raise dimse.Refused(dimse.IDENTIFIER_DOES_NOT_MATCH, "Scheduled Procedure Step Sequence takes one item")
        lifted = {name for name in root if name in STEP}
        step = {name: root[name] for name in lifted} | (step_items[0] if step_items else {})
        query = cls(root, step, _windows(step), frozenset(lifted))
        query.unsupported = len(root) != len(identifier)
        query._conditions = query._split(root, ROOT, skip=lifted | {_SPS})
        query._step_conditions = query._split(step, STEP, skip={_START_DATE, _START_TIME})
        return query

    def _split(self, keys: Attributes, known: dict[str, Key], skip: set[str]) -> list[tuple[str, Condition]]:
        """The keys to match. Keys that we can't match are ignored, and the answers say so (FF01, PS3.4 K.4.1.1.4)."""
        found = []
        for name, key in keys.items():
            if name in _NEVER_MATCHED or name in skip:
                continue
            matchable = self._matchable(key)
            if name not in known:
                self.unsupported = True
            elif not _is_universal(matchable):
                if known[name].how == "universal":
                    self.unsupported = True
                else:
                    found.append((name, _condition(name, matchable)))
        return found

    def _matchable(self, key: Element) -> Element:
        """A sequence key without the keys in its item that no item of ours has. Refused with several items (C.2.2.2.6)."""
        if key.get("vr") != "SQ":
            return key
        given = [item for item in key.get("Value", ()) if item]
        if len(given) > 1:
            raise dimse.Refused(dimse.IDENTIFIER_DOES_NOT_MATCH, "a sequence key takes one item")
        kept: Attributes = {}
        for name, one in given[0].items() if given else ():
            inner = self._matchable(one)
            if name in _WITHIN:
                kept[name] = inner
            elif not _is_universal(inner):
                self.unsupported = True
        return {"vr": "SQ", "Value": [kept]}

    @property
    def names_a_date(self) -> bool:
        return any(w.low or w.high for w in self.windows)

    @property
    def is_for_somebody(self) -> bool:
        """Whether it asks for a certain patient or order, not for a list."""
        return any(name in IDENTIFYING for name, _ in (*self._conditions, *self._step_conditions))

    @property
    def is_decided_by_prefilter(self) -> bool:
        """Whether what the prefilter selects is the answer: no key is left to look at."""
        daily = any(w.daily for w in self.windows) or len(self.windows) > 1
        return not daily and all(name in _DECIDED for name, _ in (*self._conditions, *self._step_conditions))

    def shape(self) -> tuple[Any, ...]:
        """What is asked for, without the values: queries of one shape have the same answer for a step."""
        return _shape(self.root)

    def prefilter(self) -> dict[str, Any]:
        """The MongoDB filter on indexed keys: everything that matches is in what it selects."""
        where: dict[str, Any] = {}
        for keys, fields in ((self.root, _PRESELECTED), (self.step, _PRESELECTED_IN_STEP)):
            for keyword, name in fields.items():
                wanted = _wanted(keys.get(tag(keyword), {}))
                if wanted:
                    where[name] = wanted[0] if len(wanted) == 1 else {"$in": wanted}
        if self.names_a_date:
            lows, highs = [w.low for w in self.windows], [w.high for w in self.windows]
            bounds = {"$gte": min(lows), "$lte": max(highs) if all(highs) else ""}
            where["start"] = {operator: value for operator, value in bounds.items() if value}
            if not where["start"]:
                del where["start"]
        names = _wanted(self.root.get(tag("PatientName"), {}))
        if len(names) == 1 and "=" not in names[0]:
            prefixes = [re.split(r"[*?^]", form)[0] for form in folded(names[0])]
            if all(prefixes):
                among = [{"name_keys": {"$elemMatch": {"$gte": p, "$lt": p + "\uffff"}}} for p in prefixes]
                # Rows of earlier versions have none, and are looked at one by one.
                where["$or"] = [*among, {"name_keys": {"$exists": False}}]
        return where

    def matches(self, attributes: Attributes) -> bool:
        """Whether a row's attributes match all keys."""
        item = items(attributes, "ScheduledProcedureStepSequence")[0]
        start = text(item, "ScheduledProcedureStepStartDate") + text(item, "ScheduledProcedureStepStartTime")
        if self.windows and not any(w.contains(start) for w in self.windows):
            return False
        return all(holds(attributes.get(n, {})) for n, holds in self._conditions) and all(
            holds(item.get(n, {})) for n, holds in self._step_conditions
        )

    def answer(self, attributes: Attributes) -> Attributes:
        """What was asked for, and nothing else; asked for but unknown comes with zero length (PS3.4 C.4.1.1.3.2)."""
        item = items(attributes, "ScheduledProcedureStepSequence")[0]
        found = {n: _asked(n, k, item if n in self.lifted else attributes) for n, k in self.root.items() if n != CHARACTER_SET}
        if _SPS in found or self.lifted:
            whole = not any(n not in self.lifted for n in self.step)
            wanted = item if whole else {n: _asked(n, k, item) for n, k in self.step.items() if n != CHARACTER_SET}
            found[_SPS] = {"vr": "SQ", "Value": [wanted]}
        return found


def _asked(name: str, key: Element, held: Attributes) -> Element:
    if name not in held:
        return element(name) if vr_of(name) != "UN" else {"vr": key["vr"]}
    one = held[name]
    inner = [i for i in key.get("Value", ()) if i] if one["vr"] == "SQ" else []
    if not inner:
        return one
    return {"vr": "SQ", "Value": [{n: _asked(n, k, i) for n, k in inner[0].items()} for i in one["Value"]]}


# Matching


def _condition(name: str, key: Element) -> Condition:
    """What a key asks of an attribute, made once for all rows. Refused when a date or time can't be read."""
    vr = vr_of(name)
    if vr == "SQ":
        if key["vr"] != "SQ":
            raise dimse.Refused(dimse.IDENTIFIER_DOES_NOT_MATCH, "a sequence key is no sequence")
        within = [(n, _condition(n, k)) for n, k in key["Value"][0].items() if not _is_universal(k)]
        return lambda held: any(all(holds(item.get(n, {})) for n, holds in within) for item in held.get("Value", ()))
    wanted = _wanted(key)
    if vr == "PN":
        names = [_name(w) for w in wanted]
        return lambda held: any(matches(name) for name in held.get("Value", ()) for matches in names)
    if vr in {"DA", "TM"}:
        spans = [time_keys.dates(w) if vr == "DA" else time_keys.times(w) for w in wanted]
        return lambda held: any(span.contains(s) for s in texts_of(held) for span in spans)
    if (ROOT.get(name) or STEP.get(name, _OTHER)).how == "wild card":
        matchers = [matcher(w) for w in wanted]
        return lambda held: any(matches(s) for s in texts_of(held) for matches in matchers)
    values = frozenset(wanted)
    return lambda held: not values.isdisjoint(texts_of(held))


def _name(wanted: str) -> NameMatcher:
    """A name key. One component group that restricts is looked for in any group of a name, whatever its script is called there.

    Several are each compared with the group of their place (PS3.5 6.2.1.2); those that a name lacks say nothing of it.
    """
    groups = {n: _group(g) for n, g in name_groups(wanted).items() if not _is_any_name(g)}
    if len(groups) == 1:
        (one,) = groups.values()
        return lambda name: any(one(group) for group in name.values())

    def matches(name: dict[str, str]) -> bool:
        compared = [holds(name[n]) for n, holds in groups.items() if name.get(n)]
        return bool(compared) and all(compared)

    return matches


def _group(wanted: str) -> Matcher:
    """A component group, as names are compared. Components that the key doesn't name don't matter."""
    keys = [form.rstrip("^") for form in folded(wanted)]
    alternatives = [(matcher(k), [matcher(c) if c else None for c in k.split("^")]) for k in keys]

    def is_like(form: str) -> bool:
        parts = form.split("^")
        return any(
            whole(form) or all(c is None or c(parts[n] if n < len(parts) else "") for n, c in enumerate(components))
            for whole, components in alternatives
        )

    return lambda group: any(is_like(form.rstrip("^")) for form in folded(group))


def _is_any_name(wanted: str) -> bool:
    """Whether a name, or a component group of one, restricts nothing: `*`, `*^*`, `*=*`."""
    return not wanted.strip("*^= ")


def _wanted(key: Element) -> list[str]:
    """The values to match: any of them. Devices send several where the standard has one; that means "or" here."""
    wanted = [w for w in texts_of(key) if w]
    if len(wanted) > _MOST_VALUES:
        raise dimse.Refused(dimse.IDENTIFIER_DOES_NOT_MATCH, "a key has too many values")
    if any(len(w) > (_LONGEST_NAME if key["vr"] == "PN" else _LONGEST_VALUE) for w in wanted):
        raise dimse.Refused(dimse.IDENTIFIER_DOES_NOT_MATCH, "a key has a value that is too long")
    is_any = _is_any_name if key.get("vr") == "PN" else lambda w: set(w) == {"*"}
    return [] if any(map(is_any, wanted)) else wanted


def _is_universal(key: Element) -> bool:
    """No value, or `*` (PS3.4 C.2.2.2.3); of a sequence, an item without a key that restricts (C.2.2.2.6)."""
    if key["vr"] == "SQ":
        return all(_is_universal(k) for item in key.get("Value", ()) for k in item.values())
    return not _wanted(key)


def _windows(step: Attributes) -> list[time_keys.Window]:
    """The windows of Start Date and Time; several of them are alternatives. None when neither restricts."""
    dates, clocks = (_wanted(step.get(name, {})) or [""] for name in (_START_DATE, _START_TIME))
    if len(dates) * len(clocks) > _MOST_VALUES:
        raise dimse.Refused(dimse.IDENTIFIER_DOES_NOT_MATCH, "a key has too many values")
    return [w for d in dates for c in clocks if (w := time_keys.window(d, c)) is not None]


def _shape(keys: Attributes) -> tuple[Any, ...]:
    return tuple(
        (n, k["vr"], _shape(next((i for i in k.get("Value", ()) if i), {})) if k["vr"] == "SQ" else ()) for n, k in keys.items()
    )


def _is_private(name: str) -> bool:
    return int(name[:4], 16) % 2 == 1
