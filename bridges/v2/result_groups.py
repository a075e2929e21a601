"""The results of an ORU^R01: each OBR with what belongs to it, segments in their order, whatever the grammar says."""

from dataclasses import dataclass, field

from bridges.v2.message import Message, Segment
from bridges.v2.refused import no_segment

# DICOM codes of a Study Instance UID as an observation: the study (RAD-28, RAD-128), and the attribute's own.
STUDY_UID = frozenset({"113014", "110180"})


@dataclass(slots=True)
class Line:
    """An OBX with the notes below it."""

    obx: Segment
    notes: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class ResultGroup:
    """An OBR with its ORC, the patient it is for, and its OBX and NTE; `also` are further OBR that the same report is of."""

    obr: Segment
    pid: Segment | None = None
    orc: Segment | None = None
    study: Segment | None = None
    notes: list[Segment] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    also: list["ResultGroup"] = field(default_factory=list)

    @property
    def status(self) -> str:
        """OBR-25 as it came."""
        return self.obr.field(25).strip().upper()

    @property
    def has_content(self) -> bool:
        """Whether there is anything but the study."""
        return bool(self.notes) or any(not is_study_uid(line.obx) for line in self.lines)

    @property
    def content(self) -> tuple[tuple[str, ...], ...]:
        """What is reported, without numbering: two OBR that agree in it have one report."""
        told = tuple(
            (line.obx.raw(2), line.obx.raw(3), line.obx.raw(5), line.obx.raw(6), *(n.raw(3) for n in line.notes))
            for line in self.lines
            if not is_study_uid(line.obx)
        )
        return (*told, *(("NTE", n.raw(3)) for n in self.notes))

    @property
    def groups(self) -> list["ResultGroup"]:
        """This one, and those that have the same report."""
        return [self, *self.also]


def is_study_uid(obx: Segment) -> bool:
    """Whether an OBX names the study."""
    return obx.field(3).strip() in STUDY_UID


def result_groups(message: Message) -> list[ResultGroup]:
    """The reports of a message: OBR with the same content, or without any beside one that has some, are one report."""
    return _joined(_groups(message))


def _groups(message: Message) -> list[ResultGroup]:
    groups: list[ResultGroup] = []
    pid: Segment | None = None
    orc: Segment | None = None
    early: list[Line] = []  # OBX before the first OBR
    for segment in message.segments:
        if segment.name == "PID":
            pid, orc = segment, None
        elif segment.name == "ORC":
            orc = segment
        elif segment.name == "OBR":
            groups.append(ResultGroup(segment, pid, orc, lines=early))
            early, orc = [], None
        elif segment.name == "OBX":
            (groups[-1].lines if groups else early).append(Line(segment))
        elif segment.name == "NTE" and groups:
            group = groups[-1]
            (group.lines[-1].notes if group.lines else group.notes).append(segment)
        elif segment.name == "ZDS" and groups:
            groups[-1].study = segment
    if not groups:
        raise no_segment("OBR", "what is reported (OBR)")
    return groups


def _joined(groups: list[ResultGroup]) -> list[ResultGroup]:
    joined: list[ResultGroup] = []
    for group in groups:
        same = _first([o for o in joined if o.has_content and o.content == group.content], group)
        if same is not None:
            same.also.append(group)
        else:
            joined.append(group)
    reports = [g for g in joined if g.has_content]
    for group in (g for g in joined if not g.has_content):
        # The text that follows its OBR; an OBR at the end goes with the text before it.
        after = _first([o for o in reports if o.obr.number > group.obr.number], group)
        owner = after or _first(reports[::-1], group)
        if owner is not None:
            owner.also.append(group)
        else:
            reports.append(group)
    return sorted(reports, key=lambda g: g.obr.number)


def _first(among: list[ResultGroup], group: ResultGroup) -> ResultGroup | None:
    """The first report of the same patient in the same status."""
    return next((o for o in among if o.pid is group.pid and o.status == group.status), None)
