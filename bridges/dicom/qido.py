"""QIDO-RS (PS3.18 10.6): asking a PACS which studies and series it has.

Only the address of the Endpoint is asked: redirects aren't followed, and nothing that an answer says is. Answers are limited in
time, bytes and number.
"""

import asyncio
import json
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode

import httpx

from bridges.dicom import dicom_endpoints
from bridges.dicom.dicom_json import Attributes, is_uid, text
from bridges.dicom.values import code_text
from bridges.dicom.web_credentials import authorization
from fhir_server.registry import Resource
from fhir_server.secret_file import CredentialsError
from resources.imaging_series import ArrivedSeries

_LARGEST: Final = 8 * 1024 * 1024
_SECONDS: Final = 10.0
PAGE: Final = 100
MOST_SERIES: Final = 1000
# Attributes that a PACS need not return unasked (PS3.18 table 10.6.3-3).
_STUDY_FIELDS: Final = (
    "StudyDescription", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "TimezoneOffsetFromUTC",
    "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
)  # fmt: skip
_SERIES_FIELDS: Final = ("SeriesDescription", "NumberOfSeriesRelatedInstances", "RetrieveAETitle", "InstanceAvailability")


class NotAnswered(Exception):
    """The PACS can't be asked, or what it answers is no answer. The text names neither patients nor addresses."""


class Qido:
    """One PACS. Use as an async context manager. `credentials` is the file with what it knows us by (`web_credentials.py`)."""

    def __init__(self, endpoint: Resource, credentials: Path | None = None) -> None:
        base = dicom_endpoints.base_url(endpoint)
        if base is None:
            raise NotAnswered("the Endpoint has no address that can be asked")
        self._base = base
        try:
            self._authorization = authorization(credentials, base)
        except CredentialsError as error:
            raise NotAnswered(str(error)) from None
        self._seconds = float(dicom_endpoints.header(endpoint, "request-timeout") or _SECONDS)
        # No proxy and no .netrc of the machine: the Endpoint says where we go, and nobody else.
        self._client = httpx.AsyncClient(timeout=self._seconds, follow_redirects=False, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def study(self, uid: str) -> Attributes | None:
        """What the PACS says of a study; None when it doesn't have it."""
        found = await self._get("/studies", [("StudyInstanceUID", uid), *_fields(_STUDY_FIELDS)])
        return next((s for s in found if text(s, "StudyInstanceUID") == uid), None)

    async def studies(self, first_day: str, last_day: str, offset: int) -> list[Attributes]:
        """A page of the studies of these days (`20260907`), 100 at most."""
        days = f"{first_day}-{last_day}"
        page = [("limit", str(PAGE)), ("offset", str(offset))]
        return (await self._get("/studies", [("StudyDate", days), *_fields(_STUDY_FIELDS), *page]))[:PAGE]

    async def series(self, study_uid: str) -> list[ArrivedSeries]:
        """The series of a study, with their counts."""
        found = await self._get(f"/studies/{study_uid}/series", _fields(_SERIES_FIELDS))
        if len(found) > MOST_SERIES:
            raise NotAnswered(f"the study has more than {MOST_SERIES} series")
        return [s for one in found if (s := _series(one)) is not None]

    async def _get(self, path: str, parameters: list[tuple[str, str]]) -> list[Attributes]:
        try:
            async with asyncio.timeout(2 * self._seconds):
                status, body = await self._body(path, parameters)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise NotAnswered(f"no answer: {type(error).__name__}") from None
        if status == httpx.codes.NO_CONTENT or (status == httpx.codes.NOT_FOUND and path != "/studies"):
            return []
        if status != httpx.codes.OK:
            raise NotAnswered(f"it answers {status}")
        try:
            return _attributes(json.loads(body or b"[]"))
        except (ValueError, RecursionError):
            raise NotAnswered("its answer is no DICOM JSON") from None

    async def _body(self, path: str, parameters: list[tuple[str, str]]) -> tuple[int, bytes]:
        # Not compressed: how much it becomes can't be told before it has become that.
        headers = {"Accept": "application/dicom+json", "Accept-Encoding": "identity"}
        if self._authorization:
            headers["Authorization"] = self._authorization
        async with self._client.stream("GET", self._base + path, params=urlencode(parameters), headers=headers) as answer:
            if answer.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                raise NotAnswered("its answer is compressed, which it was not asked for")
            body = bytearray()
            async for part in answer.aiter_raw():
                body += part
                if len(body) > _LARGEST:
                    raise NotAnswered("its answer is too long")
            return answer.status_code, bytes(body)


def _fields(keywords: tuple[str, ...]) -> list[tuple[str, str]]:
    return [("includefield", keyword) for keyword in keywords]


def _attributes(answer: Any) -> list[Attributes]:
    """The data sets of an answer, as far as they have the form of the DICOM JSON model. ValueError when it is no list of them."""
    if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
        raise ValueError("no list of data sets")
    return [{name: element for name, element in one.items() if _is_element(element)} for one in answer]


def _is_element(element: Any) -> bool:
    if not isinstance(element, dict) or not isinstance(element.get("vr"), str):
        return False
    values = element.get("Value", [])
    if not isinstance(values, list):
        return False
    if element["vr"] == "PN":
        return all(isinstance(v, dict) and all(isinstance(g, str) for g in v.values()) for v in values)
    return element["vr"] != "SQ" and all(isinstance(v, (str, int, float)) or v is None for v in values)


def _series(one: Attributes) -> ArrivedSeries | None:
    uid = text(one, "SeriesInstanceUID")
    if not is_uid(uid):
        return None
    availability = text(one, "InstanceAvailability")
    return ArrivedSeries(
        uid,
        modality=code_text(text(one, "Modality")),
        description=text(one, "SeriesDescription"),
        retrieve_ae_title=text(one, "RetrieveAETitle"),
        count=number(one, "NumberOfSeriesRelatedInstances") or 0,
        availability=availability if availability in {"ONLINE", "NEARLINE", "OFFLINE", "UNAVAILABLE"} else "ONLINE",
    )


def number(one: Attributes, keyword: str) -> int | None:
    """An integer, sent as number or text."""
    said = text(one, keyword)
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else None
