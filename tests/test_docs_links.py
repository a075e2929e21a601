"""What the documentation links to is there: files, pictures, and headings."""

import re
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_PAGES = sorted([*_ROOT.glob("*.md"), *(_ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)


def _prose(page: Path) -> str:
    """The text without code, in which brackets mean something else."""
    text = re.sub(r"^(```|~~~).*?^\1", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^(?: {4}|\t).*$", "", text, flags=re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """What headings are linked by, as GitHub makes it of them; and ids."""
    found: dict[str, int] = {}
    anchors: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", _prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        anchors.add(f"{name}-{found[name]}" if name in found else name)
        found[name] = found.get(name, 0) + 1
    return anchors | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", page.read_text("utf-8")))


def _links(page: Path) -> Iterator[str]:
    prose = re.sub(r"`[^`\n]*`", lambda code: "x" * len(code[0]), _prose(page))
    for match in _LINK.finditer(prose):
        to = match[1] or match[2]
        if not re.match(r"[a-z][a-z0-9+.-]*:", to):
            yield to


def _is_there(page: Path, to: str) -> bool:
    path, _, anchor = to.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(_ROOT):
        return False
    return not anchor or (target.suffix == ".md" and anchor in _anchors(target))


def test_every_relative_link_leads_somewhere() -> None:
    links = [(page, to) for page in _PAGES for to in _links(page)]
    assert len(links) > 100
    assert [f"{page.relative_to(_ROOT)}: {to}" for page, to in links if not _is_there(page, to)] == []
