"""The operations worth fusing: each a body in standard operators, and a kernel of our own.

`bodies` spells each out in standard operators, once; `functions` and `calls` keep them as calls in
an explain graph (`export --kernels`).
"""
