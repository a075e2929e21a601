"""Log lines: one format for all, no access log, and no local variables beside a stack trace."""

import json
import subprocess
import sys

SCENARIO = """
import logging, sys
import structlog
from fhir_server.logs import configure_logging

def fail(name):
    raise ValueError("broken")

configure_logging(sys.argv[1])
log = structlog.get_logger("ris")
log.debug("too much")
log.info("started", port=8080)
logging.getLogger("pynetdicom").info("too much")
logging.getLogger("uvicorn.error").warning("late by %d s", 3)
logging.getLogger("uvicorn.access").error("GET /fhir/Patient?name=Testperson")
try:
    fail("Testperson")
except ValueError:
    log.exception("failed")
"""


def logged(log_format: str) -> str:
    done = subprocess.run([sys.executable, "-c", SCENARIO, log_format], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.replace('fail("Testperson")', "")  # a stack trace quotes the source line


def test_json_has_one_object_a_line() -> None:
    entries = [json.loads(line) for line in logged("json").splitlines()]
    assert [(entry["level"], entry["logger"], entry["event"]) for entry in entries] == [
        ("info", "ris", "started"),
        ("warning", "uvicorn.error", "late by 3 s"),
        ("error", "ris", "failed"),
    ]
    assert entries[0]["port"] == 8080
    assert entries[2]["exception"].endswith("ValueError: broken")
    assert "Testperson" not in json.dumps(entries)


def test_console_says_the_same() -> None:
    text = logged("console")
    assert "started" in text
    assert "port=8080" in text
    assert "late by 3 s" in text
    assert "ValueError: broken" in text
    assert "too much" not in text
    assert "Testperson" not in text
