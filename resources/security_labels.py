"""Security labels (meta.security): what is made of a labelled resource is labelled alike, or it would tell what that must not."""

from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork


def labels(resource: Resource) -> list[Resource]:
    """The security labels of a resource."""
    found: list[Resource] = resource.get("meta", {}).get("security", [])
    return found


def labelled(made: Resource, source: Resource) -> Resource:
    """`made` with the labels of `source` beside its own."""
    own = labels(made)
    wanted = [label for label in labels(source) if label not in own]
    return made | {"meta": {**made.get("meta", {}), "security": [*own, *wanted]}} if wanted else made


async def pass_on(unit: UnitOfWork, source: Resource, made: list[Resource]) -> None:
    """Labels that were put on later reach what was made before. Taking one off is said of each resource by itself."""
    for resource in made:
        changed = labelled(resource, source)
        if changed is not resource:
            await unit.update(changed)
