"""The benchmark: everything that explains beside everything else, interleaved, with parity.

A *job* is a network and a batch on a device; a *candidate* computes its forward pass, its
explanation or a peer's kind of explanation; `measure` times a job's candidates against each other.
"""
