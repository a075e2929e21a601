"""The department's own resources, a kind at a time (`kinds.py`): the list, a form, and the resource as it is, in JSON."""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.responses import Response

from console.asking import Found
from console.formats import human_name
from console.screen import Door, does, shows
from console.screens.administration import fields, json_text
from console.screens.administration.kinds import Field, Group, Kind, Section
from console.visit import Visit
from fhir_server import fhir_json
from fhir_server.elements import duplicate
from fhir_server.outcome import Issue, fail
from fhir_server.registry import Resource

_PAGE = "100"
_MOST_CHOICES = "500"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the list: a text for each column."""

    id: str
    texts: list[str]


def label(resource: Resource) -> str:
    """What a resource is called in a list."""
    if resource["resourceType"] in {"Practitioner", "Patient"}:
        return human_name(resource)
    named = [n.get("name") for n in resource.get("deviceName", ())]
    told = [*named, resource.get("title"), resource.get("name"), *(a.get("display") for a in resource.get("actor", ()))]
    return next((str(text) for text in told if isinstance(text, str) and text), str(resource["id"]))


async def labels(visit: Visit, references: Iterable[str]) -> dict[str, str]:
    """What the resources are called that are referred to so (`Device/ct1`): one search a type."""
    by_type: dict[str, list[str]] = {}
    for reference in dict.fromkeys(references):
        type_, _, id_ = reference.partition("/")
        if id_ and "/" not in id_ and visit.allows(type_, "s"):
            by_type.setdefault(type_, []).append(id_)
    found = await visit.desk.together(*(visit.desk.search(t, _id=",".join(ids)) for t, ids in by_type.items()))
    return {f"{r['resourceType']}/{r['id']}": label(r) for some in found for r in some}


class Things:
    """The pages of one kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.path = f"/administration/{kind.name}"
        self._publishes = any(isinstance(f, Field) and "retired" in f.choices for f in kind.fields)

    def doors(self) -> list[Door]:
        """Their addresses."""
        of, reads = self.kind.type, f"{self.kind.type}.s"
        found = [shows(self.path, self.index, reads)]
        if self.kind.fields:
            found += [
                shows(f"{self.path}/new", self.form, f"{of}.c"),
                does(f"{self.path}/new", self.save, self.form, f"{of}.c"),
                shows(f"{self.path}/new/json", self.raw, f"{of}.c"),
                does(f"{self.path}/new/json", self.save_raw, self.raw, f"{of}.c"),
                does(f"{self.path}/{{id}}", self.save, self.form, f"{of}.u"),
                does(f"{self.path}/{{id}}/json", self.save_raw, self.raw, f"{of}.u"),
                does(f"{self.path}/{{id}}/delete", self.delete, self.form, f"{of}.d"),
                shows(f"{self.path}/{{id}}", self.form, reads),
            ]
        if self._publishes:
            found.append(does(f"{self.path}/{{id}}/retire", self.retire, self.form, f"{of}.u"))
        if self.kind.type == "Schedule":
            found.append(does(f"{self.path}/{{id}}/slots", self.slots, self.form, "$generate-slots"))
        return [*found, shows(f"{self.path}/{{id}}/json", self.raw, reads)]

    # The list

    async def index(self, visit: Visit) -> Response:
        """A page of the list."""
        if at := visit.asked("page"):
            found = await visit.desk.page(self.kind.type, at)
        else:
            asked = [(self.kind.find, visit.asked("q"))] if self.kind.find and visit.asked("q") else []
            found = await visit.desk.search(self.kind.type, *asked, _sort=self.kind.sort or None, _count=_PAGE)
        return visit.page(
            "administration/things.html", kind=self.kind, path=self.path, rows=await self._rows(visit, found), next=found.next
        )

    async def _rows(self, visit: Visit, found: Found) -> list[Row]:
        texts = [[fields.text_of(column, resource) for column in self.kind.columns] for resource in found]
        references = [i for i, column in enumerate(self.kind.columns) if column.how == "reference"]
        called = await labels(visit, (row[i] for row in texts for i in references if row[i]))
        for row in texts:
            for i in references:
                row[i] = called.get(row[i], row[i])
        return [Row(resource["id"], row) for resource, row in zip(found, texts, strict=True)]

    # The form

    async def form(self, visit: Visit) -> Response:
        """A new one, or one that is there."""
        resource = await self._resource(visit)
        title = label(resource) if "id" in resource else ""
        first = self.kind.columns[0]
        if title and first.how == "reference":  # it is called as what it is of
            to = fields.text_of(first, resource)
            title = (await labels(visit, [to])).get(to, title)
        return visit.page(
            "administration/thing.html",
            kind=self.kind,
            path=self.path,
            resource=resource,
            title=title,
            inputs=fields.form_of(self.kind, resource, visit.form, visit.errors),
            choices=await self._choices(visit),
            retires=self._publishes and resource.get("status") == "active",
        )

    async def _resource(self, visit: Visit) -> Resource:
        if "id" not in visit.request.path_params:
            return {"resourceType": self.kind.type, **self.kind.begin}
        return await visit.desk.read(f"{self.kind.type}/{visit.id()}")

    async def _choices(self, visit: Visit) -> dict[str, list[tuple[str, str]]]:
        """What fields can refer to: by field."""
        flat = [f for one in self.kind.fields for f in _fields_of(one) if f.to]
        types = sorted({t for field in flat for t in field.to})
        found = await visit.desk.together(*(visit.desk.search(t, _count=_MOST_CHOICES) for t in types))
        listed = {
            type_: sorted(((f"{type_}/{r['id']}", label(r)) for r in some), key=lambda pair: pair[1].lower())
            for type_, some in zip(types, found, strict=True)
        }
        return {field.name: [pair for t in field.to for pair in listed[t]] for field in flat}

    async def save(self, visit: Visit) -> Response:
        """Write what was typed."""
        resource = await self._resource(visit)
        self._check_version(visit, resource)
        changed = fields.applied(self.kind, duplicate(resource), visit.form)
        stored = await (visit.desk.update(changed) if "id" in changed else visit.desk.create(changed))
        return visit.to(f"{self.path}/{stored['id']}", "administration-saved")

    def _check_version(self, visit: Visit, resource: Resource) -> None:
        now = resource.get("meta", {})
        if now.get("versionId", "") != visit.form.text("version"):
            at = str(now.get("lastUpdated", ""))[:16].replace("T", " ")
            raise fail("conflict", visit.t("administration.somebody-else", at=at))

    async def delete(self, visit: Visit) -> Response:
        """Take it away, if nothing refers to it."""
        await visit.desk.delete(f"{self.kind.type}/{visit.id()}", visit.form.get("version"))
        return visit.to(self.path, "administration-deleted")

    async def retire(self, visit: Visit) -> Response:
        """It is not used any more."""
        retired = {"op": "replace", "path": "/status", "value": "retired"}
        await visit.desk.patch(f"{self.kind.type}/{visit.id()}", retired, if_match=visit.form.get("version"))
        return visit.to(f"{self.path}/{visit.id()}", "administration-retired")

    async def slots(self, visit: Visit) -> Response:
        """Bring a Schedule's slots to where its hours say."""
        await visit.desk.operation(f"Schedule/{visit.id()}/$generate-slots")
        return visit.to(f"{self.path}/{visit.id()}", "administration-slots")

    # In JSON

    async def raw(self, visit: Visit) -> Response:
        """The resource as it is, to be read, or to be changed by who knows how."""
        resource = await self._resource(visit)
        stored = fhir_json.dumps(resource, pretty=True).decode()
        text, problems = json_text.shown(visit.form.get("json") or stored, visit.errors)
        return visit.page(
            "administration/json.html",
            kind=self.kind,
            path=self.path,
            resource=resource,
            text=text,
            problems=problems,
            good=bool(visit.form.get("check")) and not visit.errors,
            editable=bool(self.kind.fields),
        )

    async def save_raw(self, visit: Visit) -> Response:
        """Write what was typed as it is, or only look whether it could be written."""
        typed = fhir_json.loads(visit.form.text("json"))
        resource = await self._resource(visit)
        if typed.get("resourceType") != self.kind.type:
            raise fail("value", visit.t("administration.another-type", type=self.kind.type), "resourceType", status=422)
        if typed.get("id") != resource.get("id") and "id" in resource:
            raise fail("value", visit.t("administration.another-id", id=resource["id"]), f"{self.kind.type}.id", status=422)
        if visit.form.get("check"):
            # Of a new one, what it would be: at an id that isn't there yet there is nothing to be compared with.
            await self._validate(visit, typed if "id" in resource else {k: v for k, v in typed.items() if k != "id"})
            return await self.raw(visit)
        self._check_version(visit, resource)
        if "id" in resource:
            reply = await visit.desk.ask("PUT", f"{self.kind.type}/{typed['id']}", typed, if_match=resource["meta"]["versionId"])
            assert reply.resource is not None
            stored = reply.resource
        else:  # at an id of its own choice nobody may create who doesn't see all of a type
            stored = await visit.desk.create({k: v for k, v in typed.items() if k != "id"})
        return visit.to(f"{self.path}/{stored['id']}/json", "administration-saved")

    async def _validate(self, visit: Visit, typed: Resource) -> None:
        outcome = (await visit.desk.ask("POST", f"{self.kind.type}/$validate", typed)).resource or {}
        visit.errors = [
            Issue(i["code"], i.get("diagnostics", ""), next(iter(i.get("expression", ())), None))
            for i in outcome.get("issue", ())
            if i["severity"] in {"error", "fatal"}
        ]


def _fields_of(one: Field | Group | Section) -> tuple[Field, ...]:
    return one.fields if isinstance(one, Group) else (one,) if isinstance(one, Field) else ()
