"""The generated tables beside this module (script/definitions makes them; the source is named in each)."""

from pathlib import Path
from typing import Any

import orjson


def read(name: str) -> dict[str, Any]:
    """One table as it stands in its file. Callers keep what they make of it; nothing is cached here."""
    table: dict[str, Any] = orjson.loads((Path(__file__).parent / f"{name}.json").read_bytes())
    return table
