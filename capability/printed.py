"""The parts of documents that are printed from what the program runs."""


def replaced(document: str, begin: str, text: str, end: str) -> str:
    """The document with `text` between its lines `begin` and `end`. ValueError when it has no place for it."""
    before, begins, rest = document.partition(begin)
    _, ends, after = rest.partition(end)
    if not begins or not ends:
        raise ValueError("the document has no place for what is printed")
    return f"{before}{begin}\n{text}\n{end}{after}"
