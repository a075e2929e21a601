"""How figures are written: minutes, percent, and the values of dimensions, in the reader's language."""

from datetime import date

from babel import dates, numbers, units

from console.texts import Texts
from console.visit import Visit


class Words:
    """`names` are those of scanners and places, by reference."""

    def __init__(self, visit: Visit, names: dict[str, str]) -> None:
        self._t: Texts = visit.t
        self._names = names

    def minutes(self, value: float | None) -> str:
        """Minutes to two hours, hours to two days, then days."""
        if value is None:
            return "–"
        size, unit, digits = (value / 1440, "day", 1) if abs(value) >= 2880 else (value / 60, "hour", 1)
        if (abs(value) < 120 and value % 60) or not value:
            size, unit, digits = value, "minute", 0
        shown = round(size, digits)
        return units.format_unit(int(shown) if shown == int(shown) else shown, f"duration-{unit}", "short", locale=self._t.locale)

    def number(self, value: float | None) -> str:
        return "–" if value is None else numbers.format_decimal(value, "#,##0", locale=self._t.locale)

    def percent(self, value: float | None) -> str:
        return "–" if value is None else numbers.format_percent(value / 100, "#,##0 %", locale=self._t.locale)

    def value(self, dimension: str, value: str) -> str:
        """A value of a dimension."""
        if value == "unknown":
            return self._t("numbers.unknown")
        locale = self._t.locale
        if dimension == "priority":
            return self._t.code("priority", value)
        if dimension == "weekday":
            return str(locale.days["format"]["abbreviated"][int(value) - 1])
        if dimension == "hour":
            return f"{value}:00"
        if dimension == "day":
            return dates.format_skeleton("MMMd", date.fromisoformat(value), locale=locale)
        if dimension == "week":
            return self._t("numbers.week", n=int(value.partition("-W")[2]))
        if dimension == "month":
            return dates.format_skeleton("yMMM", date.fromisoformat(f"{value}-01"), locale=locale)
        if dimension == "age":
            return self._t.code("numbers.age", value.replace(" ", "-"))
        return self._names.get(value, value.partition("|")[2] if "|" in value else value)
