"""A small PACS: QIDO-RS over HTTP on a real socket, and an SCP that takes forwarded performed steps."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]  # made at run time from a table


@dataclass
class Study:
    """A study as the PACS has it. `series`: {uid: number of instances}."""

    uid: str
    series: dict[str, int]
    patient_id: str = ""
    issuer: str = "HOSP"
    name: str = "Roe^Jane"
    birth_date: str = "19700304"
    sex: str = "F"
    accession: str = ""
    date: str = "20260907"
    modality: str = "CT"

    def dicom_json(self) -> dict[str, Any]:
        return {
            "0020000D": {"vr": "UI", "Value": [self.uid]},
            "00080020": {"vr": "DA", "Value": [self.date]},
            "00080030": {"vr": "TM", "Value": ["081700"]},
            "00080050": {"vr": "SH", "Value": [self.accession]} if self.accession else {"vr": "SH"},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": self.name}]},
            "00100020": {"vr": "LO", "Value": [self.patient_id]},
            "00100021": {"vr": "LO", "Value": [self.issuer]},
            "00100030": {"vr": "DA", "Value": [self.birth_date]},
            "00100040": {"vr": "CS", "Value": [self.sex]},
            "00201206": {"vr": "IS", "Value": [len(self.series)]},
            "00201208": {"vr": "IS", "Value": [sum(self.series.values())]},
        }

    def series_json(self) -> list[dict[str, Any]]:
        return [
            {
                "0020000E": {"vr": "UI", "Value": [uid]},
                "00080060": {"vr": "CS", "Value": [self.modality]},
                "00201209": {"vr": "IS", "Value": [count]},
                "00080054": {"vr": "AE", "Value": ["PACS"]},
            }
            for uid, count in self.series.items()
        ]


@dataclass
class Pacs:
    """Its studies, what it was asked, and what it answers instead of an answer (status, body, headers)."""

    url: str = ""
    studies: dict[str, Study] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    instead: tuple[int, bytes, dict[str, str]] | None = None
    broken: set[str] = field(default_factory=set)  # studies about whose series it answers with an error
    hangs: threading.Event | None = None  # it answers nobody until this is set
    authorization: list[str | None] = field(default_factory=list)  # the header of each question

    def put(self, study: Study) -> Study:
        self.studies[study.uid] = study
        return study

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(path)
        if self.hangs is not None:
            self.hangs.wait(60)
        if self.instead is not None:
            return self.instead
        address = urlsplit(path)
        query = parse_qs(address.query)
        parts = address.path.removeprefix("/dicom-web").strip("/").split("/")
        if len(parts) == 3 and parts[1] in self.broken:
            return 500, b"", {}
        if len(parts) == 3:
            found = self.studies[parts[1]].series_json() if parts[1] in self.studies else []
        elif "StudyInstanceUID" in query:
            found = [s.dicom_json() for uid, s in self.studies.items() if uid in query["StudyInstanceUID"]]
        else:
            first, last = query["StudyDate"][0].split("-")
            offset, limit = int(query["offset"][0]), int(query["limit"][0])
            found = [s.dicom_json() for s in self.studies.values() if first <= s.date <= last][offset : offset + limit]
        return (200, json.dumps(found).encode(), {}) if found else (204, b"", {})


@contextmanager
def serving_qido() -> Iterator[Pacs]:
    """A PACS that answers on a port of its own."""
    pacs = Pacs()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pacs.authorization.append(self.headers.get("Authorization"))
            status, body, headers = pacs.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Nothing to standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    pacs.url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    try:
        yield pacs
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class StepTaker:
    """What an SCP of performed steps was sent, and what it answers next (statuses, the last one for good)."""

    port: int = 0
    received: list[tuple[str, str, Dataset]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=lambda: [0x0000])

    def take(self, operation: str, uid: str, data: Dataset) -> tuple[int, Dataset]:
        self.received.append((operation, uid, data))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return status, data


@contextmanager
def taking_steps(title: str = "PACS", port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[StepTaker]:
    """An application entity that takes N-CREATE and N-SET of performed steps, over TLS where a context is given."""
    taker = StepTaker()
    entity = AE(ae_title=title)
    entity.require_called_aet = True
    entity.add_supported_context(ModalityPerformedProcedureStep)
    handlers: list[Any] = [
        (evt.EVT_N_CREATE, lambda e: taker.take("N-CREATE", str(e.request.AffectedSOPInstanceUID), e.attribute_list)),
        (evt.EVT_N_SET, lambda e: taker.take("N-SET", str(e.request.RequestedSOPInstanceUID), e.modification_list)),
    ]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls)
    assert server is not None
    taker.port = server.server_address[1]
    try:
        yield taker
    finally:
        server.shutdown()
