"""What is known of a patient already, found again by keys: a message has many things to say, and each is looked up at once."""

from collections.abc import Callable, Hashable, Iterable, Iterator

from fhir_server.elements import codings
from fhir_server.registry import Resource

Keys = Callable[[Resource], Iterable[Hashable]]


class Known:
    """Resources of one type. `kept`: the keys that one is found by; `wanted`: those by which to look for what is the same."""

    def __init__(self, resources: Iterable[Resource], kept: Keys, wanted: Keys | None = None) -> None:
        self._kept, self._wanted = kept, wanted or kept
        self._by_id: dict[str, Resource] = {}
        self._ids: dict[Hashable, str] = {}
        self._places: dict[str, int] = {}
        for resource in resources:
            self.keep(resource)

    def keep(self, resource: Resource) -> None:
        """Know this one too, or its new state."""
        id_ = resource["id"]
        self._by_id[id_] = resource
        self._places.setdefault(id_, len(self._places))
        for key in self._kept(resource):
            self._ids.setdefault(key, id_)

    def same(self, said: Resource) -> Resource | None:
        """The one that is the same as what is said now, the first known where several are."""
        found = {self._ids[key] for key in self._wanted(said) if key in self._ids}
        return self._by_id[min(found, key=self._places.__getitem__)] if found else None


def concept_kept(concept: Resource | None) -> Iterator[tuple[str, ...]]:
    """The keys of a concept: its codes and its text; whether it has codes tells what its text is worth."""
    coded = list(_codes(concept))
    yield from coded
    if text := _text(concept):
        yield ("text", text)
        if not coded:
            yield ("bare", text)


def concept_wanted(concept: Resource | None) -> Iterator[tuple[str, ...]]:
    """Two concepts are the same by a common code; where one has no codes, by the text."""
    coded = list(_codes(concept))
    yield from coded
    if text := _text(concept):
        yield ("bare" if coded else "text", text)


def _codes(concept: Resource | None) -> Iterator[tuple[str, ...]]:
    for coding in codings(concept):
        yield ("code", str(coding.get("system")), str(coding.get("code")))


def _text(concept: Resource | None) -> str:
    return str((concept or {}).get("text", "")).casefold()
