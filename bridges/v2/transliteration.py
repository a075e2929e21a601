"""Writing a message for receivers whose character set lacks letters (`resources/letters.py`)."""

from collections.abc import Iterable

from bridges.v2.charset import DEFAULT, codec_of
from bridges.v2.message import Seg
from resources.letters import Written, transliterated


def write(segments: Iterable[Seg], charset: str) -> Written:
    """The message of these segments in a character set named as in MSH-18. ValueError when it is unknown."""
    codec = codec_of(charset)
    if codec is None:
        raise ValueError(f"unknown character set: {charset}")
    text = "".join(segment.written(DEFAULT) + "\r" for segment in segments)
    try:
        return Written(text.encode(codec))
    except UnicodeEncodeError:
        return transliterated(text, codec, "\\S\\")
