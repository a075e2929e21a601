"""Files of resources, as chunks of lines: NDJSON line by line, a Bundle entry by entry. Both may be compressed by gzip."""

import gzip
import hashlib
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from fhir_server import fhir_json
from fhir_server.bundle_links import Links
from fhir_server.outcome import FhirError, fail, operation_outcome
from fhir_server.references import Target
from fhir_server.start_error import StartError

CHUNK_LINES = 500
CHUNK_BYTES = 2 * 1024 * 1024
MAX_LINE = 20 * 1024 * 1024
MAX_BUNDLE = 512 * 1024 * 1024
_NAMESPACE = uuid.UUID("3d1f4f6e-8f0a-5a39-9f0e-6d2f3b0c7a51")
_PIECE = 1024 * 1024
# What others refer to comes before what refers to it.
_FIRST = """
    CodeSystem ValueSet StructureDefinition ActivityDefinition PlanDefinition Questionnaire Organization Endpoint Location
    HealthcareService Practitioner PractitionerRole Medication Substance Device Patient RelatedPerson Person Group Coverage
    Schedule Slot EpisodeOfCare Encounter CareTeam Condition CarePlan ServiceRequest Task Appointment Specimen ImagingStudy
    Procedure Observation
""".split()


@dataclass(frozen=True, slots=True)
class Line:
    """One resource as it stands in its file. `outcome`: why it is refused unseen; its content is not kept then."""

    number: int
    offset: int
    length: int
    content: bytes
    outcome: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line is in its file."""

    number: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines that stand one after the other, from offset `start` to before `end`. `read`: bytes of the file up to there."""

    file: str
    start: int
    end: int
    next_number: int
    lines: list[Line]
    read: int


# Offset of the first line of what is done -> offset and number of the first line after it.
Done = Mapping[int, tuple[int, int]]


class Ndjson:
    """One resource a line. Offsets are bytes of the content, as it is without compression."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def first_type(self) -> str:
        with _opened(self.path) as (stream, _):
            return _type_of(stream.readline(MAX_LINE))

    def chunks(self, done: Done) -> Iterator[Chunk]:
        """What is not done yet, in the order of the file."""
        with _opened(self.path) as (stream, position):
            start, number = 0, 1
            while True:
                while start in done:
                    start, number = done[start]
                    stream.seek(start)
                stop = min((begin for begin in done if begin > start), default=None)
                lines: list[Line] = []
                end, size = start, 0
                while len(lines) < CHUNK_LINES and size < CHUNK_BYTES and end != stop:
                    line, end = _line(stream, number + len(lines), end)
                    if line is None:
                        break
                    lines.append(line)
                    size += len(line.content)
                if not lines:
                    return
                written = [line for line in lines if line.outcome or not line.content.isspace()]
                yield Chunk(self.key, start, end, number + len(lines), written, position())
                start, number = end, number + len(lines)

    def lines(self, places: Iterable[Place]) -> list[Line]:
        """The lines at these places, which come in the order of the file."""
        with _opened(self.path) as (stream, _):
            found = []
            for place in places:
                stream.seek(place.offset)
                found.append(Line(place.number, place.offset, place.length, stream.read(place.length)))
            return found


def _line(stream: IO[bytes], number: int, offset: int) -> tuple[Line | None, int]:
    content = stream.readline(MAX_LINE + 1)
    end = offset + len(content)
    if len(content) <= MAX_LINE:
        return (Line(number, offset, len(content), content) if content else None), end
    while not content.endswith(b"\n"):
        content = stream.readline(_PIECE)
        end += len(content)
        if not content:
            break
    outcome = operation_outcome(*fail("too-long", f"a line holds at most {MAX_LINE // 1024 // 1024} MiB", status=413).issues)
    return Line(number, offset, end - offset, b"", outcome), end


class Entries:
    """The resources of a collection Bundle, or a single one. An offset is the number of an entry, from 0."""

    def __init__(self, path: Path, key: str, bundle: dict[str, Any], base_url: str) -> None:
        self.path, self.key = path, key
        rows = bundle.get("entry", []) if bundle.get("resourceType") == "Bundle" else [{"resource": bundle}]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise StartError(f"{path}: Bundle.entry is no list of objects")
        self._lines = _linked(key, base_url, [row for row in rows if row.get("search", {}).get("mode") != "outcome"])

    def first_type(self) -> str:
        return _type_of(self._lines[0].content) if self._lines else ""

    def chunks(self, done: Done) -> Iterator[Chunk]:
        start = 0
        size = self.path.stat().st_size
        while start < len(self._lines):
            if start in done:
                start = done[start][0]
                continue
            stop = min((begin for begin in done if begin > start), default=len(self._lines))
            end = min(start + CHUNK_LINES, stop)
            yield Chunk(self.key, start, end, end + 1, self._lines[start:end], size * end // len(self._lines))
            start = end

    def lines(self, places: Iterable[Place]) -> list[Line]:
        return [self._lines[place.offset] for place in places]


def _linked(key: str, base_url: str, rows: list[dict[str, Any]]) -> list[Line]:
    """The resources with the links among them made local. One without an id gets that which its place in this file stands for."""
    links = Links(base_url)
    resources = [row.get("resource") for row in rows]
    for i, (row, resource) in enumerate(zip(rows, resources, strict=True)):
        if isinstance(resource, dict):
            resource.setdefault("id", str(uuid.uuid5(_NAMESPACE, f"{key}:{i}")))
            if isinstance(row.get("fullUrl"), str):
                links.add(row["fullUrl"], Target(str(resource.get("resourceType")), str(resource["id"])), f"Bundle.entry[{i}]")
    found = []
    for i, (row, resource) in enumerate(zip(rows, resources, strict=True)):
        outcome = None
        try:
            if not isinstance(resource, dict):
                raise fail("required", "an entry needs a resource", f"Bundle.entry[{i}].resource")
            if isinstance(resource.get("resourceType"), str):
                links.rewrite(resource, row.get("fullUrl"), f"Bundle.entry[{i}]")
        except FhirError as error:
            outcome = operation_outcome(*error.issues)
        found.append(Line(i + 1, i, 1, fhir_json.dumps(resource), outcome))
    return found


Source = Ndjson | Entries


class Opened:
    """A file that is to be loaded: its content's identity, and what it turned out to be."""

    def __init__(self, path: Path, key: str, source: Source | None, bundle: dict[str, Any] | None) -> None:
        """`bundle`: a transaction or batch, which is processed as such; else there is a `source`."""
        self.path, self.key, self.source, self.bundle = path, key, source, bundle
        self.size = path.stat().st_size

    @property
    def rank(self) -> int:
        """Files whose resources others refer to come first; those that stand for themselves come before all."""
        kind = self.source.first_type() if self.source else ""
        return _FIRST.index(kind) if kind in _FIRST else len(_FIRST) if kind else -1


def open_file(path: Path, base_url: str, hashed: Callable[[int], None] = lambda _: None) -> Opened:
    """Look at a file. `hashed` is told of every piece read. StartError when it is nothing that can be loaded."""
    name = path.name.removesuffix(".gz")
    try:
        key = _identity(path, hashed)
        if name.endswith((".ndjson", ".jsonl")):
            return Opened(path, key, Ndjson(path, key), None)
        if not name.endswith(".json"):
            raise StartError(f"{path} is none of .ndjson, .jsonl and .json, with or without .gz")
        with _opened(path) as (stream, _):
            content = stream.read(MAX_BUNDLE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise StartError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MAX_BUNDLE:
        raise StartError(f"{path} has more than {MAX_BUNDLE // 1024 // 1024} MiB: make it NDJSON")
    try:
        bundle = fhir_json.loads(content)
        kind = bundle.get("type") if bundle.get("resourceType") == "Bundle" else "single"
        if kind in {"transaction", "batch"}:
            return Opened(path, key, None, bundle)
        if kind in {"collection", "searchset", "single"}:
            return Opened(path, key, Entries(path, key, bundle, base_url), None)
    except FhirError as error:
        raise StartError(f"{path}: {error}") from None
    raise StartError(f"{path}: a Bundle of type {str(kind)[:32]!r} is nothing to load; transaction, batch and collection are")


class _opened:  # noqa: N801 - read as a verb: with _opened(path)
    """The content of a file, uncompressed, and a function that tells how much of the file itself was read."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("rb")
        self._stream: IO[bytes] = self._raw
        if path.suffix == ".gz":
            self._stream = cast("IO[bytes]", gzip.GzipFile(fileobj=self._raw))

    def __enter__(self) -> tuple[IO[bytes], Callable[[], int]]:
        return self._stream, self._raw.tell

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._raw.close()


def _identity(path: Path, hashed: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            hashed(len(piece))
    return digest.hexdigest()


def _type_of(content: bytes) -> str:
    try:
        return str(fhir_json.loads(content).get("resourceType"))
    except FhirError:
        return "?"
