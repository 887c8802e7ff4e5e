"""Einsum, and the reading of its equations."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Container, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Kind, register_vjp
from onnxplain.export.stretched import sum_if_one
from onnxplain.export.tensors import constant, dims, rank, size_of

Size = int | ir.SymbolicDim


def parse(node: Node) -> tuple[list[str], str]:
    """One letter per axis of every operand and of the result, ellipses and defaults spelled out."""
    equation = node.attributes.get_string("equation").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        letters = Counter(left.replace(",", "").replace(".", ""))
        result = ("..." if "." in left else "") + "".join(
            sorted(letter for letter, count in letters.items() if count == 1)
        )
    free = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = [
        rank(x) - len(term) + 3 if "..." in term else 0
        for x, term in zip(node.inputs, terms, strict=True)
    ]
    shared = "".join(free[: max(hidden)])
    terms = [
        term.replace("...", shared[len(shared) - count :])
        for term, count in zip(terms, hidden, strict=True)
    ]
    return terms, result.replace("...", shared)


def sizes(values: Sequence[ir.Value], terms: Sequence[str]) -> dict[str, Size]:
    """The size of each letter; an operand may have 1 in its place, which broadcasts."""
    found: dict[str, Size] = {}
    for value, term in zip(values, terms, strict=True):
        for letter, size in zip(term, dims(value), strict=True):
            if found.setdefault(letter, size) == 1:
                found[letter] = size
    return found


@register_vjp("Einsum", kind=Kind.MATRIX_PRODUCT, axes=Axes.EINSUM)
def einsum(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """∂/∂A of `A, B, … → Y` is `Y, B, … → A`."""
    terms, result = parse(node)
    size = sizes(node.inputs, terms)
    wide = [  # the axes of each operand that do not broadcast
        [i for i, n in enumerate(dims(x)) if n != 1 or size[term[i]] == 1]
        for x, term in zip(node.inputs, terms, strict=True)
    ]
    stretching = _stretching(node.inputs, terms)
    given = [(g, result)]
    for x, term, axes in zip(node.inputs, terms, wide, strict=True):
        ones = [i - len(term) for i in range(len(term)) if i not in axes]
        given.append((op.Squeeze(x, ones) if ones else x, "".join(term[i] for i in axes)))
    return [
        partial(_cotangent, op, x, term, axes, given[: 1 + i] + given[2 + i :], stretching)
        for i, (x, term, axes) in enumerate(zip(node.inputs, terms, wide, strict=True))
    ]


def _cotangent(
    op: OpBuilder,
    x: ir.Value,
    term: str,
    wide: Sequence[int],
    given: Sequence[tuple[ir.Value, str]],
    stretching: Container[str],
) -> ir.Value:
    known = set().union(*(letters for _, letters in given))
    at: dict[str, list[int]] = {}
    for i in wide:
        at.setdefault(term[i], []).append(i)
    found = [letter for letter in at if letter in known]
    equation = f"{','.join(letters for _, letters in given)}->{''.join(found)}"
    gx = op.Einsum(*(value for value, _ in given), equation=equation)
    missing = sorted(set(range(len(term))) - {at[letter][0] for letter in found})
    if missing:
        gx = op.Unsqueeze(gx, [i - len(term) for i in missing])
    for letter, axes in at.items():
        if len(axes) > 1:  # of a diagonal, nothing else was taken
            gx = op.Mul(gx, constant(op, _diagonal(len(term), axes, size_of(x, axes[0])), x))
        elif letter not in known:  # summed over in this operand alone
            gx = op.Expand(gx, [size_of(x, i) if i in axes else 1 for i in range(len(term))])
    open_ = [i - len(term) for i in wide if not isinstance(dims(x)[i], int)]
    return sum_if_one(op, gx, x, [i for i in open_ if term[i] in stretching])


def _stretching(values: Sequence[ir.Value], terms: Sequence[str]) -> set[str]:
    """The letters whose sizes may differ, as one of them is open: it may turn out to be 1."""
    found: dict[str, set[Size]] = {}
    for value, term in zip(values, terms, strict=True):
        for letter, size in zip(term, dims(value), strict=True):
            found.setdefault(letter, set()).add(size)
    return {letter for letter, several in found.items() if len(several - {1}) > 1}


def _diagonal(rank: int, axes: Sequence[int], size: int) -> np.ndarray:
    """Ones where the indices along `axes` agree; the other axes have size 1."""
    index = np.indices([size if i in axes else 1 for i in range(rank)])[list(axes)]
    return (index == index[:1]).all(0).astype(float)
