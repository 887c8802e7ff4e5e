"""The newest is handed over, and every other one is counted."""

from __future__ import annotations

import threading

import pytest

from onnxplain.stream.latest import Latest


def test_a_newer_one_takes_the_place_of_one_that_nobody_took():
    latest = Latest()
    for number in range(5):
        latest.put(number)
    assert latest.take() == 4
    latest.put(5)
    assert latest.take() == 5
    assert (latest.put_count, latest.dropped) == (6, 4)


def test_what_lies_there_at_the_end_is_still_taken():
    latest = Latest()
    latest.put("last")
    latest.close()
    assert latest.take() == "last"
    assert latest.take() is None
    assert latest.dropped == 0


def test_an_error_comes_after_what_was_put_before_it():
    latest = Latest()
    latest.put("last")
    latest.close(OSError("broken"))
    assert latest.take() == "last"
    with pytest.raises(OSError, match="broken"):
        latest.take()


def test_what_nobody_will_take_is_dropped():
    latest = Latest()
    latest.put(1)
    latest.abandon()
    assert (latest.put_count, latest.dropped) == (1, 1)
    assert latest.take() is None


def test_taking_waits_for_the_next():
    latest, taken = Latest(), []
    taker = threading.Thread(target=lambda: taken.append(latest.take()))
    taker.start()
    latest.put("next")
    taker.join(timeout=10)
    assert taken == ["next"]
