"""Comparisons, logic, and the index of an extremum: no cotangent passes them."""

from __future__ import annotations

from onnxplain.export.operators import Axes, Kind, declare

declare("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", kind=Kind.TEST)
declare("And", "Or", "Not", "Xor", "IsNaN", "IsInf", kind=Kind.TEST)
declare("ArgMax", "ArgMin", axes=Axes.ALONG)
