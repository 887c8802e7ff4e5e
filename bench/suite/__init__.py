"""The benchmark: every way to explain beside every other, interleaved, with parity.

A *job* is a network and a batch on a device; a *way* computes its forward pass, its explanation or
a peer's kind of explanation; `measure` times a job's ways against each other.
"""
