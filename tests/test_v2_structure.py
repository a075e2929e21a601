"""The structure of messages by HL7's definitions: what a grammar can make is right, and what it can't make is placed."""

import random
import re

import pytest

from bridges.v2 import definitions
from bridges.v2.message import parse
from bridges.v2.structure import _grammar, _order

STRUCTURES = sorted(definitions.structures())


class Derivation:
    """Segments that a grammar allows, chosen at random: read by another way than the product reads it."""

    def __init__(self, text: str, seed: int) -> None:
        self._marks = re.findall(r"\w{3}|[\[\]{}()]", text)
        self._at = 0
        self._random = random.Random(seed)

    def names(self, close: str = "", *, wanted: bool = True) -> list[str]:
        made: list[str] = []
        while self._at < len(self._marks):
            mark = self._marks[self._at]
            self._at += 1
            if mark == close:
                break
            if mark == "[":
                made += self.names("]", wanted=wanted and self._random.random() < 0.5)
            elif mark == "{":
                start = self._at
                for _ in range(self._random.randint(1, 3)):
                    self._at = start
                    made += self.names("}", wanted=wanted)
            elif mark == "(":
                end = self._marks.index(")", self._at)
                made += [self._random.choice(self._marks[self._at : end])] if wanted else []
                self._at = end + 1
            elif wanted:
                made.append(mark)
        return made


def judged(structure: str, names: list[str]) -> list[str]:
    """The places of what is wrong with the order of these segments."""
    lines = [f"{name}|1" for name in names if name != "MSH"]
    message = parse("\r".join(["MSH|^~\\&|A|B|C|D|2026||X^Y|1|P|2.5.1", *lines]).encode())
    grammar = _grammar(structure)
    assert grammar is not None
    return [f"{e.segment}({e.sequence})" for e in _order(message, grammar)]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_what_a_grammar_makes_is_right_and_a_strange_segment_anywhere_in_it_is_found(structure):
    text = definitions.structures()[structure]
    for seed in range(150):
        names = [n for n in Derivation(text, seed).names() if n not in {"DSC", "ADD"}]
        assert judged(structure, names) == [], names
        at = random.Random(seed).randint(1, len(names))
        assert judged(structure, [*names[:at], "ZZZ", *names[at:]]) == []
        faults = judged(structure, [*names[:at], "XXX", *names[at:]])
        assert len(faults) == 1
        # Either it is itself that can't stand there, or what must come before anything else can.
        assert faults[0] == "XXX(1)" or faults[0][:3] in text


@pytest.mark.parametrize(
    ("structure", "segments", "place"),
    [
        ("ADT_A39", "MSH EVN PID MRG PID MRG PV1", None),
        ("ADT_A39", "MSH EVN PID PV1", "MRG(1)"),
        ("ORU_R01", "MSH PID OBR OBX NTE OBX OBR OBX", None),
        ("ORU_R01", "MSH OBR OBX PID OBR OBX", None),
        ("ORU_R01", "MSH PID OBX", "OBR(1)"),
        ("OMI_O23", "MSH PID ORC OBR IPC IPC ORC OBR IPC", None),
        ("OMI_O23", "MSH IPC PID ORC OBR", "ORC(1)"),
        ("ORM_O01", "MSH PID PV1 IN1 IN2 AL1 AL1 ORC OBR NTE DG1 OBX ORC RXO", None),
        ("SIU_S12", "MSH SCH PID RGS AIS AIG AIL AIP RGS AIS", None),
        ("SIU_S12", "MSH PID", "SCH(1)"),
        ("DFT_P03", "MSH EVN PID PV1 FT1 PR1 FT1", None),
        ("DFT_P03", "MSH EVN PID PV1", "FT1(1)"),
    ],
)
def test_the_place_of_what_is_wrong_is_told(structure, segments, place):
    assert judged(structure, segments.split()) == ([place] if place else [])
