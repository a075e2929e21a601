"""docs/operations.md has every operation that is registered, and its examples work as they stand there."""

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.operations.dispatch import available
from fhir_server.registry import Registry
from tests import operation_setups
from tests.fhir_app import FhirApp, load
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


def requests(operation: str, stage: Stage) -> Iterator[tuple[str, str, Any]]:
    """Its examples in their turn, on what it needs: method, path and body."""
    names = setup_of(operation)(stage)
    for example in EXAMPLES[operation]:
        request, _, body = re.sub(r"\{([a-z_]+)\}", lambda found: names[found[1]], example).partition("\n\n")
        method, path = request.split()
        yield method, path, json.loads(body) if body.strip() else None


def changes_one(registry: Registry, path: str) -> bool:
    """Whether it is called on one resource, and changes something."""
    to, _, name = path.partition("?")[0].partition("$")
    kind, _, id_ = to.strip("/").partition("/")
    return bool(id_) and available(registry, kind, id_)[name].affects_state


@pytest.mark.parametrize("operation", EXAMPLES)
def test_the_examples_work(operation: str, app: FhirApp, world: World) -> None:
    assert EXAMPLES[operation]
    stage = Stage(app, world, Caller(app, app.token()))
    with stage.ends:
        for method, path, body in requests(operation, stage):
            answer = stage.caller.send(method, path, body)
            assert answer.status_code in {200, 201}, answer.text


# It ends a look into the record, which has no version of its own, and leaves the Patient as it is.
UNVERSIONED = {"mend-glass"}


@pytest.mark.parametrize("operation", [name for name in EXAMPLES if name not in UNVERSIONED])
def test_what_changes_one_resource_heeds_if_match(operation: str, app: FhirApp, world: World) -> None:
    stage = Stage(app, world, Caller(app, app.token()))
    with stage.ends:
        for method, path, body in requests(operation, stage):
            if changes_one(app.registry, path):
                answer = stage.caller.send(method, path, body, if_match='W/"77"')
                assert answer.status_code == 412, answer.text
                version = load(stage.caller.get(path.rpartition("/")[0]))["meta"]["versionId"]
                assert f"is at version {version}; If-Match asks for version 77" in answer.text


def test_every_operation_that_changes_one_resource_has_such_an_example(app: FhirApp) -> None:
    changing = {
        name
        for name, operations in app.registry.operations.items()
        if any(operation.affects_state and "instance" in operation.levels for operation in operations)
    }
    shown = {
        name for of in EXAMPLES.values() for name in re.findall(r"^POST \w+/[^/\s]+/\$([\w-]+)", "\n".join(of), re.MULTILINE)
    }
    assert changing <= shown


def test_every_operation_is_there(app: FhirApp) -> None:
    assert sorted({title.split()[0] for title in EXAMPLES}) == sorted(app.registry.operations)
