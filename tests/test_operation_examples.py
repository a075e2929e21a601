"""docs/operations.md has every operation that is registered, and its examples work as they stand there."""

import importlib
import json
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import operation_setups
from tests.fhir_app import FhirApp
from tests.operation_setups import Stage
from tests.smart_world import Caller, World

TEXT = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
# Operation name -> its examples, each the lines of a request. One name on several types: `hold of a ServiceRequest`.
EXAMPLES = {
    title: re.findall(r"```http\n(.*?)```", body, re.DOTALL)
    for title, body in re.findall(r"^### \$([\w-]+(?: of an? \w+)?)\n(.*?)(?=^##|\Z)", TEXT, re.DOTALL | re.MULTILINE)
}
AREAS = [
    importlib.import_module(f"tests.operation_setups.{module.name}") for module in pkgutil.iter_modules(operation_setups.__path__)
]


def setup_of(operation: str) -> Callable[[Stage], dict[str, str]]:
    name = re.sub(r"\W+", "_", operation).lower()
    return next((getattr(area, name) for area in AREAS if hasattr(area, name)), lambda _: {})


@pytest.mark.parametrize("operation", EXAMPLES)
def test_the_examples_work(operation: str, app: FhirApp, world: World) -> None:
    assert EXAMPLES[operation]
    stage = Stage(app, world, Caller(app, app.token()))
    with stage.ends:
        names = setup_of(operation)(stage)
        for example in EXAMPLES[operation]:
            request, _, body = re.sub(r"\{([a-z_]+)\}", lambda found: names[found[1]], example).partition("\n\n")
            method, path = request.split()
            answer = stage.caller.send(method, path, json.loads(body) if body.strip() else None)
            assert answer.status_code in {200, 201}, answer.text


def test_every_operation_is_there(app: FhirApp) -> None:
    assert sorted({title.split()[0] for title in EXAMPLES}) == sorted(app.registry.operations)
