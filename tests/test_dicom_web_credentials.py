"""What a PACS is shown when it is asked by QIDO-RS, and that nobody else is."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from bridges.dicom.qido import NotAnswered, Qido
from tests.conftest import RunWithDb
from tests.pacs import Pacs, serving_qido

QIDO = {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "dicom-qido-rs"}


def credentials(folder: Path, *rows: Any, mode: int = 0o600) -> Path:
    file = folder / "pacs.json"
    file.write_text(rows[0] if rows and isinstance(rows[0], str) else json.dumps(rows))
    file.chmod(mode)
    return file


def ask(run_with_db: RunWithDb[None], address: str, file: Path | None) -> None:
    async def work(_db: Any) -> None:
        async with Qido({"resourceType": "Endpoint", "connectionType": QIDO, "address": address}, file) as pacs:
            await pacs.study("1.2.3")

    run_with_db(work)


def shown(pacs: Pacs) -> str | None:
    return pacs.authorization[-1]


def test_each_address_gets_what_is_agreed_with_it_and_no_other(run_with_db: RunWithDb[None], tmp_path: Path) -> None:
    with serving_qido() as one, serving_qido() as other, serving_qido() as third:
        file = credentials(
            tmp_path,
            {"address": one.url + "/", "bearer": "one-token"},
            {"address": other.url, "user": "ris", "password": "a:b \u00e9"},
        )
        for pacs in (one, other, third):
            ask(run_with_db, pacs.url, file)
        assert shown(one) == "Bearer one-token"
        assert shown(other) == "Basic " + base64.b64encode("ris:a:b é".encode()).decode()
        assert shown(third) is None
        ask(run_with_db, one.url, None)
        assert shown(one) is None
        credentials(tmp_path, {"address": one.url, "bearer": "another"})  # counts at once
        ask(run_with_db, one.url, file)
        assert shown(one) == "Bearer another"


def test_credentials_do_not_leave_the_machine_unencrypted(run_with_db: RunWithDb[None], tmp_path: Path) -> None:
    file = credentials(tmp_path, {"address": "http://pacs.example/dicom-web", "bearer": "secret"})
    with pytest.raises(NotAnswered, match="over https only"):
        ask(run_with_db, "http://pacs.example/dicom-web", file)


@pytest.mark.parametrize(
    ("rows", "mode", "told"),
    [
        (["no json"], 0o600, "is not JSON"),
        (['{"address": "a"}'], 0o600, "is not a list"),
        ([{"address": "URL", "bearer": "secret"}], 0o640, "mode 0600"),
        ([{"bearer": "secret"}], 0o600, "entry 0 needs an address"),
        ([{"address": "URL"}], 0o600, "needs an address, and bearer, or user and password"),
        ([{"address": "URL", "bearer": "secret", "user": "ris", "password": "secret"}], 0o600, "or user and password"),
        ([{"address": "URL", "user": "ris"}], 0o600, "or user and password"),
        ([{"address": "URL", "token": "secret"}], 0o600, "no other fields"),
        ([{"address": "URL", "bearer": 1}], 0o600, "all of them text"),
        ([{"address": "URL", "bearer": "secret\r\nX: y"}], 0o600, "no header can hold"),
    ],
)
def test_a_file_that_cannot_be_used_keeps_the_question_back(
    run_with_db: RunWithDb[None], tmp_path: Path, rows: list[Any], mode: int, told: str
) -> None:
    with serving_qido() as pacs:
        rows = [r if isinstance(r, str) else {k: pacs.url if v == "URL" else v for k, v in r.items()} for r in rows]
        with pytest.raises(NotAnswered, match=told) as refused:
            ask(run_with_db, pacs.url, credentials(tmp_path, *rows, mode=mode))
        assert "secret" not in str(refused.value)
        assert pacs.asked == []
