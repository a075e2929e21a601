"""An app that is nothing but two pages and a script, npm's fhirclient, at an origin and a site of its own."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_PAGE = '<!doctype html><html lang="en"><meta charset="utf-8"><title>App</title><link rel="icon" href="data:,">'
_WITH_SCRIPT = f'{_PAGE}<script src="/fhir-client.js"></script><script>'


class ScriptApp:
    """`settings` are what its pages give to `FHIR.oauth2.authorize`, `options` the library's own (`FHIR.oauth2.settings`).

    Its page leaves what came of the launch as `client` or `problem`, for who looks at it.
    """

    def __init__(self, script: bytes) -> None:
        self.settings: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = outer._pages(script).get(urlsplit(self.path).path)
                self.send_response(200 if answer else 404)
                kind, body = answer or ("text/plain", b"not here")
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://localhost:{self._server.server_address[1]}"
        self.launch_uri, self.redirect_uri, self.empty = (f"{self.origin}/{name}" for name in ("launch", "app", "empty"))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _pages(self, script: bytes) -> dict[str, tuple[str, bytes]]:
        options = f"Object.assign(FHIR.oauth2.settings, {json.dumps(self.options)});"
        launch = f"{options} FHIR.oauth2.authorize({json.dumps(self.settings)}).catch(e => {{ problem = e.message }})"
        ready = f"{options} FHIR.oauth2.ready().then(c => {{ client = c }}, e => {{ problem = e.message }})"
        begin = f"{_WITH_SCRIPT}let client = null, problem = null; "
        return {
            "/launch": ("text/html", f"{begin}{launch}</script>".encode()),
            "/app": ("text/html", f"{begin}{ready}</script>".encode()),
            "/empty": ("text/html", _PAGE.encode()),
            "/fhir-client.js": ("text/javascript", script),
        }


@contextmanager
def script_app(modules: Path) -> Iterator[ScriptApp]:
    """With the build for browsers among these packages (tests/npm.py)."""
    running = ScriptApp((modules / "fhirclient" / "build" / "fhir-client.js").read_bytes())
    try:
        yield running
    finally:
        running.stop()
