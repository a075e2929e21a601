"""SMART scopes: what they mean, what is granted of them, and the access they give."""

import pytest

from fhir_server.outcome import FhirError
from smart_auth.access import Access
from smart_auth.granting import PEOPLE, covers, grant, subset
from smart_auth.scopes import parse_scope, parse_scopes


def granted(requested: str, registered: str) -> str:
    return " ".join(grant(requested, registered))


def access(scope: str) -> Access:
    return Access("app", parse_scopes(scope), "token-id")


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        ("system/Patient.cruds", "cruds"),
        ("system/*.rs", "rs"),
        ("user/Observation.s", "s"),
        ("patient/*.read", "rs"),
        ("system/Patient.write", "cud"),
        ("system/*.*", "cruds"),
    ],
)
def test_scopes_of_both_versions_are_read(text: str, actions: str) -> None:
    scope = parse_scope(text)
    assert scope is not None
    assert scope.text == text
    assert f"{scope.level}/{scope.resource_type}" == text.rpartition(".")[0]
    assert scope.actions == set(actions)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "openid",
        "launch/patient",
        "system/Observaton.rs",
        "system/DomainResource.rs",
        "system/Patient.",
        "system/Patient.dus",
        "system/Patient.rr",
        "system/Patient.read-only",
        "system/Patient.rsXYZ",
        "system/Patient.rs,system/Patient.c",
        "System/Patient.rs",
        "system/patient.rs",
        "system/Patient.rs?",
        "system/Patient.rs?active",
        "system/Observation.rs?code:in=http://example.org/vs",
        "system/Observation.rs?subject.name=x",
        "system/Observation.rs?_include=Observation:subject",
        "system/Observation.rs?category=a&category=b",
        "system/Patient.rs\n",
    ],
)
def test_what_is_only_partly_a_scope_is_none(text: str) -> None:
    assert parse_scope(text) is None


def test_a_plain_query_is_read() -> None:
    scope = parse_scope("system/Observation.rs?category=laboratory&status=final")
    assert scope is not None
    assert scope.query == "category=laboratory&status=final"


@pytest.mark.parametrize(
    ("requested", "registered", "expected"),
    [
        ("system/*.cruds", "system/*.cruds", "system/*.cruds"),
        ("system/*.*", "system/*.cruds", "system/*.*"),
        ("system/Patient.read", "system/*.cruds", "system/Patient.read"),
        ("system/Patient.rs system/Patient.rs", "system/*.rs", "system/Patient.rs"),
        ("system/Patient.cruds", "system/*.rs system/Patient.cud", "system/Patient.cruds"),
    ],
)
def test_what_is_wholly_covered_comes_back_as_it_was_written(requested: str, registered: str, expected: str) -> None:
    assert granted(requested, registered) == expected


@pytest.mark.parametrize(
    ("requested", "registered", "expected"),
    [
        ("system/Patient.cruds", "system/Patient.rs", "system/Patient.rs"),
        ("system/Patient.*", "system/Patient.rs", "system/Patient.read"),
        ("system/Patient.write", "system/Patient.c", "system/Patient.c"),
        ("system/*.rs", "system/Patient.cruds system/Task.r", "system/Patient.rs system/Task.r"),
        ("system/*.cruds", "system/*.rs system/Task.u", "system/*.rs system/Task.rus"),
        ("system/*.rs", "system/*.rs system/Task.r", "system/*.rs"),
        ("system/Patient.rs system/Task.rs", "system/Patient.rs", "system/Patient.rs"),
        ("system/Patient.rs?active=true", "system/Patient.r", "system/Patient.r?active=true"),
        ("system/Patient.rs", "system/Patient.rs?active=true", "system/Patient.rs?active=true"),
        ("system/*.rs", "system/Patient.rs?active=true system/Task.r", "system/Task.r system/Patient.rs?active=true"),
    ],
)
def test_what_is_partly_covered_is_narrowed_to_the_registration(requested: str, registered: str, expected: str) -> None:
    assert granted(requested, registered) == expected


@pytest.mark.parametrize(
    "requested",
    [
        "",
        "system/Task.rs",
        "system/Patient.c",
        "user/Patient.rs",
        "patient/Patient.rs",
        "system/Patient.rs?no-parameter=true",
        "system/Patient.rs?active:not=true",
        "launch/patient",
        "openid",
    ],
)
def test_nothing_is_granted_beyond_the_registration(requested: str) -> None:
    assert granted(requested, "system/Patient.rs") == ""


def test_an_action_stays_with_its_type() -> None:
    given = access("system/Observation.r system/Condition.s")
    assert given.allows("Observation", "r")
    assert given.allows("Condition", "s")
    assert not given.allows("Observation", "s")
    assert not given.allows("Condition", "r")


def test_what_is_not_in_scope_is_forbidden_and_says_what_it_takes() -> None:
    given = access("system/Patient.rs")
    given.require("Patient", "s")
    with pytest.raises(FhirError, match="no scope to create Patient") as refused:
        given.require("Patient", "c")
    assert (refused.value.status, refused.value.code) == (403, "forbidden")
    assert 'error="insufficient_scope", scope="system/Patient.c"' in refused.value.headers["WWW-Authenticate"]


def test_the_filter_restricts_nothing_in_scope_and_refuses_the_rest() -> None:
    given = access("system/Patient.rs")
    assert given.filter("Patient", "r") is None
    with pytest.raises(FhirError):
        given.filter("Task", "r")


@pytest.mark.parametrize("scope", ["patient/*.cruds", "user/*.cruds", "system/Patient.rs?nonsense=true", ""])
def test_scopes_whose_restriction_is_not_known_give_no_access(scope: str) -> None:
    given = access(scope)
    assert not given.allows("Patient", "r")
    with pytest.raises(FhirError):
        given.filter("Patient", "r")


def test_a_scope_with_a_query_is_a_filter() -> None:
    given = access("system/Patient.rs?active=true")
    assert given.restricted
    assert given.filter("Patient", "r") == {"search.t": "active=true"}
    assert given.covers({"resourceType": "Patient", "id": "1", "active": True}, "r")
    assert not given.covers({"resourceType": "Patient", "id": "1"}, "r")


def test_the_products_own_acts_are_not_limited_and_are_named() -> None:
    given = Access.system("v2 bridge")
    assert given.client_id == "v2 bridge"
    assert given.internal
    assert given.filter("Patient", "d") is None


APP = "launch launch/patient launch/imagingstudy openid fhirUser offline_access patient/*.rs user/Task.cruds"


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ("openid fhirUser launch/patient patient/*.rs", "openid fhirUser launch/patient patient/*.rs"),
        ("patient/Observation.rs?category=laboratory&status=final", "patient/Observation.rs?category=laboratory&status=final"),
        ("patient/*.cruds", "patient/*.rs"),
        ("patient/Patient.read user/Task.*", "patient/Patient.read user/Task.*"),
        ("launch/imagingstudy?role=https://example.org/prior", "launch/imagingstudy?role=https://example.org/prior"),
        ("online_access profile launch/encounter system/*.rs user/Patient.rs", ""),
        ("patient/Observation.rs?category:in=x", ""),
        ("patient/Observation.rs?subject.name=x", ""),
        ("patient/Observation.rs?_include=Observation:subject", ""),
        ("patient/Observation.dus patient/Observation.rr patient/Observaton.rs", ""),
        ("patient/*.rs?status=final", ""),
    ],
)
def test_an_app_gets_what_it_is_registered_with_in_the_form_it_asked(requested: str, expected: str) -> None:
    assert " ".join(grant(requested, APP, PEOPLE)) == expected


def test_what_is_granted_stays_the_same_when_it_is_asked_for_again() -> None:
    once = " ".join(grant("patient/*.cruds openid patient/Observation.rs?category=laboratory", APP, PEOPLE))
    assert " ".join(grant(once, APP, PEOPLE)) == once


@pytest.mark.parametrize(
    ("requested", "within"),
    [
        ("patient/Observation.r", True),
        ("patient/Observation.rs?category=laboratory", True),
        ("openid", True),
        ("patient/Observation.ru", False),
        ("user/Patient.rs", False),
        ("offline_access", False),
        ("patient/Observation.rx", False),
        ("", False),
    ],
)
def test_a_refresh_may_ask_for_part_of_a_scope_and_for_no_more(requested: str, within: bool) -> None:
    assert subset(requested, "openid patient/*.rs") == (requested if within else None)


def test_a_consent_to_part_is_none_to_the_whole() -> None:
    assert covers(["patient/*.rs", "openid"], ["patient/Observation.r"])
    assert not covers(["patient/Observation.rs?category=laboratory"], ["patient/Observation.rs"])
