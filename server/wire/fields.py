"""Where the top-level fields of a message lie in its bytes, so that a large one needs no parse as a whole.

protobuf parses with the interpreter's lock held: a batch of 10,000 for many milliseconds, in which the event loop
waits, whatever thread parses. A message that is taken apart here is parsed piece by piece.

1. What is found is what protobuf finds. Whatever is unusual (groups, overlong numbers, bytes that end too early, a
   great many fields) is not judged here: None, and protobuf is asked for the whole.
2. The pieces are not looked into; whoever reads one parses it.
"""

from __future__ import annotations

from typing import NamedTuple

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5

# more than any request within the limits has; protobuf itself is the quicker to refuse the others
_MOST_FIELDS = 50_000


class Field(NamedTuple):
    """One field: its tag begins at `start`, its content lies in [`value`, `end`)."""

    number: int
    kind: int
    start: int
    value: int
    end: int


def top_fields(content: bytes) -> list[Field] | None:
    r"""A message's fields in their order; None where protobuf must look.

    >>> top_fields(b"\x0a\x02hi\x48\x05")
    [Field(number=1, kind=2, start=0, value=2, end=4), Field(number=9, kind=0, start=4, value=5, end=6)]
    """
    found: list[Field] = []
    at, size = 0, len(content)
    try:
        while at < size:
            start = at
            tag = content[at]
            at += 1
            if tag >= 0x80:
                tag, at = _number(content, start, 5)
            kind = tag & 7
            if kind == LENGTH:
                length = content[at]
                value = at + 1
                if length >= 0x80:
                    length, value = _number(content, at, 5)
                at = value + length
            else:
                value = at
                if kind == VARINT:
                    _, at = _number(content, at, 10)
                elif kind == EIGHT_BYTES:
                    at += 8
                elif kind == FOUR_BYTES:
                    at += 4
                else:
                    return None
            if not 8 <= tag < 1 << 32 or at > size or len(found) == _MOST_FIELDS:
                return None
            found.append(Field(tag >> 3, kind, start, value, at))
    except (IndexError, ValueError):
        return None
    return found


def _number(content: bytes, at: int, longest: int) -> tuple[int, int]:
    """A varint and where it ends."""
    number = 0
    for place in range(longest):
        byte = content[at + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise ValueError("the number does not end")


def framed(number: int, content: bytes) -> bytes:
    r"""A length-delimited field with this content.

    >>> framed(1, b"hi")
    b'\n\x02hi'
    """
    return head(number, len(content)) + content


def head(number: int, length: int) -> bytes:
    """What stands before the content of a length-delimited field."""
    return varint(number << 3 | LENGTH) + varint(length)


def varint(number: int) -> bytes:
    r"""A number from 0 as protobuf writes it.

    >>> varint(300)
    b'\xac\x02'
    """
    if number < 0x80:
        return _SMALL[number]
    content = bytearray()
    while number >= 0x80:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    content.append(number)
    return bytes(content)


_SMALL = [bytes([number]) for number in range(0x80)]
