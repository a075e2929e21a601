"""Whether two descriptions are of one person: what is a contradiction, what isn't, and what is said of it."""

from typing import Any

import pytest

from resources.patient_identity import differences, is_unknown, wholly_other

Resource = dict[str, Any]


def person(name: str = "Muster^Mara", birth: str = "1970-03-09", sex: str = "female", *more: str) -> Resource:
    """Names as `family^given given^use`."""
    names = []
    for text in (name, *more):
        family, given, use = [*text.split("^"), "", ""][:3]
        names.append({k: v for k, v in (("family", family), ("given", given.split()), ("use", use)) if v})
    return {"resourceType": "Patient", "name": names, "birthDate": birth, "gender": sex}


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("Müller^Jörg", "MUELLER^JOERG"),
        ("Müller^Jörg", "Muller^Jorg"),
        ("Mueller^Joerg", "Müller^Jörg"),
        ("Groß^Änne", "GROSS^AENNE"),
        ("Jørgensen^Søren", "Joergensen^Soeren"),
        ("Jørgensen^Søren", "Jorgensen^Soren"),
        ("Łukasz^Michał", "Lukasz^Michal"),
        ("Müller-Lüdenscheidt^Eva", "Mueller Luedenscheidt^Eva"),
        ("O'Neill^Sean", "ONEILL^SEAN"),
        ("von der Heide^Anna", "Heide^Anna"),
        ("Muster^Hans-Peter", "Muster^Hans Peter"),
        ("Muster^Mara Lea", "Muster^Mara"),
        ("Muster^Mara Lea", "Muster^Lea"),
        ("Muster^M.", "Muster^Mara"),
        ("Muster^Mara", "Muster"),
        ("Петров^Иван", "ПЕТРОВ^Иван"),
    ],
)
def test_the_same_name_spelt_otherwise_is_no_contradiction(known, said):
    assert differences(person(known), person(said)) == []
    assert differences(person(said), person(known)) == []


@pytest.mark.parametrize(
    ("known", "said"),
    [("Muster^Mara", "Muster^Maria"), ("Muster^Mara", "Master^Mara"), ("Muster^Mara Lea", "Muster^Mia Lea"), ("Li^Na", "Li^Bo")],
)
def test_another_name_is_a_contradiction_with_both_values(known, said):
    (found,) = differences(person(known), person(said))
    assert found.what == "name"
    assert (found.known, found.said) == (known.replace("^", ", "), said.replace("^", ", "))


def test_a_maiden_name_that_is_on_record_tells_who_it_is_on_either_side():
    assert differences(person("Muster^Mara", "1970-03-09", "female", "Beispiel^Mara^maiden"), person("Beispiel^Mara")) == []
    assert differences(person("Beispiel^Mara"), person("Muster^Mara", "1970-03-09", "female", "Beispiel^Mara^maiden")) == []


@pytest.mark.parametrize(
    ("said", "note"),
    [
        (person("Neu^Mara"), "maiden or married"),
        (person("Mara^Muster"), "swapped"),
        (person("Muster^Mara", "1970-09-03"), "day and month are swapped"),
        (person("Neu^Mara", "1970-09-04"), ""),
    ],
)
def test_what_explains_a_difference_is_named(said, note):
    found = differences(person(), said)
    assert note in found[-1].note if note else not any(d.note for d in found)


@pytest.mark.parametrize("birth", ["", "1970", "1970-03"])
def test_less_is_no_contradiction(birth):
    assert differences(person(), person("Muster^Mara", birth, "unknown")) == []
    assert differences(person(), {"resourceType": "Patient"}) == []
    assert differences({"resourceType": "Patient"}, person()) == []


def test_wholly_other_is_a_name_and_a_birth_date_that_nothing_explains():
    assert wholly_other(differences(person(), person("Anders^Otto", "1955-12-24", "male")))
    assert not wholly_other(differences(person(), person("Anders^Otto")))
    assert not wholly_other(differences(person(), person("Muster^Mara", "1955-12-24")))
    assert not wholly_other(differences(person(), person("Anders^Otto", "1970-09-03")))
    assert not wholly_other(differences(person(), person("Mara^Muster", "1955-12-24")))


def test_nothing_contradicts_somebody_unknown():
    tag = {"system": "urn:fhir-ris:identity", "code": "unknown"}
    unknown = person("Unbekannt^Mann", "1900-01-01", "male") | {"meta": {"tag": [tag]}}
    assert is_unknown(unknown)
    assert differences(unknown, person()) == []
    temporary = person("Unbekannt^Mann") | {"identifier": [{"use": "temp", "value": "T1"}]}
    assert is_unknown(temporary)
    assert not is_unknown(temporary | {"identifier": [{"use": "temp", "value": "T1"}, {"value": "1"}]})
