"""The fields of a form: from a resource to texts, and from what was typed back into the resource."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from console.forms import Form
from console.screens.administration import elements
from console.screens.administration.kinds import Field, Group, Kind, Section
from fhir_server.outcome import Issue, fail
from fhir_server.registry import Resource

_LONGEST = 18  # digits
_SEVERAL = {"lines": "\n", "words": " "}  # what stands between the values of a field


@dataclass(frozen=True, slots=True)
class Shown:
    """A field of a page: `name` of the input, `text` in it, `stored` where something else is stored, `error` if refused."""

    field: Field
    name: str
    text: str
    stored: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """A group of a page: a row for each element, and an empty one."""

    group: Group
    rows: list[list[Shown]]


def text_of(field: Field, resource: Resource) -> str:
    """What stands in an element, as a person would type it."""
    found = elements.values(resource, field.path)
    if found and _is_in_another_unit(field, resource):
        return ""
    if field.listed:
        found = [str(v) for v in found[0]] if found and isinstance(found[0], list) else []
    if field.how == "flag":
        return "yes" if found and found[0] is True else ""
    if field.how == "boolean":
        return str(found[0]).lower() if found else ""
    if field.how in _SEVERAL:
        return _SEVERAL[field.how].join(str(v) for v in found)
    text = str(found[0]) if found else ""
    return text.removesuffix(":00") if field.how == "time" and text.count(":") == 2 else text


def _is_in_another_unit(field: Field, resource: Resource) -> bool:
    """Whether a quantity is not in what the field's label says: it is left alone until another one is typed."""
    path = field.path.removesuffix(".value")
    wanted = field.beside.get(f"{path}.code")
    said = elements.values(resource, f"{path}.code") or elements.values(resource, f"{path}.unit")
    return wanted is not None and said != [wanted]


def form_of(kind: Kind, resource: Resource, form: Form, issues: list[Issue]) -> list[Shown | Rows | Section]:
    """The fields of a form for a resource; with what was typed where it was refused."""
    found: list[Shown | Rows | Section] = []
    for one in kind.fields:
        if isinstance(one, Section):
            found.append(one)
        else:
            found.append(_rows(one, resource, form) if isinstance(one, Group) else _shown(kind, one, resource, form, issues))
    return found


def _shown(kind: Kind, field: Field, resource: Resource, form: Form, issues: list[Issue]) -> Shown:
    name, stored = field.name, text_of(field, resource)
    if not form.fields:
        return Shown(field, name, stored)
    typed = form.text(name)
    told = [issue.diagnostics for issue in issues if _is_about(kind, field, issue)]
    return Shown(field, name, typed, stored if stored != typed else "", "; ".join(told))


def _is_about(kind: Kind, field: Field, issue: Issue) -> bool:
    """Whether an issue is of a field: by its expression, and of extensions also by what the text says."""
    at = "".join(part.partition("]")[2] or part for part in (issue.expression or "").split("[")).split(".")
    path = [kind.type, *elements.plain(field.path).split(".")]
    where = elements.steps(field.path)[0].where
    if path[1] == "extension":
        return at[:2] == path[:2] and where is not None and where[1] in issue.diagnostics
    return len(at) > 1 and at[: len(path)] == path[: len(at)]


def _rows(group: Group, resource: Resource, form: Form) -> Rows:
    there = _elements(resource, group)
    count = len(there) + 1
    if form.fields:
        count = max(_numbers(group, form), default=-1) + 2
    rows = []
    for n in range(min(count, 100)):
        element = there[n] if n < len(there) else {}
        names = [f"{group.name}.{n}.{field.name}" for field in group.fields]
        texts = [form.text(x) if form.fields else text_of(f, element) for x, f in zip(names, group.fields, strict=True)]
        rows.append([Shown(*one) for one in zip(group.fields, names, texts, strict=True)])
    return Rows(group, rows)


def _numbers(group: Group, form: Form) -> list[int]:
    """The numbers of the rows that a form has."""
    rows = (name.partition(".")[0] for name in form.named(f"{group.name}."))
    return [int(n) for n in dict.fromkeys(rows) if re.fullmatch("[0-9]{1,2}", n)]


def _elements(resource: Resource, group: Group) -> list[Resource]:
    (step,) = elements.steps(group.path)
    return [e for e in resource.get(step.name, ()) if step.where is None or step.chooses(e)]


def applied(kind: Kind, resource: Resource, form: Form) -> Resource:
    """The resource with what was typed; FhirError for what can't be read."""
    changed: Resource = dict(resource)
    for one in kind.fields:
        if isinstance(one, Group):
            _apply_rows(kind, one, changed, form)
        elif isinstance(one, Field):
            _apply(kind, one, changed, form.text(one.name))
    return changed


def _apply(kind: Kind, field: Field, element: Resource, typed: str) -> None:
    before = text_of(field, element)
    if typed == before:
        return
    wanted = _typed(kind, field, typed)
    elements.write(element, field.path, wanted)
    if field.also and [str(v) for v in elements.values(element, field.also)] in ([], [before]):
        elements.write(element, field.also, wanted)
    for path, value in field.beside.items():
        elements.write(element, path, [value] if wanted else [])


def _apply_rows(kind: Kind, group: Group, resource: Resource, form: Form) -> None:
    (step,) = elements.steps(group.path)
    typed: dict[int, Mapping[str, str]] = {}
    for n in _numbers(group, form):
        typed.setdefault(n, form.named(f"{group.name}.{n}."))
    listed: list[Resource] = []
    at = 0
    for element in resource.get(step.name, ()):
        if step.where is not None and not step.chooses(element):
            listed.append(element)
            continue
        if given := typed.pop(at, None):
            listed.append(_row(kind, group, dict(element), given))
        at += 1
    listed += [_row(kind, group, step.made(), given) for _, given in sorted(typed.items())]
    if listed:
        resource[step.name] = listed
    else:
        resource.pop(step.name, None)


def _row(kind: Kind, group: Group, element: Resource, given: Mapping[str, str]) -> Resource:
    for field in group.fields:
        _apply(kind, field, element, given.get(field.name, ""))
    return element


def _typed(kind: Kind, field: Field, text: str) -> list[Any]:
    """The values that were typed. FhirError with the element's path."""
    lines = text.split() if field.how == "words" else [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    if field.how in _SEVERAL:
        return [lines] if field.listed else lines
    if field.how in {"flag", "boolean"}:
        return [text in {"yes", "true"}]
    if field.how in {"integer", "decimal"}:
        return [_number(kind, field, text)]
    return [f"{text}:00"] if field.how == "time" and text.count(":") == 1 else [text]


def _number(kind: Kind, field: Field, text: str) -> int | Decimal:
    try:
        number = Decimal(text.replace(",", "."))
    except InvalidOperation:
        number = Decimal("NaN")
    where = f"{kind.type}.{elements.plain(field.path)}"
    if not number.is_finite() or len(text) > _LONGEST or (field.how == "integer" and number != int(number)):
        raise fail("value", f"{text[:40]!r} is not a {'whole ' if field.how == 'integer' else ''}number", where, status=422)
    return int(number) if field.how == "integer" else number
