"""Text as a plain PDF: lines in two weights, on as many A4 pages as they take. The same lines give the same bytes.

Letters of western Europe are in the standard fonts of PDF, those of China, Japan, Korea and Russia in those that viewers have
(ISO 32000-1 9.7.5.2): no font file is needed. Others are written with near ones; where none is near (Arabic, Hebrew, Thai, the
scripts of India), the document says so at its beginning and at the place.
"""

import functools
import io
import itertools
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from resources.letters import plain

_FONTS: Final = {False: "Helvetica", True: "Helvetica-Bold"}
_CODEC: Final = "cp1252"  # what the standard fonts of PDF have (ISO 32000-1 annex D, WinAnsiEncoding)
# The codec that has the letters of a font's character collection (Adobe-GB1, Japan1, CNS1, Korea1).
_FAR: Final = {"gbk": "STSong-Light", "cp932": "HeiseiMin-W3", "big5": "MSung-Light", "cp949": "HYSMyeongJo-Medium"}
_LOST: Final = "[not shown]"
_NOTICE: Final = f"This PDF lacks some letters, marked {_LOST}: the report itself has them."
_SIZE, _LEADING, _MARGIN = 10, 14, 56  # points


class _Piece(NamedTuple):
    """Letters of one font."""

    font: str
    text: str


def pdf(title: str, lines: Iterable[tuple[bool, str]]) -> bytes:
    """The PDF of these lines: (whether it is bold, its text)."""
    # It takes a tenth of a second, and few need it.
    from reportlab.lib.pagesizes import A4
    from reportlab.pdfgen.canvas import Canvas

    width, height = A4
    into = io.BytesIO()
    canvas = Canvas(into, pagesize=A4, pageCompression=1, invariant=1)
    canvas.setTitle(title)
    said = [(bold, _tidy(line)) for bold, text in lines for line in text.splitlines() or [""]]
    if any(_font(letter) is None for _, text in said for letter in set(text)):
        said.insert(0, (True, _NOTICE))
    y, page = height - _MARGIN, 1
    for bold, text in said:
        for line in _lines(text, _FONTS[bold], width - 2 * _MARGIN):
            if y < _MARGIN + _LEADING:
                _end_page(canvas, page)
                y, page = height - _MARGIN, page + 1
            x: float = _MARGIN
            for piece in line:
                canvas.setFont(piece.font, _SIZE)
                canvas.drawString(x, y, piece.text)
                x += _width(piece)
            y -= _LEADING
    _end_page(canvas, page)
    canvas.save()
    return into.getvalue()


def _end_page(canvas: Any, page: int) -> None:
    canvas.setFont(_FONTS[False], 8)
    canvas.drawString(_MARGIN, _MARGIN / 2, f"page {page}")
    canvas.showPage()


def _tidy(text: str) -> str:
    return unicodedata.normalize("NFC", text.expandtabs(4).rstrip())


@functools.lru_cache(4096)
def _font(letter: str) -> str | None:
    """The far font that a letter needs; "" where the standard ones have it, or what is near enough; None where none has it."""
    half = unicodedata.east_asian_width(letter) == "H"  # whose marks are letters
    if letter == "?" or (plain(letter, _CODEC) != "?" and not half):
        return ""
    for codec, font in _FAR.items():
        try:
            letter.encode(codec)
        except UnicodeEncodeError:
            continue
        return font
    return None


def _lines(text: str, font: str, width: float) -> Iterator[list[_Piece]]:
    """The text in lines that are no wider than this."""
    line: list[_Piece] = []
    left = width
    for word in _words(text, font, width):
        if (wide := sum(map(_width, word))) > left and line:
            yield line
            line, left = [], width
            if word[0].text.isspace():
                continue
        line, left = _joined([*line, *word]), left - wide
    yield line


def _words(text: str, font: str, width: float) -> Iterator[list[_Piece]]:
    """What no line is broken within: words, letters of scripts that have none, those of a word that no line has room for."""
    for kind, letters in itertools.groupby(text, _kind):
        run = "".join(letters)
        word = list(_pieces(run, font))
        if kind == "wide" or sum(map(_width, word)) > width:
            yield from ([_Piece(piece.font, letter)] for piece in word for letter in piece.text)
        elif word:
            yield word


def _kind(letter: str) -> str:
    return "space" if letter == " " else "wide" if unicodedata.east_asian_width(letter) in "WF" else "word"


def _pieces(text: str, font: str) -> Iterator[_Piece]:
    """The text as it is written, by fonts."""
    lost = False
    for far, letters in itertools.groupby(text, _font):
        run = "".join(letters)
        written = plain(run, _CODEC)
        if far:
            _register(far)
            yield _Piece(far, run)
        elif far is None and not lost:
            yield _Piece(font, _LOST)
        elif far == "" and written:
            yield _Piece(font, written)
        lost = far is None or (lost and not written)  # vowel signs between lost letters are nothing by themselves


def _joined(pieces: list[_Piece]) -> list[_Piece]:
    return [_Piece(font, "".join(p.text for p in alike)) for font, alike in itertools.groupby(pieces, lambda p: p.font)]


def _width(piece: _Piece) -> float:
    from reportlab.pdfbase.pdfmetrics import stringWidth

    return float(stringWidth(piece.text, piece.font, _SIZE))


@functools.cache
def _register(font: str) -> None:
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfbase.pdfmetrics import registerFont

    registerFont(UnicodeCIDFont(font))
