"""A headless Chromium, driven over its debugging pipe (Chrome DevTools Protocol): keys are pressed, pages are looked at."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe""".split()
_KEYS = {"Tab": 9, "Enter": 13, " ": 32}


SECONDS = 60  # for a page to become what is waited for, on a slow machine
_LOADED = "performance.getEntriesByType('navigation')[0]?.loadEventEnd > 0"
# Autofocus is given when the page is drawn.
_DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))"


class Refused(AssertionError):
    """The browser does not do what it is asked, such as at a page that it is about to leave."""


class Chromium:
    """One tab."""

    def __init__(self, profile: Path) -> None:
        assert BINARY
        to_read, self._to = os.pipe()
        self._from, from_write = os.pipe()

        def fds() -> None:
            os.dup2(to_read, 3)
            os.dup2(from_write, 4)

        # Pipes at 3 and 4 are what Chromium expects; above them, so that dup2 overwrites none of ours.
        assert min(to_read, from_write) > 4
        self._process = subprocess.Popen(
            [BINARY, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=fds, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(from_write)
        self._answers: dict[int, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self._came = threading.Condition()
        self._last = 0
        threading.Thread(target=self._listen, daemon=True).start()
        target = next(t for t in self._ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._ask("Browser.close")
        self._process.wait(20)
        os.close(self._to)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        return self._ask(method, self._session, **params)

    def open(self, url: str) -> None:
        self._leaving(lambda: self.ask("Page.navigate", url=url))

    def press(self, key: str, *, leaves: bool = False) -> None:
        """A key; `leaves`: another page follows, and is waited for."""
        text = {"Enter": "\r", " ": " "}.get(key)
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": _KEYS[key]}

        def send() -> None:
            self.ask("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
            self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

        if leaves:
            self._leaving(send)
        else:
            send()

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is on the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def awaited(self, expression: str) -> Any:
        """What a promise on the page comes to. Raises AssertionError with what it says when it is rejected."""
        ran = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        failed = ran.get("exceptionDetails", {}).get("exception", {})
        assert "exceptionDetails" not in ran, failed.get("description") or failed.get("value")
        return ran["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until there is a page, wherever redirects and scripts lead, on which this holds; it is loaded and drawn then."""
        deadline = time.monotonic() + SECONDS
        while not self._holds(condition):
            assert time.monotonic() < deadline, f"{condition} does not become true at {self.value('location.href')}"
            time.sleep(0.02)
        self.awaited(_DRAWN)

    def _holds(self, condition: str) -> bool:
        try:
            return bool(self.value(f"{_LOADED} && !!({condition})"))
        except Refused:
            return False

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def complaints(self) -> list[str]:
        """What the browser has logged against pages, such as breaches of their policy."""
        entries = [e["params"]["entry"] for e in self.events if e.get("method") == "Log.entryAdded"]
        return [e["text"] for e in entries if e["source"] in {"security", "violation", "javascript"}]

    def _leaving(self, act: Any) -> None:
        loads = self._loads()
        act()
        deadline = time.monotonic() + 60
        with self._came:
            while self._loads() <= loads:
                assert self._came.wait(deadline - time.monotonic()), "no page came"
        self.awaited(_DRAWN)

    def _loads(self) -> int:
        return sum(e.get("method") == "Page.loadEventFired" for e in self.events)

    def _ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._last += 1
        number = self._last
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 30
        with self._came:
            while number not in self._answers:
                assert self._came.wait(max(0, deadline - time.monotonic())), f"no answer to {method}"
        answer = self._answers.pop(number)
        if "error" in answer:
            raise Refused(answer)
        result: dict[str, Any] = answer["result"]
        return result

    def _listen(self) -> None:
        with os.fdopen(self._from, "rb") as pipe:
            rest = b""
            while part := pipe.read1(1 << 16):
                *messages, rest = (rest + part).split(b"\0")
                with self._came:
                    for message in map(json.loads, messages):
                        if "id" in message:
                            self._answers[message["id"]] = message
                        else:
                            self.events.append(message)
                    self._came.notify_all()


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    browser = Chromium(profile)
    try:
        yield browser
    finally:
        browser.stop()
