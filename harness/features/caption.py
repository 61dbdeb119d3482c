"""Captions as files really hold them: what is mended, and what is refused by name.

Mended: white space of any kind (line breaks, tabs, U+2028) becomes single spaces, and of a list of captions the first
counts. Refused: no text at all, text that is no Unicode (a lone surrogate), a NUL, and texts that no encoder reads.
"""

from pathlib import Path

LONGEST = 10_000
"""Characters. Text encoders read a few hundred at most; what is longer is a slip of whoever wrote the list."""


class NoCaption(ValueError):
    """Why something is no caption; the message follows the image's name."""


def caption(value: object) -> str:
    """One caption of whatever a list holds."""
    if isinstance(value, list | tuple) and value:
        value = value[0]
    if not isinstance(value, str):
        raise NoCaption(f"has {_kind(value)} where its caption should be")
    text = " ".join(value.split())
    if not text:
        raise NoCaption("has an empty caption")
    if len(text) > LONGEST:
        raise NoCaption(f"has a caption of {len(text)} characters, of which no encoder reads more than a few hundred")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise NoCaption("has a caption that is no text (a NUL or half of a surrogate pair)")
    return text


def _kind(value: object) -> str:
    if value is None or value == [] or value != value:
        return "nothing"
    return "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"


def text_of(path: Path) -> str:
    """A text file in UTF-8, with or without a byte-order mark; ValueError says where it is none, and what helps."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"is not UTF-8 (byte 0x{data[error.start]:02x} in line {line}): "
            "convert it, for example by iconv -f latin1 -t utf-8"
        ) from error
