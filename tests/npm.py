"""Clients from npm that play against the server: fetched once, their hashes compared, unpacked for the tests alone."""

import base64
import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

# Version, and the SHA-512 by which npm's own lock files know the archive.
PACKAGES = {
    "fhirclient": ("2.6.3", "CirZixcwWelbkIXxpxlNQx5+ZdJirl6F1s4y4yvA1X7hHAkr9n99aVHaMi0wX+97nATjKQ65X6NB5as/wZoJzg=="),
    "openid-client": ("6.8.9", "6mXMRNJxDOf6BflEWLXul1UwzLFz++9Ofz1PYwPwwsJsyXBsbfkO+Jo255SW1qnFNLYz4EJWHz42X4OJJrya/g=="),
    "jose": ("6.2.18", "doV4thUwgkrycJH4yLeqwTGIIZphHl+pk7CPReuMIhYhncmgzdko85MaCG4YQFTxqMFr1/oEH32tZuKKovcDEg=="),
    "oauth4webapi": ("3.8.8", "8N28E+a/oxfXWBgOMt+ZP/JUf/XR+IFbvkAEPP3gznXOMv9BpAAwiIj0TFNz3tGTPc0ZQ8zmWBNgN1nAys0gng=="),
}
SECONDS = 120  # for npm to fetch one


def unpacked(directory: Path, *names: str) -> Path:
    """These packages in `directory`/node_modules, which is returned. Skips the test, with the reason, where they can't be had.

    Nothing that they bring along is run, and nothing is fetched that isn't named here.
    """
    modules = directory / "node_modules"
    for name in names:
        (modules / name).mkdir(parents=True)
        with tarfile.open(_archive(name)) as archive:
            for member in archive.getmembers():
                member.name = member.name.partition("/")[2]  # what is in the one folder of the archive
                archive.extract(member, modules / name, filter="data")
    return modules


def _archive(name: str) -> Path:
    """The archive of a package, from the user's cache or from the registry. One process at a time fetches."""
    version, sha512 = PACKAGES[name]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fhir-ris-tests"
    archive = cache / f"{name}-{version}.tgz"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not archive.exists() or _sha512(archive) != sha512:
                _fetch(f"{name}@{version}", archive)
    except OSError as error:
        pytest.skip(f"packages of npm can't be kept here: {error}")
    assert _sha512(archive) == sha512, f"{name} {version} is not what it was"
    return archive


def _fetch(package: str, archive: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm here")
    with tempfile.TemporaryDirectory(dir=archive.parent) as directory:
        command = [npm, "pack", package, "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
        try:
            ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not get {package} within {SECONDS} s")
        got = list(Path(directory).glob("*.tgz"))
        if ran.returncode or not got:
            pytest.skip(f"npm can't get {package}: {' '.join(ran.stderr.split())[:300]}")
        got[0].replace(archive)


def _sha512(archive: Path) -> str:
    return base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
