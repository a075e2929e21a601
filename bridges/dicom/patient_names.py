"""Whether a data set's Patient Name is that of a patient of ours, as far as scanners and their keyboards can write it."""

from bridges.dicom import values
from bridges.dicom.character_sets import ASCII, transliterated
from bridges.dicom.dicom_json import name_text
from fhir_server.registry import Resource
from fhir_server.search.keys import fold
from resources import patient_identity

_SHORT = 8  # the least that a scanner cuts names to (`urn:fhir-ris:name-length`)


def difference(said: str, known: Resource) -> str:
    """`name`, or `name (family and given name are swapped)`; empty when it is the patient's, or tells nothing.

    said: a PN in its DICOM form. Family and given name count, without case, accents and particles; an initial stands for a name.
    """
    groups = [g for g in said.split("=") if g.strip("^ ")]
    names = [n for n in known.get("name", ()) if n.get("family") or n.get("given")]
    if not groups or not names or patient_identity.is_unknown(known):
        return ""
    if any(_is_as_we_send_it(g, names) or _is_of_nobody(g, known) for g in groups):
        return ""
    notes: list[str] = []
    for group in groups:
        found = [_difference(one, known) for one in _readings(group)]
        if None in found:
            return ""
        notes += [d.note for d in found if d is not None and "swapped" in d.note]
    return f"name ({notes[0]})" if notes else "name"


def _difference(name: Resource, known: Resource) -> patient_identity.Difference | None:
    return next((d for d in patient_identity.differences(known, {"name": [name]}) if d.what == "name"), None)


def _readings(group: str) -> list[Resource]:
    """The names that a component group may mean. Typed without `^`, its last or first word may be the given name."""
    family, given = [*(c.strip() for c in group.split("^")), ""][:2]
    whole = {"family": family, "given": [given] if given else []}
    words = family.replace(",", " ").split()
    if "^" in group.rstrip("^") or len(words) < 2:
        return [_filled(whole)]
    return [_filled(whole), *({"family": " ".join(words[:n]), "given": [" ".join(words[n:])]} for n in range(1, len(words)))]


def _filled(name: Resource) -> Resource:
    return {k: v for k, v in name.items() if v}


def _is_of_nobody(group: str, known: Resource) -> bool:
    """Whether it is what the worklist said before the patient had a name, cut or not."""
    ids = [known.get("id", ""), *(i.get("value", "") for i in known.get("identifier", ()))]
    return any(name_text(values.unknown_name(i))[: max(len(group), _SHORT)].rstrip("^ ") == group.rstrip("^ ") for i in ids)


def _is_as_we_send_it(group: str, names: list[Resource]) -> bool:
    """Whether it is what the worklist says: the whole of it or cut, in its own letters or in those that the scanner has."""
    wanted = fold(group.rstrip("^ "))
    for name in names:
        for sent in name_text(values.person_name([name | {"use": "usual"}])).split("="):
            for form in {fold(sent), fold(transliterated(sent, ASCII))} - {""}:
                if form == wanted or (len(wanted) >= _SHORT and form.startswith(wanted)):
                    return True
    return False
