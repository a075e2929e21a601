"""HL7's own R4 examples are valid, but for those listed here, each of which breaks a rule of R4's."""

from collections import Counter
from itertools import islice

import pytest

from fhir_server.elements import same
from fhir_server.validation import validate
from tests.fhir_app import entry, load, put, serving
from tests.r4_examples import examples_archive, official_examples, why_not

REFUSED = {
    "the narrative says nothing (txt-2)": """
        ActivityDefinition-blood-tubes-supply ActivityDefinition-heart-valve-replacement EventDefinition-example
        Questionnaire-zika-virus-exposure-assessment
    """,
    "a reference to a type that the element does not allow": """
        DeviceMetric-example DeviceUseStatement-example MedicationRequest-medrx0301 Observation-clinical-gender
    """,
    "no ImplementationGuide.name and status, and a reference to an id that is too long": "ImplementationGuide-fhir ig-r4",
    "no Questionnaire.item.linkId": "Questionnaire-qs1",
    "no SearchParameter.base": """
        SearchParameter-codesystem-extensions-CodeSystem-author SearchParameter-codesystem-extensions-CodeSystem-effective
        SearchParameter-codesystem-extensions-CodeSystem-end SearchParameter-codesystem-extensions-CodeSystem-keyword
        SearchParameter-codesystem-extensions-CodeSystem-workflow SearchParameter-valueset-extensions-ValueSet-author
        SearchParameter-valueset-extensions-ValueSet-effective SearchParameter-valueset-extensions-ValueSet-end
        SearchParameter-valueset-extensions-ValueSet-keyword SearchParameter-valueset-extensions-ValueSet-workflow
    """,
    "an id of more than 64 characters": "SearchParameter-questionnaireresponse-extensions-QuestionnaireResponse-item-subject",
    "logical models without a base (sdf-4)": """
        StructureDefinition-Definition StructureDefinition-Event StructureDefinition-FiveWs StructureDefinition-Request
    """,
}


def test_the_official_examples_are_valid_but_for_the_listed_ones():
    if examples_archive() is None:
        pytest.skip(why_not())
    refused, kinds, count = set(), Counter(), 0
    for name, resource in official_examples():
        count += 1
        issues = validate(resource)
        kinds.update(issue.severity for issue in issues)
        if any(issue.severity == "error" for issue in issues):
            refused.add(name)
    assert count > 5000
    assert refused == {name for names in REFUSED.values() for name in names.split()}
    assert kinds["information"] == 0, "every invariant could be evaluated on every example"


def test_the_official_examples_go_in_by_put_and_come_out_as_they_were(mongodb_uri):
    """All but the listed ones; equal to the last digit, but for versionId and lastUpdated, which the server sets."""
    if examples_archive() is None:
        pytest.skip(why_not())
    left_out = {name for names in REFUSED.values() for name in names.split()}
    examples = {(r["resourceType"], r["id"]): r for name, r in official_examples() if name not in left_out}
    assert len(examples) > 5000
    # A Bundle's own links would be taken for links among the entries of a transaction.
    bundles = {key: r for key, r in examples.items() if key[0] == "Bundle"}
    others = {key: r for key, r in examples.items() if key[0] != "Bundle"}
    with serving(mongodb_uri, strict=False, core=False, rules=lambda _: None) as app:
        for kind, group in (("batch", bundles), ("transaction", others)):
            pending = iter(group.items())
            while some := dict(islice(pending, 200)):
                answer = app.bundle(kind, *[put(resource) for resource in some.values()])
                assert answer.status_code == 200, answer.text[:2000]
                assert {e["response"]["status"][:3] for e in answer.json()["entry"]} == {"201"}
                answer = app.bundle("transaction", *[entry("GET", f"{type_}/{id_}") for type_, id_ in some])
                for found, (key, resource) in zip(load(answer)["entry"], some.items(), strict=True):
                    assert same(as_sent(found["resource"]), as_sent(resource)), key


def as_sent(resource):
    """A resource without what the server sets."""
    meta = {k: v for k, v in resource.get("meta", {}).items() if k not in {"versionId", "lastUpdated"}}
    return {k: v for k, v in resource.items() if k != "meta"} | ({"meta": meta} if meta else {})
