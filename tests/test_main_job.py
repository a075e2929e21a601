"""The demo as a newcomer runs it: one order in ten steps, each checked, over real sockets."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from demo.department.day import CASES
from demo.department.people import PASSWORD
from demo.department.rooms import STATIONS

DEMO = [sys.executable, "-m", "fhir_server", "demo"]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("RIS_")}


def critical_results(address: str) -> str:
    """The page of those that the demo's referrer is to acknowledge."""
    with httpx.Client(base_url=address, follow_redirects=True, timeout=30) as rolf:
        csrf = re.findall(r'name="csrf" value="([^"]+)"', rolf.get("/login").text)[-1]
        rolf.post("/login", data={"name": "rolf", "password": PASSWORD, "csrf": csrf})
        return rolf.get("/reading/critical").text


def left_behind(mark: str) -> list[str]:
    """The processes whose command line or environment names this demo's directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in text:
                found.append(entry.name)
    return found


def test_the_demo_plays_all_ten_steps_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--once"], env=environment() | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    titles = re.findall(r"^ ?(\d+)\. ", done.stdout, re.MULTILINE)
    assert titles == [str(n) for n in range(11)]  # 0: the department is set up
    assert done.stdout.count("checked in") == 10
    assert "ORU^R01" in done.stdout
    assert "|F" in done.stdout
    assert left_behind(str(tmp_path)) == []
    assert list(tmp_path.glob("fhir-ris-demo-*")) == []


def test_the_demo_names_the_step_that_failed_and_exits_1(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*DEMO, "--once"],
        env=environment() | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        output = ""
        for line in demo.stdout:
            output += line
            if line.startswith(" 2."):
                for pid in left_behind(str(tmp_path)):
                    if int(pid) != demo.pid and b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(int(pid), signal.SIGKILL)
        code = demo.wait(120)
    assert code == 1
    assert re.search(r"step \d+ failed", output), output
    deadline = time.monotonic() + 10
    while left_behind(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_behind(str(tmp_path)) == []


def test_no_two_patients_of_the_demos_day_have_a_scanner_at_the_same_time() -> None:
    taken = {station.title: [(20, 60)] if station.title == "CT1" else [] for station in STATIONS}  # the play's patient
    for case in CASES:
        if case.station:
            taken[case.station].append((case.minutes, case.minutes + case.examination.minutes))
    for station, spans in taken.items():
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(sorted(spans))), station


@pytest.mark.parametrize(
    ("number", "then"), [(signal.SIGINT, "stays up until Ctrl-C"), (signal.SIGTERM, "A department to look around in")]
)
def test_the_demo_stays_up_until_it_is_interrupted(tmp_path: Path, number: signal.Signals, then: str) -> None:
    with subprocess.Popen(
        DEMO, env=environment() | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        address = ""
        for line in demo.stdout:
            address = line.split()[1] if line.startswith("Open http") else address
            if then in line:
                break
        assert demo.poll() is None
        if address:
            assert "Dietz" in critical_results(address)
        demo.send_signal(number)
        assert demo.wait(30) == 0, "".join(demo.stdout)
    assert left_behind(str(tmp_path)) == []
