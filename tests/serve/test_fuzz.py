"""A short run of the fuzzer's target; the long one is `fuzz_decoder.py` with atheris."""

from __future__ import annotations

import random

import pytest

from .fuzz_decoder import fuzz, read, seeds


@pytest.mark.filterwarnings("ignore:::PIL")
def test_a_client_can_only_cause_a_refusal() -> None:
    choose = random.Random(0)
    originals = seeds()
    for seed in originals:
        fuzz(seed)
        for cut in range(0, len(seed), 7):
            fuzz(seed[:cut])
    for _ in range(2000):
        data = bytearray(choose.choice(originals))
        for _ in range(choose.randint(1, 8)):
            at = choose.randrange(len(data))
            match choose.randrange(4):
                case 0:
                    data[at] = choose.randrange(256)
                case 1:
                    del data[at : at + choose.randint(1, 20)]
                    data = data or bytearray(b"\x00")
                case 2:
                    data[at:at] = choose.randbytes(choose.randint(1, 20))
                case 3:
                    other = choose.choice(originals)
                    data[at:] = other[choose.randrange(len(other)) :]
                    data = data or bytearray(b"\x00")
        fuzz(bytes(data))


def test_every_seed_is_a_request_that_is_understood() -> None:
    """Else the fuzzer would begin with refusals alone."""
    for seed in seeds():
        read(seed)
