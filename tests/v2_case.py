"""Case files of the HL7 v2 bridge: messages in, resources and messages out, as an interface analyst reads them.

A case is a text file under `tests/v2_cases/<area>/`. It begins with a line `# title`, then sections, played in their order:

    --- partner NAME          an Endpoint that may send: lines `header: value` (bridges/v2/partner.py)
    --- endpoint NAME         an Endpoint that gets messages: lines `header: value`, and `wants: ORU^R01, SIU^S12`
    --- message               a message, a segment a line; it is received
    --- message lf            the same, its segments ended by LF
    --- bytes latin-1         the same in another character set; `\\xHH` in a line is that byte
    --- answer                what its answer says: lines `MSA-1 = AA`, `ERR-3.1 = 204`
    --- Patient?identifier=P{n}            exactly one is found, with these elements: lines `name[0].family = Muster`
    --- Patient?identifier=P{n} as mother  the same; `{mother}` is its reference afterwards
    --- no Encounter?identifier=V{n}       none is found
    --- 2 Task?focus={order}               this many are found (no lines)
    --- create / --- update   JSON of a resource; written over FHIR. `as name` too. `update` changes the elements given
    --- sent NAME ORU^R01     the newest message for that endpoint: lines `OBX[2]-5 = ...`. HL7's definitions hold for it, too
    --- sent NAME ORU^R01 #1  the first one
    --- 2 sent NAME ORU^R01   how many there are
    --- not sent NAME ORU^R01

What the department does, with names given by `as`; lines are elements (JSON) beyond the usual ones:

    --- scanner CT as ct      --- book order on ct as booking       --- become booking arrived
    --- begin order           --- finish order                      --- stop order
    --- report order final as report                                --- become report corrected

`{n}` is a number that no other case uses. Elements: `identifier[code=PLAC].value` takes the first item that holds that code
anywhere, `[0]` by index; `= *` any value, `absent` in place of a value for none, `~ text` contains;
`presentedForm[0].data:text` is what base64 holds, its line ends as `\\n`. Fields: `PID-5` as it is written, `PID-5.1` a
component, `PID-3(2).1` a repetition, `OBX[2]-5` the second OBX; `OBX count = 4` how many.
Lines that begin with `#` say something to people.
"""

import base64
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from bridges.v2 import version_structure
from bridges.v2.message import Message, parse
from tests.department import ACCESS, Department, unused

FOLDER = Path(__file__).parent / "v2_cases"
FILES = sorted(FOLDER.rglob("*.txt"))
_ITEM = re.compile(r"(\w+)((?:\[[^\]]*\])*)")
_PLACE = re.compile(r"(\w{3})(?:\[(\d+)\])?-(\d+)(?:\((\d+)\))?(?:\.(\d+))?(?:\.(\d+))?")


@dataclass(slots=True)
class Case:
    """One case being played in a department."""

    ris: Department
    names: dict[str, str] = field(default_factory=lambda: {"n": unused("")})
    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    answer: Message | None = None
    performed: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def play(self, text: str) -> None:
        """Play all sections; AssertionError with the section and line that doesn't hold."""
        try:
            for head, lines in _sections(text):
                try:
                    await self._section(self._filled(head), [self._filled(line) for line in lines])
                except AssertionError as error:
                    raise AssertionError(f"--- {head}\n{error}") from None
        finally:
            for endpoint in self.endpoints.values():
                await self.ris.update(endpoint, status="off")

    def _filled(self, text: str) -> str:
        return re.sub(r"\{([\w.]+)\}", lambda m: self.names.get(m[1], m[0]), text)

    async def _section(self, head: str, lines: list[str]) -> None:
        words = head.split()
        match words:
            case ["partner" | "endpoint" as kind, name]:
                await self._endpoint(name, lines, sends=kind == "partner")
            case ["message", *ends]:
                await self._receive(lines, "utf-8", b"\n" if ends == ["lf"] else b"\r")
            case ["bytes", charset]:
                await self._receive(lines, charset)
            case ["answer"]:
                self._check_answer(lines)
            case ["create" | "update" as verb, *rest]:
                written = json.loads("\n".join(lines))
                stored = await (self.ris.create(written) if verb == "create" else self._update(written))
                self._name(rest, stored)
            case ["sent", name, kind, *which]:
                await self._check_sent(name, kind, int(which[0][1:]) - 1 if which else -1, lines)
            case [count, "sent", name, kind] if count.isdigit():
                assert len(await self._sent(name, kind)) == int(count), f"{len(await self._sent(name, kind))} were sent"
            case ["not", "sent", name, kind]:
                assert not await self._sent(name, kind), "it was sent"
            case ["scanner" | "book" | "become" | "begin" | "finish" | "stop" | "report", *_]:
                await self._act(words, json.loads("\n".join(lines) or "{}"))
            case ["no", query]:
                found = await self._search(query)
                assert not found, f"found {found}"
            case [count, query] if count.isdigit():
                found = await self._search(query)
                assert len(found) == int(count), f"{len(found)} are found: {found}"
            case [query, *rest]:
                found = await self._search(query)
                assert len(found) == 1, f"{len(found)} are found: {found}; answer: {self.answer.raw if self.answer else None!r}"
                self._name(rest, found[0])
                for line in lines:
                    _check_element(found[0], line)

    async def _act(self, words: list[str], more: dict[str, Any]) -> None:
        """What people and scanners of the department do."""
        match words:
            case ["scanner", modality, *rest]:
                self._name(rest, await self.ris.scanner(modality, **more))
            case ["book", order, "on", station, *rest]:
                device = await self.ris.read(self.names[station])
                self._name(rest, await self.ris.book(await self.ris.read(self.names[order]), device, **more))
            case ["become", name, status]:
                await self.ris.become(await self.ris.read(self.names[name]), status, **more)
            case ["begin", order]:
                self.performed[order] = await self.ris.perform(await self.ris.read(self.names[order]), "in-progress")
            case ["finish" | "stop" as verb, order]:
                await self.ris.become(self.performed[order], "completed" if verb == "finish" else "stopped")
            case ["report", order, status, *rest]:
                self._name(rest, await self.ris.report(await self.ris.read(self.names[order]), status, **more))

    def _check_answer(self, lines: list[str]) -> None:
        """HL7's definitions hold for a positive order response; of a refused one what is echoed may be what is missing."""
        assert self.answer is not None
        if self.answer.type[0] in {"ORG", "ORI"} and self.answer.segments[1].field(1) == "AA":
            valid(self.answer)
        _check_message(self.answer, lines)

    async def _check_sent(self, name: str, kind: str, which: int, lines: list[str]) -> None:
        sent = await self._sent(name, kind)
        assert sent, f"nothing was sent; in the outbox: {await self.ris.db['outbox'].distinct('type')}"
        message = parse(bytes(sent[which]["message"]))
        if sent[which]["state"] != "invalid":
            valid(message)
        _check_message(message, lines)

    def _name(self, rest: list[str], resource: dict[str, Any]) -> None:
        if rest:
            self.names[rest[1]] = f"{resource['resourceType']}/{resource['id']}"
            self.names[f"{rest[1]}.id"] = resource["id"]

    async def _endpoint(self, name: str, lines: list[str], *, sends: bool) -> None:
        said = [line.partition(":")[::2] for line in lines]
        wants = [w.strip() for key, value in said if key == "wants" for w in value.split(",")] or ["none"]
        self.endpoints[name] = await self.ris.create(
            {
                "resourceType": "Endpoint",
                "status": "active",
                "name": name,
                "connectionType": {
                    "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp",
                },
                "payloadType": [{"coding": [{"system": "urn:fhir-ris:v2-message", "code": w}]} for w in wants],
                "address": "mllp://127.0.0.1:9",
                "header": [f"{key}: {value.strip()}" for key, value in said if key != "wants"]
                + ([f"accept-application: {name}"] if sends and "accept-application" not in dict(said) else []),
            }
        )  # fmt: skip

    async def _receive(self, lines: list[str], charset: str, end: bytes = b"\r") -> None:
        data = b"".join(_bytes(line, charset) + end for line in lines)
        self.answer = parse(await self.ris.answer(data.replace(b"{id}", unused("M").encode())))

    async def _update(self, said: dict[str, Any]) -> dict[str, Any]:
        known = await self.ris.read(f"{said['resourceType']}/{said['id']}")
        return await self.ris.update(known | said)

    async def _sent(self, name: str, kind: str) -> list[dict[str, Any]]:
        where = {"destination": f"Endpoint/{self.endpoints[name]['id']}", "type": kind}
        return await self.ris.db["outbox"].find(where, sort=[("key", 1)]).to_list()

    async def _search(self, query: str) -> list[dict[str, Any]]:
        kind, _, criteria = query.partition("?")
        parameters = [p.partition("=")[::2] for p in criteria.split("&") if p]
        found = await self.ris.interactions.search(ACCESS, kind, [(k, v) for k, v in parameters])
        return list(found.matches)


def valid(message: Message) -> None:
    """HL7's definitions hold for a message: by hl7apy's tables, and where it takes such messages at all, by its strict parser.

    It refuses every ORM^O01, the null value in a time, and texts of 200 characters (the standard has 65,536): nulls and long ones
    are cut before it looks. Structures
    that several events share it finds in MSH-9 only, which below 2.4 doesn't say them.
    """
    assert version_structure.problems(message) == []
    if message.type[0] != "ORM":
        kind, event, _ = message.type
        structure = version_structure.structure(message)
        text = _without_data(message).replace(f"|{kind}^{event}|", f"|{kind}^{event}^{structure}|", 1)
        text = text.replace('|""', "|")
        text = re.sub(r"(?<=\|)[^|\r]{200,}(?=\|)", lambda m: m[0][:20], text)
        parse_message(text, validation_level=VALIDATION_LEVEL.STRICT, find_groups=True).validate()


def _without_data(message: Message) -> str:
    """The message with its long base64 data cut."""
    return re.sub(r"Base64\^[A-Za-z0-9+/=]+", "Base64^AAAA", message.raw.decode(message.codec))


def case_messages(text: str) -> list[list[bytes]]:
    """The messages of a case, as lines, with their `{n}` and `{id}`."""
    found = []
    for head, lines in _sections(text):
        words = head.split()
        if words[0] in {"message", "bytes"}:
            found.append([_bytes(line, words[1] if words[0] == "bytes" else "utf-8") for line in lines])
    return found


def _sections(text: str) -> list[tuple[str, list[str]]]:
    sections: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("--- "):
            sections.append((line[4:].strip(), []))
        elif sections and line.strip() and not line.startswith("#"):
            sections[-1][1].append(line)
    return sections


def _bytes(line: str, charset: str) -> bytes:
    data = line.encode(charset)
    return re.sub(rb"\\x([0-9A-F]{2})", lambda m: bytes.fromhex(m[1].decode()), data) if charset != "utf-8" else data


def _check_element(resource: dict[str, Any], line: str) -> None:
    path, sign, wanted = _line(line)
    found = _value(resource, path.removesuffix(":text"))
    if path.endswith(":text") and found is not None:
        found = base64.b64decode(found).decode().replace("\n", "\\n")
    if sign == "absent":
        assert found is None, f"{path} is {found!r}"
    elif sign == "~":
        assert wanted in str(found), f"{path} is {found!r}"
    elif wanted == "*":
        assert found is not None, f"{path} is absent"
    else:
        said = {True: "true", False: "false"}.get(found, str(found)) if isinstance(found, bool) else str(found)
        assert said == wanted, f"{path} is {found!r}, not {wanted!r}"


def _line(line: str) -> tuple[str, str, str]:
    if line.rstrip().endswith(" absent"):
        return line.rstrip().removesuffix(" absent").strip(), "absent", ""
    found = re.match(r"(\S+) ([=~]) ?(.*)$", line.strip())
    assert found, f"not a check: {line!r}"
    return found[1], found[2], found[3]


def _value(value: Any, path: str) -> Any:
    for part in re.findall(r"\w+(?:\[[^\]]*\])*", path):
        name = _ITEM.fullmatch(part)
        assert name, part
        value = value.get(name[1]) if isinstance(value, dict) else None
        for choice in re.findall(r"\[([^\]]*)\]", name[2]):
            items = value or []
            if choice.isdigit():
                value = items[int(choice)] if int(choice) < len(items) else None
            else:
                key, _, wanted = choice.partition("=")
                value = next((item for item in items if _holds(item, key, wanted)), None)
    return value


def _holds(value: Any, key: str, wanted: str) -> bool:
    if isinstance(value, list):
        return any(_holds(item, key, wanted) for item in value)
    if not isinstance(value, dict):
        return False
    return str(value.get(key)) == wanted or any(_holds(item, key, wanted) for item in value.values())


def _check_message(message: Message, lines: list[str]) -> None:
    for line in lines:
        if counted := re.match(r"(\w{3}) count = (\d+)$", line.strip()):
            number = len(message.all(counted[1]))
            assert number == int(counted[2]), f"{number} {counted[1]} in {message.raw!r}"
            continue
        path, sign, wanted = _line(line)
        found = _part(message, path)
        if sign == "absent":
            assert found == "", f"{path} is {found!r}"
        elif sign == "~":
            assert wanted in found, f"{path} is {found!r}"
        else:
            ok = bool(found) if wanted == "*" else found == wanted
            assert ok, f"{path} is {found!r}, not {wanted!r}, in {message.raw!r}"


def _part(message: Message, path: str) -> str:
    place = _PLACE.fullmatch(path)
    assert place, f"not a field: {path}"
    name, number, of, repetition, component, subcomponent = place.groups()
    segments = message.all(name)
    index = int(number or 1) - 1
    if index >= len(segments):
        return ""
    segment = segments[index]
    if component:
        return segment.get(int(of), int(component), int(subcomponent or 1), repetition=int(repetition or 1) - 1)
    if repetition:
        found = segment.repetitions(int(of))
        return found[int(repetition) - 1].raw if int(repetition) <= len(found) else ""
    return segment.raw(int(of))
