"""The DICOM Conformance Statement: what it says is what the server does."""

from pathlib import Path

import httpx
from pymongo.asynchronous.database import AsyncDatabase

from bridges.dicom.mpps_checks import TABLE
from capability import dicom_conformance
from fhir_server.app import assemble, http_app
from fhir_server.database import Document
from fhir_server.settings import Settings
from resources import scanner_preferences
from tests.conftest import RunWithDb

DOCUMENT = Path(__file__).parent.parent / dicom_conformance.DOCUMENT


def test_the_statement_in_the_docs_is_what_the_server_registers():
    text = dicom_conformance.markdown(dicom_conformance.services())
    assert DOCUMENT.read_text("utf-8") == text, "run python -m capability.dicom_conformance"


def test_every_service_attribute_and_preference_is_named():
    text = dicom_conformance.markdown(dicom_conformance.services())
    for service in dicom_conformance.services():
        assert service.sop_class in text
    assert sum(line.count("not allowed") for line in text.splitlines()) == sum(r.change == "-" for r in TABLE)
    for url in (scanner_preferences.CHECKS, scanner_preferences.END, scanner_preferences.STABLE, scanner_preferences.ABANDONED):
        assert f"`{url}`" in text


def test_everybody_can_read_it(run_with_db: RunWithDb[None]) -> None:
    async def scenario(db: AsyncDatabase[Document]) -> None:
        application = http_app(await assemble(Settings(), db))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://ris.example") as client:
            answer = await client.get("/dicom-conformance")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "<h1>DICOM Conformance Statement: fhir-ris</h1>" in answer.text
        assert "1.2.840.10008.5.1.4.31" in answer.text
        assert "<script" not in answer.text

    run_with_db(scenario)
