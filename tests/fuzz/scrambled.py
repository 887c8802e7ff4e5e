"""Bytes changed without knowing what they mean."""

from __future__ import annotations

import random

_TELLING = (0, 1, 0x7F, 0x80, 0xFF)


def scrambled(data: bytes, rng: random.Random) -> bytes:
    """A copy with one to six changes: bytes set, cut, repeated, put in or left off at the end."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        at, size = rng.randrange(len(changed) + 1), rng.choice([1, 1, 2, 4, 8, 16])
        match rng.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                changed[at : at + size] = bytes([rng.choice(_TELLING)]) * size
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = rng.randbytes(size)
            case 4:
                changed[at:at] = changed[at : at + 4 * size] * rng.choice([1, 2, 20])
            case 5:
                del changed[at + rng.randrange(len(changed) + 1) :]
    return bytes(changed)
