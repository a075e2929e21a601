"""Names of persons, from XPN to HumanName and back; and as the worklist then shows them."""

from typing import Any

import pytest

from bridges.dicom import values
from bridges.v2.datatypes import XCN, XPN
from bridges.v2.message import Seg, encode, parse
from bridges.v2.person_names import human_name, xpn

_EXTENSION = "http://hl7.org/fhir/StructureDefinition/"


def read(field: str) -> list[dict[str, Any]]:
    message = parse(f"MSH|^~\\&|HIS||||||ADT^A28|1|P|2.5.1||||||UNICODE UTF-8\rPID|||1||{field}\r".encode())
    (pid,) = message.all("PID")
    return [found for f in pid.repetitions(5) if (found := human_name(XPN.from_field(f)))]


def written(humans: list[dict[str, Any]]) -> str:
    return encode([Seg("PID", {5: [xpn(h) for h in humans]})]).decode().strip().removeprefix("PID|||||")


JAPANESE = "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P"


def test_the_scripts_of_a_name_are_told_apart_and_reach_the_scanner() -> None:
    humans = read(JAPANESE)
    assert [h["extension"] for h in humans] == [
        [{"url": f"{_EXTENSION}iso21090-EN-representation", "valueCode": code}] for code in ("ABC", "IDE", "SYL")
    ]
    groups = values.person_name(humans)
    assert groups == {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    assert written(humans) == JAPANESE


@pytest.mark.parametrize(
    ("field", "family", "parts"),
    [
        ("Beethoven&van^Ludwig", "van Beethoven", {"own-prefix": "van"}),
        ("&van&Beethoven^Ludwig", "van Beethoven", {"own-prefix": "van", "own-name": "Beethoven"}),
        ("Beethoven&van&Beethoven^Ludwig", "van Beethoven", {"own-prefix": "van", "own-name": "Beethoven"}),
        ("van Beethoven&van&Beethoven^Ludwig", "van Beethoven", {"own-prefix": "van", "own-name": "Beethoven"}),
        ("Van Beethoven&van^Ludwig", "Van Beethoven", {"own-prefix": "van"}),
        ("Vandamme&van^Ludwig", "van Vandamme", {"own-prefix": "van"}),
        ("Arc&d'^Jeanne", "d'Arc", {"own-prefix": "d'"}),
        (
            "Jansen-van Beethoven&van&Beethoven&de&Jansen^Maria",
            "Jansen-van Beethoven",
            {"own-prefix": "van", "own-name": "Beethoven", "partner-prefix": "de", "partner-name": "Jansen"},
        ),
        ("&&&de&Jansen^Maria", "de Jansen", {"partner-prefix": "de", "partner-name": "Jansen"}),
        ("Roe^Jane", "Roe", {}),
    ],
)
def test_the_parts_of_a_family_name_are_kept_and_the_name_is_whole(field: str, family: str, parts: dict[str, str]) -> None:
    (human,) = read(field)
    assert human["family"] == family
    said = {
        e["url"].removeprefix(f"{_EXTENSION}humanname-"): e["valueString"] for e in human.get("_family", {}).get("extension", ())
    }
    assert said == parts
    assert read(written([human])) == [human | {"use": "official"}]


def test_a_prefix_alone_is_no_name() -> None:
    assert read("&van") == []


def test_the_family_name_of_a_physician_is_whole() -> None:
    message = parse(b"MSH|^~\\&|HIS\rORC|NW|||||||||||12^Vries&de^Rita\r")
    (orc,) = message.all("ORC")
    assert XCN.from_field(orc.repetitions(12)[0]).family == "de Vries"
