"""Text as a plain PDF: lines in two weights, on as many A4 pages as they take. The same lines give the same bytes."""

import io
from collections.abc import Iterable
from typing import Any, Final

from resources.letters import plain

_FONTS: Final = {False: "Helvetica", True: "Helvetica-Bold"}
_CODEC: Final = "cp1252"  # what the standard fonts of PDF have (ISO 32000-1 annex D, WinAnsiEncoding)
_SIZE, _LEADING, _MARGIN = 10, 14, 56  # points


def pdf(title: str, lines: Iterable[tuple[bool, str]]) -> bytes:
    """The PDF of these lines: (whether it is bold, its text). Letters that its fonts lack are written with others."""
    # It takes a tenth of a second, and few need it.
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.utils import simpleSplit
    from reportlab.pdfgen.canvas import Canvas

    width, height = A4
    into = io.BytesIO()
    canvas = Canvas(into, pagesize=A4, pageCompression=1, invariant=1)
    canvas.setTitle(plain(title, _CODEC))
    y, page = height - _MARGIN, 1
    for bold, text in lines:
        font = _FONTS[bold]
        for line in simpleSplit(plain(text.expandtabs(4), _CODEC), font, _SIZE, width - 2 * _MARGIN) or [""]:
            if y < _MARGIN + _LEADING:
                _end_page(canvas, page)
                y, page = height - _MARGIN, page + 1
            canvas.setFont(font, _SIZE)
            canvas.drawString(_MARGIN, y, line)
            y -= _LEADING
    _end_page(canvas, page)
    canvas.save()
    return into.getvalue()


def _end_page(canvas: Any, page: int) -> None:
    canvas.setFont(_FONTS[False], 8)
    canvas.drawString(_MARGIN, _MARGIN / 2, f"page {page}")
    canvas.showPage()
