"""HL7's own R4 example resources, where they can be had: npm package hl7.fhir.r4.examples 4.0.1 (CC0).

`RIS_R4_EXAMPLES` names the package file; without it, `npm` fetches it once into pytest's cache.
"""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from fhir_server import fhir_json

PACKAGE = "hl7.fhir.r4.examples@4.0.1"
CACHE = Path(__file__).parent.parent / ".pytest_cache" / "d" / "r4-examples"
MAX_BYTES = 3_000_000
"""Leaves out ten Bundles of definitions, whose entries are in the package one by one as well."""


@cache
def examples_archive() -> Path | None:
    """The package file; None where there is none and no way to fetch it. Raises FileNotFoundError for a wrong setting."""
    named = os.environ.get("RIS_R4_EXAMPLES")
    if named:
        return Path(named).resolve(strict=True)
    fetched = next(CACHE.glob("*.tgz"), None) if CACHE.is_dir() else None
    return fetched or _fetch()


def _fetch() -> Path | None:
    npm = shutil.which("npm")
    if npm is None:
        return None
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / f"fetch-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    try:
        subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=folder, check=True, timeout=120, capture_output=True)
        found = next(folder.glob("*.tgz"))
        return found.rename(CACHE / found.name)
    except (subprocess.SubprocessError, OSError, StopIteration):
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def why_not() -> str:
    """The reason to print when there are none."""
    return f"no official examples: set RIS_R4_EXAMPLES to the file of {PACKAGE}, or have npm on the PATH and the network"


def official_examples(leave_out: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name (such as `Patient-example`) and resource of every example, read as the server reads JSON; none without the package.

    `leave_out` names resource types that are not wanted, by how the names begin.
    """
    archive = examples_archive()
    if archive is None:
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).stem
            if not member.name.endswith(".json") or member.size > MAX_BYTES or name.partition("-")[0] in leave_out:
                continue
            content = tar.extractfile(member)
            assert content is not None
            resource = fhir_json.loads(content.read())
            if "resourceType" in resource:
                yield name, resource
