"""`fhir-ris load`: everything that can go in goes in once, whatever happens meanwhile, and the rest is listed with the reason."""

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from rich.console import Console

from fhir_server.database import connect
from fhir_server.interactions import Interactions
from fhir_server.loading import load_files, sources
from fhir_server.loading.ledger import Tally
from fhir_server.loading.progress import Progress
from fhir_server.loading.workers import WORTH_PROCESSES
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry
from fhir_server.start_error import StartError
from fhir_server.store import Store
from fhir_server.unit_of_work import UnitOfWork

BASE = "http://ris.example/fhir"
Resource = dict[str, Any]
Db = AsyncDatabase[Resource]


class House:
    """A database into which files are loaded."""

    def __init__(self, uri: str, name: str, folder: Path) -> None:
        self.uri, self.name, self.folder = uri, name, folder
        self.registry = Registry()
        self.said = ""

    async def _open(self) -> Interactions:
        return Interactions(Store(await connect(self.uri, self.name)), self.registry)

    def file(self, name: str, *resources: Any) -> Path:
        """A file of these lines."""
        lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in resources]
        content = b"".join(line + b"\n" for line in lines)
        path = self.folder / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    def load(self, *paths: Path, **options: Any) -> Tally:
        written = StringIO()
        try:
            return asyncio.run(load_files(paths, self._open, Progress(Console(file=written)), base_url=BASE, **options))
        finally:
            self.said = written.getvalue()

    def read(self, work: Callable[[Db], Any]) -> Any:
        async def run() -> Any:
            async with AsyncMongoClient[Resource](self.uri) as client:
                return await work(client[self.name])

        return asyncio.run(run())

    def resources(self, resource_type: str) -> dict[str, Resource]:
        """The current resources by id."""
        rows = self.read(lambda db: db[resource_type].find().to_list())
        return {row["_id"]: row["resource"] for row in rows}

    def count(self, collection: str) -> int:
        found: int = self.read(lambda db: db[collection].count_documents({}))
        return found


@pytest.fixture
def house(mongodb_uri: str, database_name: str, tmp_path: Path) -> House:
    return House(mongodb_uri, database_name, tmp_path)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "CHUNK_LINES", 3)


def patient(id_: str | None = None, **more: Any) -> Resource:
    return {"resourceType": "Patient", **({"id": id_} if id_ else {}), **more}


def observation(who: str, id_: str | None = None, **more: Any) -> Resource:
    subject = {"reference": who if "/" in who or ":" in who else f"Patient/{who}"}
    made = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": subject, **more}
    return made | ({"id": id_} if id_ else {})


def refusals(path: Path) -> list[Resource]:
    return [json.loads(line) for line in path.with_name(f"{path.name}.refused.ndjson").read_text().splitlines()]


# NDJSON


def test_what_has_an_id_keeps_it_and_the_rest_gets_one(house: House) -> None:
    file = house.file("a.ndjson", patient("a", gender="female"), patient(), patient(), b"", patient("b"))
    assert house.load(file) == Tally(loaded=4)
    found = house.resources("Patient")
    assert len(found) == 4
    assert found["a"]["gender"] == "female"
    assert found["a"]["meta"]["versionId"] == "1"
    assert not file.with_name("a.ndjson.refused.ndjson").exists()


def test_what_is_loaded_is_found_and_on_record(house: House) -> None:
    house.load(house.file("a.ndjson", patient("a"), observation("a", "o")))
    row = house.read(lambda db: db["Observation"].find_one({"search.t": "subject>Patient/a"}))
    assert row["_id"] == "o"
    (event,) = house.resources("AuditEvent").values()
    assert event["subtype"][0]["code"] == "load"
    assert {e["what"]["reference"] for e in event["entity"]} == {"Patient/a", "Observation/o"}


def test_what_was_there_gets_a_new_version_unless_it_is_the_same(house: House) -> None:
    house.load(house.file("a.ndjson", patient("a", gender="female"), patient("b")))
    assert house.load(house.file("b.ndjson", patient("a", gender="male"), patient("b"))) == Tally(loaded=2)
    found = house.resources("Patient")
    assert (found["a"]["meta"]["versionId"], found["b"]["meta"]["versionId"]) == ("2", "1")
    assert house.count("Patient_history") == 1


def test_decimals_keep_their_digits(house: House) -> None:
    quantity = b'{"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"},"valueQuantity":{"value":1.50}}'
    house.load(house.file("a.ndjson", quantity))
    assert str(house.resources("Observation")["o"]["valueQuantity"]["value"]) == "1.50"


def test_compressed_files_load_as_well(house: House, small_chunks: None) -> None:
    assert house.load(house.file("a.ndjson.gz", *(patient(f"p{n}") for n in range(10)))) == Tally(loaded=10)


def test_the_same_content_is_not_loaded_twice_unless_asked(house: House) -> None:
    file = house.file("a.ndjson", patient(), patient())
    house.load(file)
    assert house.load(file) == Tally()
    assert "was loaded on" in house.said
    assert house.load(house.file("copy.ndjson", patient(), patient())) == Tally(), "another name is no other content"
    assert house.count("Patient") == 2
    assert house.load(file, again=True) == Tally(loaded=2)
    assert house.count("Patient") == 4


# Refusals


def test_one_refused_line_keeps_none_of_the_others_out(house: House) -> None:
    lines = [patient(f"p{n}") for n in range(6)]
    bad = [
        patient("x1", gender="M"),
        b'{"resourceType": "Patient", ',
        {"resourceType": "Unicorn"},
        patient("x4", id="not an id"),
        b"[]",
    ]
    file = house.file("a.ndjson", *lines[:2], *bad, *lines[2:])
    assert house.load(file) == Tally(loaded=6, refused=5)
    assert set(house.resources("Patient")) == {f"p{n}" for n in range(6)}
    listed = refusals(file)
    assert [r["line"] for r in listed] == [3, 4, 5, 6, 7]
    assert listed[0]["resource"] == "Patient/x1"
    assert listed[0]["outcome"]["issue"][0]["expression"] == ["Patient.gender"]
    assert {r["outcome"]["resourceType"] for r in listed} == {"OperationOutcome"}
    assert "5 refused" in house.said


def test_lines_are_only_as_long_as_a_request_may_be(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_LINE", 1000)
    file = house.file("a.ndjson", patient("a"), patient("b", name=[{"text": "x" * 2000}]), patient("c"))
    assert house.load(file) == Tally(loaded=2, refused=1)
    assert (refusals(file)[0]["line"], refusals(file)[0]["outcome"]["issue"][0]["code"]) == (2, "too-long")


def test_what_the_house_refuses_is_found_among_many(house: House, small_chunks: None) -> None:
    async def no_smith(_unit: UnitOfWork, change: Change) -> None:
        if change.after and change.after.get("name", [{}])[0].get("family") == "Smith":
            raise fail("business-rule", "nobody is called Smith here", "Patient.name[0].family")

    async def no_males(_unit: UnitOfWork, change: Change) -> None:
        if change.after and change.after.get("gender") == "male":
            raise fail("business-rule", "what follows is refused")  # says nothing of the line that it is about

    house.registry.rule("Patient", no_smith)
    house.registry.reaction("Patient", no_males)
    people = [patient(f"p{n}") for n in range(9)]
    people[1] |= {"name": [{"family": "Smith"}]}
    people[4] |= {"gender": "male"}
    people[5] |= {"gender": "male"}
    file = house.file("a.ndjson", *people)
    assert house.load(file) == Tally(loaded=6, refused=3)
    assert [(r["line"], r["outcome"]["issue"][0]["code"]) for r in refusals(file)] == [(n, "business-rule") for n in (2, 5, 6)]


def test_a_list_of_refusals_goes_when_there_are_none_any_more(house: House) -> None:
    file = house.file("a.ndjson", patient("a", gender="M"))
    house.load(file)
    assert refusals(file)
    house.load(house.file("a.ndjson", patient("a", gender="male")))
    assert not file.with_name("a.ndjson.refused.ndjson").exists()


# References


def test_lines_may_refer_to_later_ones(house: House, small_chunks: None) -> None:
    chain = [{"resourceType": "Location", "id": f"l{n}", "partOf": {"reference": f"Location/l{n + 1}"}} for n in range(10)]
    file = house.file(
        "a.ndjson",
        *(observation("late", f"o{n}") for n in range(7)),
        *chain,
        {"resourceType": "Location", "id": "l10"},
        patient("late"),
    )
    assert house.load(file) == Tally(loaded=19)
    assert (house.count("Observation"), house.count("Location"), house.count("load_lines")) == (7, 11, 0)


def test_files_may_refer_to_one_another_in_any_order(house: House) -> None:
    visit = {"resourceType": "Account", "id": "x", "status": "active", "subject": [{"reference": "Patient/p"}]}
    first = house.file("Account.ndjson", visit)
    second = house.file("Patient.ndjson", patient("p", managingOrganization={"reference": "Organization/z"}))
    third = house.file(
        "Z.ndjson", {"resourceType": "Organization", "id": "z", "name": "x", "partOf": {"reference": "Organization/y"}}
    )
    fourth = house.file(
        "Y.ndjson",
        patient("q", link=[]) | {"link": [{"other": {"reference": "Patient/p"}, "type": "seealso"}]},
        {"resourceType": "Organization", "id": "y", "name": "y"},
    )
    assert house.load(first, second, third, fourth) == Tally(loaded=5)


def test_a_reference_to_nothing_is_refused_when_all_else_is_in(house: House, small_chunks: None) -> None:
    file = house.file(
        "a.ndjson",
        observation("nobody", "o1"),
        observation("p", "o2"),
        {**observation("o1", "o3"), "hasMember": [{"reference": "Observation/o1"}]},
        patient("p"),
    )
    assert house.load(file) == Tally(loaded=2, refused=2)
    assert [(r["line"], r["resource"]) for r in refusals(file)] == [(1, "Observation/o1"), (3, "Observation/o3")]
    assert "Patient/nobody does not exist" in refusals(file)[0]["outcome"]["issue"][0]["diagnostics"]
    assert refusals(file)[0]["outcome"]["issue"][0]["expression"] == ["Observation.subject"]


def test_references_by_our_own_address_are_local(house: House) -> None:
    file = house.file("a.ndjson", patient("p"), observation(f"{BASE}/Patient/p", "o"))
    house.load(file)
    assert house.resources("Observation")["o"]["subject"] == {"reference": "Patient/p"}


# Bundles


def bundle(kind: str, *entries: Resource) -> Resource:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def test_a_collection_is_loaded_with_the_links_among_its_entries(house: House) -> None:
    urn = "urn:uuid:5b8f9f4e-0000-4000-8000-000000000001"
    file = house.file(
        "a.json", bundle("collection", {"resource": observation(urn, "o")}, {"fullUrl": urn, "resource": patient()})
    )
    assert house.load(file) == Tally(loaded=2)
    (new,) = house.resources("Patient")
    assert house.resources("Observation")["o"]["subject"] == {"reference": f"Patient/{new}"}
    assert house.load(file, again=True) == Tally(loaded=2)
    assert house.count("Patient") == 1, "what has no id of its own has that of its place in this content"


def test_one_bad_entry_of_a_collection_is_listed(house: House, small_chunks: None) -> None:
    people = [{"resource": patient(f"p{n}")} for n in range(5)]
    file = house.file("a.json", bundle("collection", *people, {"resource": patient("x", gender="M")}, {}))
    assert house.load(file) == Tally(loaded=5, refused=2)
    assert [r["line"] for r in refusals(file)] == [6, 7]


def test_a_single_resource_is_loaded(house: House) -> None:
    assert house.load(house.file("a.json", patient("a"))) == Tally(loaded=1)


def test_a_transaction_goes_in_as_a_whole_or_not_at_all(house: House) -> None:
    def put(resource: Resource) -> Resource:
        return {"resource": resource, "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}}

    good = house.file("good.json", bundle("transaction", put(observation("p", "o")), put(patient("p"))))
    bad = house.file("bad.json", bundle("transaction", put(patient("q")), put(observation("nobody", "x"))))
    assert house.load(good, bad) == Tally(loaded=2, refused=1)
    assert set(house.resources("Patient")) == {"p"}
    (refusal,) = refusals(bad)
    assert refusal["outcome"]["issue"][0]["expression"][0].startswith("Bundle.entry[1]")
    assert house.load(good, bad) == Tally(refused=1)


def test_a_batch_goes_in_entry_by_entry(house: House) -> None:
    entries = [
        {"resource": patient(f"p{n}", gender=g), "request": {"method": "PUT", "url": f"Patient/p{n}"}}
        for n, g in enumerate(["male", "M", "female"])
    ]
    file = house.file("a.json", bundle("batch", *entries, {"request": {"method": "DELETE", "url": "Patient/p0"}}))
    assert house.load(file) == Tally(loaded=3, refused=1)
    assert set(house.resources("Patient")) == {"p2"}
    assert refusals(file)[0]["line"] == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", b"{}"), ("a.json", b"{"), ("a.json", b'{"resourceType":"Bundle","type":"message"}'), ("a.json.gz", b"no gzip")],
)
def test_a_file_that_is_nothing_to_load_is_named(house: House, name: str, content: bytes) -> None:
    path = house.folder / name
    path.write_bytes(content)
    with pytest.raises(StartError, match=name):
        house.load(path)
    with pytest.raises(StartError, match="absent"):
        house.load(house.folder / "absent.ndjson")


# The command, with processes that are killed


def command(house: House, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "RIS_MONGODB_URI": house.uri,
        "RIS_MONGODB_DATABASE": house.name,
        "RIS_DATA_DIR": str(house.folder),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "fhir_server", "load", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_load_that_is_killed_goes_on_without_loss_or_doubling(house: House) -> None:
    """With lines that have no id, so that doing a chunk twice would show."""

    async def lifetime(db: Db, seconds: int) -> None:
        await db.client.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=seconds)

    house.read(lambda db: lifetime(db, 3))  # else a killed transaction holds its locks for a minute
    try:
        number = 2500
        file = house.file("a.ndjson", patient("p"), *(observation("p", note=[{"text": str(n)}]) for n in range(number)))
        assert file.stat().st_size > WORTH_PROCESSES
        running = command(house, str(file), "--processes", "2")
        children: list[str] = []
        with suppress(OSError):
            while house.count("Observation") < 500 and running.poll() is None:
                children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
                time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        assert len(children) >= 2
        ended = time.monotonic() + 10
        while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < ended:
            time.sleep(0.02)
        assert not any(Path(f"/proc/{child}").exists() for child in children), "its processes end with it"
        assert 500 <= house.count("Observation") < number, "it was killed in the middle"
        assert house.load(file) == Tally(loaded=number + 1)
        notes = [r["note"][0]["text"] for r in house.resources("Observation").values()]
        assert sorted(notes, key=int) == [str(n) for n in range(number)]
        assert house.count("Observation_history") == 0
    finally:
        house.read(lambda db: lifetime(db, 60))


def test_the_command_ends_with_1_when_something_was_refused(house: House) -> None:
    file = house.file("a.ndjson", patient("a"), patient("b", gender="M"))
    running = command(house, str(file))
    said, _ = running.communicate(timeout=60)
    assert (running.returncode, "1 refused" in said) == (1, True), said
    running = command(house, str(house.folder / "absent.ndjson"))
    said, _ = running.communicate(timeout=60)
    assert (running.returncode, "Traceback" in said) == (2, False), said
