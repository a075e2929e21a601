"""npm's openid-client in a process of its own, told what to do (tests/openid_client.mjs)."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NODE = shutil.which("node")
PACKAGES = ("openid-client", "oauth4webapi", "jose")


class Refused(Exception):
    """What the client does not put up with, or what the server told it. `about` has code, error, status and so on."""

    def __init__(self, about: dict[str, Any]) -> None:
        super().__init__(str(about))
        self.about = about


class OpenidClient:
    """The app. `discover` comes first; the answers are as the library gives them."""

    def __init__(self, modules: Path) -> None:
        assert NODE
        # Beside its packages, which is where Node looks for them.
        script = shutil.copy(Path(__file__).with_suffix(".mjs"), modules.parent)
        self._process = subprocess.Popen([NODE, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, command: str, **parameters: Any) -> Any:
        """What a command comes to. Raises Refused."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"command": command, **parameters}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "Node ended"
        outcome = json.loads(line)
        if "refused" in outcome:
            raise Refused(outcome["refused"])
        return outcome["answer"]

    def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)


@contextmanager
def openid_client(modules: Path) -> Iterator[OpenidClient]:
    running = OpenidClient(modules)
    try:
        yield running
    finally:
        running.stop()
