"""The DICOM Conformance Statement, in the layout of PS3.2, printed from what is registered: services, keys, checks, settings.

python -m capability.dicom_conformance     writes docs/dicom-conformance.md anew; a test compares them
"""

import html
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.uid import UID
from pymongo import AsyncMongoClient

from bridges.dicom import availability, dimse, mpps_checks, mpps_service, worklist_keys
from bridges.dicom.server import DicomServer, DicomSettings
from bridges.dicom.upper_layer.acceptor import IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION, MAX_LENGTH, Limits
from bridges.dicom.upper_layer.association import Times
from bridges.dicom.upper_layer.services import TRANSFER_SYNTAXES, Operation, Service
from fhir_server.interactions import Interactions
from fhir_server.registry import Registry
from fhir_server.store import Store
from resources import scanner_preferences, worklist_preferences
from resources.imaging_series import AVAILABILITIES

DOCUMENT: Final = "docs/dicom-conformance.md"
# Of our own doings as SCU: the SOP classes that we call others with.
_AS_SCU: Final = ((mpps_service.SOP_CLASS, "N-CREATE, N-SET", "an Endpoint `dicom-mpps` wants performed steps"),)


def services() -> list[Service]:
    """The services that a server registers. No database is asked."""
    store = Store(AsyncMongoClient("mongodb://127.0.0.1", connect=False)["none"])
    settings = DicomSettings("127.0.0.1", 0, "FHIR_RIS", ZoneInfo("UTC"))
    return DicomServer(Interactions(store, Registry()), settings).services


def markdown(registered: Iterable[Service]) -> str:
    """The statement."""
    found = sorted(registered, key=lambda s: s.sop_class)
    return "\n".join((*_overview(found), *_networking(found), *_services(), *_settings(), *_security()))


def _overview(registered: list[Service]) -> Iterator[str]:
    yield "# DICOM Conformance Statement: fhir-ris\n"
    yield "Written by `python -m capability.dicom_conformance` from what the server registers; in the layout of DICOM PS3.2.\n"
    yield "## 1 Overview\n"
    yield (
        "fhir-ris is a radiology information system. It gives scanners their worklist, takes what they say of the steps "
        "that they perform, takes availability notifications, and forwards performed steps. It stores no images.\n"
    )
    yield "| SOP class | user (SCU) | provider (SCP) |\n|---|---|---|"
    as_scu = {sop_class for sop_class, _, _ in _AS_SCU}
    for service in registered:
        yield f"| {UID(service.sop_class).name} | {'yes' if service.sop_class in as_scu else 'no'} | yes |"
    yield ""
    yield "## 2 Introduction\n"
    yield "For those who connect a scanner or a PACS. How each is set up, is in `dicom.md`. Terms are those of DICOM PS3.\n"


def _networking(registered: list[Service]) -> Iterator[str]:
    yield "## 3 Networking\n"
    yield "### 3.1 Implementation model\n"
    yield (
        "One application entity is SCP of all services below; its AE title is a setting. It listens while the server runs. "
        "Forwarding and QIDO-RS begin by themselves when there is something to forward, or to look up.\n"
    )
    yield "### 3.2 Association policies\n"
    times, limits = Times(), Limits()
    yield "| | |\n|---|---|"
    yield "| Application context | 1.2.840.10008.3.1.1.1 |"
    yield f"| Implementation class UID | {IMPLEMENTATION_CLASS} |"
    yield f"| Implementation version name | {IMPLEMENTATION_VERSION} |"
    yield f"| Maximum PDU length that is received | {MAX_LENGTH} bytes |"
    yield f"| Associations at a time | {limits.total} (a setting) |"
    yield f"| Idle association | aborted after {times.idle:g} s (a setting) |"
    yield "| Asynchronous operations | not negotiated |\n"
    yield "### 3.3 Accepted presentation contexts\n"
    yield "| SOP class | UID | transfer syntaxes | services | role |\n|---|---|---|---|---|"
    for service in registered:
        uid = UID(service.sop_class)
        syntaxes = ", ".join(str(UID(s).name) for s in service.transfer_syntaxes)
        operations = ", ".join(Operation(o).name.replace("_", "-") for o in service.handlers)
        yield f"| {uid.name} | {uid} | {syntaxes} | {operations} | SCP |"
    yield ""
    yield "Of several transfer syntaxes that are proposed the first of these is taken: "
    yield ", ".join(str(UID(s).name) for s in TRANSFER_SYNTAXES) + ".\n"
    yield "### 3.4 Proposed presentation contexts\n"
    yield "| SOP class | services | when |\n|---|---|---|"
    for sop_class, operations, when in _AS_SCU:
        yield f"| {UID(sop_class).name} | {operations} | {when} |"
    yield ""


def _services() -> Iterator[str]:
    yield "## 4 Services\n"
    yield "### 4.1 Modality Worklist (PS3.4 annex K)\n"
    yield "> stands in the item of the Scheduled Procedure Step Sequence. R and O: required and optional matching key.\n"
    yield "| attribute | tag | match | return | how it is matched | from |\n|---|---|---|---|---|---|"
    for key in worklist_keys.KEYS:
        inside = "> " if key.in_step else ""
        match = "R" if key.required else "O"
        yield f"| {inside}{_described(key.keyword)} | {match} | {key.returned} | {key.how} | {_cell(key.source)} |"
    yield ""
    yield "### 4.2 Modality Performed Procedure Step (PS3.4 annex F)\n"
    yield (
        "Types as in table F.7.2-1. How strictly they are checked, is a preference of the scanner: `strict` (all), `normal` "
        "(those marked with *), `lenient` (none; the answer is a warning).\n"
    )
    yield "| attribute | tag | N-CREATE | N-SET | at the end |\n|---|---|---|---|---|"
    for row in mpps_checks.TABLE:
        inside = "> " if row.within else ""
        allowed = "not allowed" if row.change == "-" else row.change
        yield f"| {inside}{_described(row.keyword)} | {row.create}{'*' if row.needed else ''} | {allowed} | {row.final} |"
    yield ""
    yield "| status | when |\n|---|---|"
    for status, when in _STATUSES:
        yield f"| {status:04X} | {when} |"
    yield ""
    yield "### 4.3 Instance Availability Notification (PS3.4 annex R)\n"
    yield f"Instance Availability: {', '.join(AVAILABILITIES)}. UID {availability.SOP_CLASS}. N-CREATE only.\n"
    yield "### 4.4 DICOMweb\n"
    yield (
        "User agent of QIDO-RS (PS3.18 10.6), `application/dicom+json`: Search for Studies by Study Instance UID and by "
        "Study Date (with `limit` and `offset`), and for the Series of a study. Redirects are not followed.\n"
    )


_STATUSES: Final = (
    (dimse.SUCCESS, "done, and committed"),
    (dimse.ATTRIBUTE_LIST_ERROR, "warning: an attribute was missing (lenient), or could not be changed and was left as it was"),
    (dimse.ATTRIBUTE_VALUE_OUT_OF_RANGE, "warning: a value was missing or no value, and was guessed (lenient)"),
    (dimse.NO_SUCH_ATTRIBUTE, "strict: a discontinuation reason that N-CREATE didn't create"),
    (dimse.INVALID_ATTRIBUTE_VALUE, "a status or a time that is none; strict: an attribute that is set at N-CREATE only"),
    (dimse.PROCESSING_FAILURE, "it can't be done now; with Error ID A710: the step has ended and may no longer be updated"),
    (dimse.DUPLICATE_SOP_INSTANCE, "the step exists already"),
    (dimse.NO_SUCH_SOP_INSTANCE, "there is no such step"),
    (dimse.INVALID_SOP_INSTANCE, "the SOP Instance UID is no UID"),
    (dimse.MISSING_ATTRIBUTE, "a required attribute is missing"),
    (dimse.MISSING_ATTRIBUTE_VALUE, "a required attribute has no value"),
    (dimse.RESOURCE_LIMITATION, "the data set is too large"),
)


def _described(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return f"{dictionary_description(tag)} | {tag >> 16:04X},{tag & 0xFFFF:04X}"


def _settings() -> Iterator[str]:
    yield "## 5 Configuration\n"
    yield "Of each scanner, on its Device (extensions):\n"
    yield "| extension | value | meaning |\n|---|---|---|"
    for name, one in worklist_preferences.EXTENSIONS.items():
        yield f"| `{worklist_preferences.PREFIX}{name}` | {_cell(one.allowed)} | {_cell(one.meaning)} |"
    rows = (scanner_preferences.__doc__ or "").splitlines()
    yield from (row for row in rows if row.startswith("| `"))
    yield ""


def _security() -> Iterator[str]:
    yield "## 6 Security\n"
    yield (
        "The called AE title must be ours, the calling one that of a registered, active Device once there is any. Associations "
        "and refusals are in the audit trail (AuditEvent). TLS and addresses: see the extensions above and `dicom.md`.\n"
    )
    yield "## 7 Character sets\n"
    yield (
        "Received: all of PS3.3 C.12.1.1.2 that pydicom decodes. Sent: ISO_IR 6, ISO_IR 100 or ISO_IR 192, whichever is enough, "
        "or what the scanner prefers (section 5).\n"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page(text: str) -> str:
    """The statement as HTML: headings, tables and paragraphs are all that it has."""
    body: list[str] = []
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if heading := re.match(r"(#{1,3}) (.*)", line):
            body.append(f"<h{len(heading[1])}>{_inline(heading[2])}</h{len(heading[1])}>")
        elif line.startswith("|---"):
            continue
        elif line.startswith("|"):
            kind = "th" if i + 1 < len(lines) and lines[i + 1].startswith("|---") else "td"
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            row = "".join(f"<{kind}>{_inline(c.strip())}</{kind}>" for c in cells)
            begins = i == 0 or not lines[i - 1].startswith("|")
            ends = i + 1 == len(lines) or not lines[i + 1].startswith("|")
            body.append(f"{'<table>' if begins else ''}<tr>{row}</tr>{'</table>' if ends else ''}")
        elif line:
            body.append(f"<p>{_inline(line)}</p>")
    title = "DICOM Conformance Statement: fhir-ris"
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><body>{"".join(body)}</body></html>'


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text.replace("\\|", "|"), quote=False))


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else DOCUMENT)
    path.write_text(markdown(services()), "utf-8")


if __name__ == "__main__":
    main()
