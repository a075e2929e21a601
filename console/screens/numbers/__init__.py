"""Numbers: turn-around times, volumes, scanners, backlog; charts and tables of what is in the address bar, CSV beside."""

from datetime import timedelta

from starlette.responses import Response

from console.screen import Door, Screen, shows
from console.screens.numbers import asked as asking
from console.screens.numbers.asked import ONLY, USUAL_SPANS, VIEWS
from console.screens.numbers.views import View
from console.visit import Visit
from fhir_server.elements import codes
from fhir_server.outcome import FhirError
from resources import terms
from resources.device import name as device_name
from smart_auth.pages import security_headers

SCREEN = Screen("numbers", "/numbers", "n", "$figures")


async def show(visit: Visit) -> Response:
    """A view of the figures."""
    asked = asking.read(visit)
    choices = await _choices(visit)
    shown = None
    try:
        shown = View(visit, asked, await asking.figures(visit, asked)).shown()
    except FhirError as error:
        if error.status >= 500:
            raise
        visit.failed(error)
    return visit.page(
        "numbers/index.html",
        asked=asked,
        shown=shown,
        views=VIEWS,
        spans=USUAL_SPANS,
        by=asking.choices(visit, asked.view),
        only={
            name: _with_asked(choices[name], asked.only.get(name))
            for name in ONLY
            if asked.view != "scanners" or name in ("scanner", "location")
        },
        periods=_periods(visit),
    )


async def written(visit: Visit) -> Response:
    """The same as a CSV file."""
    asked = asking.read(visit)
    name = f"{asked.view}-{asked.start}-{asked.end}.csv"
    headers = security_headers() | {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(await asking.csv(visit, asked), media_type="text/csv; charset=utf-8", headers=headers)


async def _choices(visit: Visit) -> dict[str, list[tuple[str, str]]]:
    """What there is to narrow the figures to: (value, text) of each."""
    found = await visit.desk.search("Device", identifier=f"{terms.AE_TITLE}|", _include="Device:location")
    modalities = sorted({c for d in found for c in codes(d.get("type"), terms.DCM)})
    return {
        "modality": [(m, m) for m in modalities],
        "priority": [(p, visit.t.code("priority", p)) for p in terms.PRIORITIES],
        "scanner": sorted(((f"Device/{d['id']}", device_name(d) or d["id"]) for d in found), key=lambda pair: pair[1]),
        "location": sorted(
            ((f"Location/{x['id']}", str(x.get("name", x["id"]))) for x in found.included("Location")), key=lambda pair: pair[1]
        ),
    }


def _with_asked(options: list[tuple[str, str]], value: str | None) -> list[tuple[str, str]]:
    """With what the address narrows to beside them, such as several (`CT,MR`), so that the form keeps it."""
    texts = dict(options)
    if value is None or value in texts:
        return options
    return [*options, (value, ", ".join(texts.get(one.strip(), one) for one in value.split(",")))]


def _periods(visit: Visit) -> list[tuple[str, str, str]]:
    """Usual periods: the name of each, from and to."""
    today = visit.today
    month = today.replace(day=1)
    before = month - timedelta(days=1)
    told = [
        ("week", today - timedelta(days=6), today),
        ("month", today - timedelta(days=29), today),
        ("last-month", before.replace(day=1), before),
        ("quarter", today - timedelta(days=90), today),
        ("year", today.replace(month=1, day=1), today),
    ]
    return [(name, start.isoformat(), end.isoformat()) for name, start, end in told]


DOORS: list[Door] = [shows("/numbers", show), shows("/numbers/figures.csv", written)]
