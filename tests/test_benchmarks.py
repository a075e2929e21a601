"""What the benchmarks rest on: valid resources, an archive laid out as the store does it, a load generator that counts."""

import asyncio
import contextlib
import random
import re

import pytest

from benchmarks import archive, seeds
from benchmarks.load import connected, http, percentile, run
from fhir_server import fhir_json
from fhir_server.validation import validate
from tests.fhir_app import serving


@pytest.mark.parametrize("resource_type", seeds.TYPES)
def test_what_the_crud_mix_writes_is_valid(resource_type: str) -> None:
    for body in (seeds.body(resource_type), seeds.changed_body(resource_type)):
        assert validate(fhir_json.loads(re.sub(rb"@\w+@", b"1", body))) == []


def test_the_other_resources_are_valid() -> None:
    for made in (seeds.SMALL_PATIENT, seeds.service_request("1", 1), seeds.observation("1", 1), seeds.imaging_study("1", 2, 3)):
        assert validate(made) == []
    for number in range(archive.BLOCK):
        assert validate(archive.resource(number, 1000, random.Random(1))) == []


def test_an_archive_is_laid_out_as_the_store_does_it_and_load_is_counted(mongodb_uri: str) -> None:
    with serving(mongodb_uri, strict=False) as app:
        for resource_type, document in archive.documents(119, 122, 1000):
            sent = {k: v for k, v in document["resource"].items() if k != "meta"}
            assert app.put(sent).status_code == 201
            stored = app.run(app.db[resource_type].find_one({"_id": document["_id"]}))
            assert stored is not None
            assert stored.keys() == document.keys()
            assert stored["search"] == document["search"]
            assert stored["resource"] | {"meta": None} == document["resource"] | {"meta": None}
        port, token = int(app.base_url.rpartition(":")[2]), app.token()
        paths = [f"{resource_type}/{document['_id']}", "Task/none"]
        result = asyncio.run(run(port, lambda n: http("GET", paths[n % 2], token), connections=3, count=12))
        assert dict(result.statuses) == {200: 6, 404: 6}
        assert len(result.times) == 12
        assert result.errors == 6


def test_answers_in_chunks_are_read_to_their_end() -> None:
    async def scenario() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                while await reader.readuntil(b"\r\n\r\n"):
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)
                    writer.write(b"0\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connected(port) as connection:
                for _ in range(2):
                    found = await connection.send(http("GET", "Patient", "x"))
                    assert (found.status, found.body) == (200, b"2\r\n{}\r\n0\r\n\r\n")

    asyncio.run(scenario())


def test_a_percentile_of_little_is_what_there_is() -> None:
    assert percentile([3.0], 95) == 3.0
    assert percentile([float(n) for n in range(1, 101)], 50) == pytest.approx(50.5)
