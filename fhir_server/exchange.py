"""An interaction as it is asked for and as it is answered, be it by HTTP or in an entry of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from fhir_server.addresses import Address
from fhir_server.audit import Act
from fhir_server.outcome import Issue, fail, operation_outcome
from fhir_server.registry import Resource
from fhir_server.subset import check_elements, elements_named, subset
from smart_auth.access import Access

Parameters = list[tuple[str, str]]
# What becomes of a resource by a patch.
Patch = Callable[[Resource], Resource]

_RETURNS = ("minimal", "representation", "OperationOutcome")
_SUMMARIES = ("true", "text", "data", "false")


_PRESENTATION = frozenset({"_format", "_pretty"})


def meant(parameters: Parameters) -> Parameters:
    """The parameters of an address without those that only say how the answer is to be written."""
    return [(name, value) for name, value in parameters if name not in _PRESENTATION]


@dataclass(frozen=True, slots=True)
class Prefer:
    """The `Prefer` header (RFC 7240; FHIR R4 3.1.0.1.8, 3.1.1.3). `returns` is "" when nothing is said of it."""

    returns: str = ""
    lenient: bool = False

    @classmethod
    def of(cls, header: str) -> "Prefer":
        returns, lenient = "", False
        for part in header.replace(";", ",").split(","):
            name, _, value = part.partition("=")
            name, value = name.strip().lower(), value.strip().strip('"')  # names have no case (RFC 7240 2)
            if name == "return" and value in _RETURNS:
                returns = value
            elif name == "handling":
                lenient = value == "lenient"
        return cls(returns, lenient)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold for an interaction to be done: the headers of these names, or the elements of an entry's request."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_none_exist: str | None = None

    def seen(self, resource: Resource) -> bool:
        """Whether the caller has this version already; If-None-Match is judged alone when both are there (RFC 9110 13.1.3)."""
        if self.if_none_match is not None:
            tags = {tag.strip().removeprefix("W/").strip('"') for tag in self.if_none_match.split(",")}
            return "*" in tags or resource["meta"]["versionId"] in tags
        since = _moment(self.if_modified_since)
        if since is None:
            return False
        updated = datetime.fromisoformat(resource["meta"]["lastUpdated"])
        # An HTTP date has whole seconds.
        return (updated if since.microsecond else updated.replace(microsecond=0)) <= since

    def only_new(self) -> bool:
        """Whether a write is to be done only if there is nothing yet (If-None-Match: *)."""
        if self.if_none_match is None:
            return False
        if self.if_none_match.strip() != "*":
            raise fail("not-supported", "If-None-Match on an update is *: only if there is no such resource yet")
        return True


@dataclass(slots=True)
class Ask(ABC):
    """One interaction as it is asked for. The body is fetched when the interaction wants it, in the form that it wants.

    `method` is GET for a HEAD too; `query` holds the parameters of the address, but for those of its presentation.
    """

    method: str
    address: Address
    query: Parameters
    access: Access
    conditions: Conditions = field(default_factory=Conditions)
    prefer: Prefer = field(default_factory=Prefer)
    peer: str | None = None

    @abstractmethod
    async def resource(self) -> Resource:
        """The resource that is sent, references to ourselves made relative. FhirError when there is none."""

    @abstractmethod
    async def bundle(self) -> Resource:
        """The Bundle that is sent, its references as they are."""

    @abstractmethod
    async def parameters(self) -> Resource | None:
        """What is sent to an operation; None for nothing."""

    @abstractmethod
    async def patch(self) -> Patch:
        """The patch that is sent."""

    @abstractmethod
    async def form(self) -> Parameters:
        """The parameters of a search that is posted."""

    def act(self, event: str, query: str | None = None) -> Act:
        """For the audit trail."""
        return Act(event, peer=self.peer, query=query)

    def refuse_parameters(self) -> None:
        """An interaction that takes no parameters is refused when it has some, unless the caller wants leniency."""
        if self.query and not self.prefer.lenient:
            raise fail("invalid", f"this interaction has no parameter {self.query[0][0][:64]!r}", status=400)

    def written(self, stored: Resource, *, created: bool = False, located: bool = False, unseen: bool = False) -> "Reply":
        """The answer to a write, as `Prefer` wants it (FHIR R4 3.1.0.1.8).

        `located`: the address did not say which resource it would be; `unseen`: the caller has not sent what is stored, so that
        only who may read is shown it.
        """
        reply = Reply(201 if created else 200, stored=stored, located=located or created)
        wanted = self.prefer.returns
        if wanted:
            reply.headers["Preference-Applied"] = f"return={wanted}"
        if wanted == "OperationOutcome":
            reply.resource = operation_outcome(Issue("informational", "done", severity="information"))
        elif wanted != "minimal" and self._may_show(stored, unseen=unseen):
            reply.resource = stored
        return reply

    def _may_show(self, stored: Resource, *, unseen: bool) -> bool:
        if self.access.restricted:
            return self.access.covers(stored, "r")
        return not unseen or self.access.allows(stored["resourceType"], "r")


@dataclass(slots=True)
class Reply:
    """The answer to an interaction.

    `resource` is what is shown; `stored` the version that the answer is about, shown or not, from which ETag and Last-Modified
    come; `located`: the caller is told its address; `native`: of a Binary, the content is sent as it is (FHIR R4 2.36).
    """

    status: int = 200
    resource: Resource | None = None
    stored: Resource | None = None
    located: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    native: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """How much of each resource is shown (`_summary`, `_elements`: FHIR R4 3.1.1.5.8, 3.1.1.5.9)."""

    summary: str | None = None
    elements: tuple[str, ...] = ()

    def show(self, resource: Resource) -> Resource:
        return subset(resource, self.summary, self.elements) if self.summary or self.elements else resource


WHOLE = View()


def view(parameters: Parameters, resource_type: str | None = None, *, lenient: bool = False) -> View:
    """The view that a read (of this type, if one) asks for; FhirError (400) for any other parameter, unless `lenient`."""
    if not parameters:
        return WHOLE
    summary: str | None = None
    elements: tuple[str, ...] = ()
    for name, value in parameters:
        if name == "_summary":
            summary = summary_of(value)
        elif name == "_elements":
            elements = elements_named(value)
            if resource_type is not None:
                check_elements(resource_type, elements)
        elif not lenient:
            raise fail("invalid", f"a read has no parameter {name[:64]!r}; it has: _summary, _elements", status=400)
    return View(summary, elements)


def summary_of(value: str) -> str | None:
    """`_summary` of what shows resources; None for all of them."""
    if value not in _SUMMARIES:
        raise fail("invalid", f"_summary is one of {', '.join(_SUMMARIES)} here", status=400)
    return None if value == "false" else value


def etag(value: object) -> str | None:
    """The version in an If-Match such as W/"3". FhirError when there is something else."""
    if value is None:
        return None
    text = str(value).strip()
    tag = text.removeprefix("W/")
    if len(tag) < 3 or tag[0] != '"' or tag[-1] != '"' or '"' in tag[1:-1]:
        raise fail("value", f'{text[:64]} is not an ETag such as W/"3"')
    return tag[1:-1]


def _moment(text: str | None) -> datetime | None:
    """An HTTP date, or a FHIR instant as in a Bundle; None for what is neither, which is to be ignored (RFC 9110 13.1.3)."""
    if text is None:
        return None
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = read(text.strip())
        except ValueError:
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None
