"""A file's outputs beside those of the network that it was made of, on noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from onnxplain.contract.derivatives import SEED
from onnxplain.contract.explain import IMAGE, Metadata
from onnxplain.contract.objective import OBJECTIVE, Explained
from onnxplain.errors import BackendError, SourceError, UnfinishedError
from onnxplain.reference.forward import run_forward, turned_for
from onnxplain.reference.parity import Parity
from onnxplain.reference.running import run, session_options
from onnxplain.reference.sources import (
    FLOAT32,
    OF_ONE,
    is_onnx,
    outputs_of_onnx,
    outputs_of_pytorch,
    tolerance,
)
from onnxplain.runtime.onnx_file import read_metadata, read_ports
from onnxplain.runtime.outputs import of_images
from onnxplain.runtime.sessions.onnx_runtime.options import failures
from onnxplain.runtime.signature import Port

Array = npt.NDArray[Any]

_MOST = 0.5
"""The share of whole numbers, as indices of what was found, that are the same in either network; of
truths, the share of those that are the rarer in one or the other."""

FLOAT64 = 1e-10
"""The relative error up to which float64's rounding may account for it."""


def compare(file: Path, source: Path) -> str | None:
    """Every output of the source, which the file has too.

    Returns:
        What is to be noted: why they cannot be compared, if they cannot. None otherwise.

    Raises:
        SourceError: they differ by more than rounding, or the file does not run where its source
            does.
    """
    try:
        original = _session(source)
        names = [y.name for y in original.get_outputs()]
        given, expected = _answers(original, names, read_ports(file)[0])
    except (BackendError, TypeError) as error:  # numpy has no such dtype
        return f"not checked: ONNX Runtime does not run the source on noise: {error}"
    for name, y in zip(names, expected, strict=True):
        if (seed := SEED.format(of=name)) in given:  # of the size that the source decides upon
            given[seed] = np.ones(y.shape, given[seed].dtype)
    try:
        found = _run(_session(file), names, given)
    except BackendError as error:
        if "NOT_IMPLEMENTED" in str(error):  # as some operators of float64 are
            return f"not checked: ONNX Runtime does not run it: {error}"
        raise SourceError(f"it does not run where its source does: {error}") from error

    def named(arrays: Sequence[Array]) -> dict[str, Array]:
        return dict(zip(names, arrays, strict=True))

    def again() -> dict[str, Array]:
        return named(_answers(original, names, read_ports(file)[0])[1])

    limit = tolerance(source)

    def same(y: Array, expects: Array) -> bool:
        return is_alike(y, expects, FLOAT64 if y.dtype == np.float64 else limit)

    return _differing(named(found), named(expected), again, same)


def sizes_tried(file: Path) -> list[tuple[int, int]]:
    """Heights and widths of the images that a file is compared on: the usual one; of one that takes
    any size another too, of odd multiples, less high and wider."""
    pre = Metadata.from_props(read_metadata(file)).preprocessing
    usual = pre.height, pre.width
    if not pre.any_size:
        return [usual]
    near = (round(n * share / pre.multiple) for n, share in zip(usual, (0.85, 1.15), strict=True))
    height, width = (max((times | 1) * pre.multiple, pre.least) for times in near)
    return [usual, (height, width)]


def compare_outputs(
    file: Path, original: Any, input: str | None, size: tuple[int, int]
) -> str | None:
    """The outputs of a graph that is no classifier's, which are the network's by name, of two
    images of noise, or as many as it takes.

    Args:
        original: the path of an ONNX file, or what PyTorch runs.
        input: the image input, where an ONNX file has several.
        size: height and width of the images, where they are open.

    Returns:
        As `compare`; or that the source takes one image alone.

    Raises:
        SourceError: as `compare`.
    """
    inputs, _ = read_ports(file)
    explained = Metadata.from_props(read_metadata(file)).objective
    names = list(explained.axes)
    fixed, note = inputs[IMAGE].shape[0], None
    given = noise_images(inputs, fixed or 2, size)
    expected = own_outputs(original, given[IMAGE], input, names)
    if isinstance(expected, str) and not fixed:
        given = noise_images(inputs, 1, size)
        alone = own_outputs(original, given[IMAGE], input, names)
        if not isinstance(alone, str):
            expected, note = alone, None if _takes_one(original, input) else ONE_ALONE
    if isinstance(expected, str):
        return f"not checked: {expected}"
    try:
        feeds = turned_for(file, given)
        found = run_forward(file, feeds, [*expected, OBJECTIVE])
        if fixed is None and note is None:
            note = mixed(file, inputs, feeds, found, explained)
    except BackendError as error:
        if is_onnx(original):
            raise SourceError(f"it does not run where its source does: {error}") from error
        return f"not checked: ONNX Runtime does not run it: {error}"

    def again() -> dict[str, Array]:
        once_more = own_outputs(original, given[IMAGE], input, names)
        return {} if isinstance(once_more, str) else once_more

    expected = {name: y.astype(found[name].dtype) for name, y in expected.items()}
    same = partial(is_alike, limit=max(FLOAT32, tolerance(original)))
    return _differing(found, expected, again, same) or note


def _differing(
    found: Mapping[str, Array],
    expected: Mapping[str, Array],
    again: Callable[[], Mapping[str, Array]],
    same: Callable[[Array, Array], bool],
) -> str | None:
    """What is to be noted of outputs by name: that the source is random, if it is.

    Args:
        again: asks the source once more.
        same: whether two of them are the same but for rounding.

    Raises:
        SourceError: they differ, by another cause.
    """
    for name, y in expected.items():
        own = found[name]
        if same(own, y):
            continue
        anew = again()
        both = ((y, anew[other].astype(y.dtype)) for other, y in expected.items() if other in anew)
        if not anew or not all(is_same(*pair, 0) for pair in both):
            return "not checked: the source does not answer twice the same"
        shapes = "" if own.shape == y.shape else f", {list(own.shape)} and {list(y.shape)}"
        raise SourceError(f"on noise, its output {name!r} differs from that of its source{shapes}")
    return None


def mixed(
    file: Path,
    inputs: Mapping[str, Port],
    given: Mapping[str, Array],
    found: Mapping[str, Array],
    explained: Explained,
) -> str | None:
    """What is noted where what an open graph says of a sample depends on the others of its batch.

    Args:
        inputs: the graph's.
        given: what it was given.
        found: what it made of that, the objective and the network's own outputs.

    Raises:
        SourceError: the objective does, and the network does not.
    """
    alone = {n: x[-1:] if inputs[n].shape[:1] == (None,) else x for n, x in given.items()}
    try:
        last = run_forward(file, alone, list(found))
    except BackendError:  # as networks may need several
        return None
    rows = of_images(explained, found, [len(found[OBJECTIVE]) - 1])
    others = {name for name in found if not is_near(last[name], rows[name])}
    if others == {OBJECTIVE}:
        raise SourceError(
            f"objective {explained.name!r} of an image depends on the others of its batch, and is "
            "to be a number of each by itself, [N]"
        )
    return MIXED if OBJECTIVE in others else None


def is_near(y: Array, expected: Array) -> bool:
    """More than half precision differs in where a batch is of another size."""
    if y.shape != expected.shape or y.dtype.kind != "f":
        return y.shape == expected.shape
    apart = np.abs(y - expected).max(initial=0)
    return not apart > ROUNDED * np.abs(expected).max(initial=0)  # NaN tells nothing


MIXED = (
    "what the network says of an image depends on the others of its batch, as that of a "
    "normalisation without running statistics does, and so do explanations: explain them one by one"
)
ROUNDED = 1e-2

ONE_ALONE = (
    "the network declares an open batch and takes one image alone: explain them one by one, or fix "
    "the batch in the file (python -m onnxruntime.tools.make_dynamic_shape_fixed), so that export "
    "can look for what fixes it"
)


def _takes_one(original: Any, input: str | None) -> bool:
    """Whether an ONNX file declares that it takes one image alone."""
    if not is_onnx(original):
        return False
    ports, _ = read_ports(Path(original))
    return any(port.shape[:1] == (1,) for name, port in ports.items() if input in (None, name))


def own_outputs(
    original: Any, images: Array, input: str | None, names: list[str]
) -> dict[str, Array] | str:
    """The source's outputs of those names, or why there are none."""
    try:
        if is_onnx(original):
            found = outputs_of_onnx(original, images, input)
        else:
            found = outputs_of_pytorch(original, images)
    except UnfinishedError:
        raise
    except Exception as error:  # of any kind: it may be the user's own code
        return f"the source does not run on noise: {error}"
    own = {name: name.removeprefix("source.") for name in names}
    chosen = {name: found[own[name]] for name in names if own[name] in found}
    if not chosen and len(found) == len(names) == 1:
        chosen = dict(zip(names, found.values(), strict=True))
    return chosen or "the source has no outputs of these names"


def _answers(
    session: onnxruntime.InferenceSession, names: Sequence[str], ports: Mapping[str, Port]
) -> tuple[dict[str, Array], list[Array]]:
    """Noise, and what a session says of it; open sizes are 2, or 1 where it takes no other.

    Raises:
        BackendError: it takes neither.
    """
    own = {x.name for x in session.get_inputs()}
    given = noise(ports, 2)
    try:
        return given, _run(session, names, {n: x for n, x in given.items() if n in own})
    except BackendError:
        given = noise(ports, 1)
        return given, _run(session, names, {n: x for n, x in given.items() if n in own})


def noise(ports: Mapping[str, Port], size: int) -> dict[str, Array]:
    """Inputs of random numbers, 0 and 1 where they are whole.

    Args:
        size: for the sizes that are open.

    Raises:
        TypeError: an input is no tensor of numbers.
    """
    random, given = np.random.default_rng(0), {}
    for name, port in ports.items():
        dtype = np.dtype(port.dtype)
        floats = random.standard_normal([n or size for n in port.shape])
        given[name] = np.asarray(floats if dtype.kind == "f" else floats > 0).astype(dtype)
    return given


def noise_images(
    inputs: Mapping[str, Port], batch: int, size: tuple[int, int] = (1, 1)
) -> dict[str, Array]:
    """Images of noise, of which each asks for the first class; of that height and width, where they
    are open."""
    random, given = np.random.default_rng(0), {}
    for name, port in inputs.items():
        sides = iter(size if name == IMAGE else ())
        behind = [next(sides, 1) if n is None else n for n in port.shape[1:]]
        shape = [batch, *behind] if port.shape else []
        others = np.full(shape, port.dtype != "int64")
        values = random.standard_normal(shape) if name == IMAGE else others
        given[name] = np.asarray(values, port.dtype)
    return given


def _session(path: Path) -> onnxruntime.InferenceSession:
    with failures():
        return onnxruntime.InferenceSession(
            path, session_options(), providers=["CPUExecutionProvider"]
        )


def _run(
    session: onnxruntime.InferenceSession, names: Sequence[str], given: Mapping[str, Array]
) -> list[Array]:
    """
    Raises:
        BackendError: ONNX Runtime fails.
    """
    with failures():
        return run(session, names, given)


def is_alike(y: Array, expects: Array, limit: float) -> bool:
    """Whether an output is the source's but for rounding, which also decides between two classes
    that are alike, and on which side of a bound a number is.

    Args:
        limit: the relative error that rounding may account for.
    """
    if y.shape != expects.shape or y.dtype != expects.dtype:
        return False
    if y.dtype == np.bool_:  # the rarer of the two tells
        rare = expects.mean() <= 0.5 if expects.size else True
        either = ((y == rare) | (expects == rare)).sum()
        return bool(((y == rare) & (expects == rare)).sum() >= _MOST * either)
    if y.dtype.kind != "f":
        return bool((y == expects).sum() >= _MOST * y.size)
    if limit > FLOAT32:  # half precision may have overflowed
        expects = np.where(np.isfinite(expects), expects, y)
    probabilities = limit >= FLOAT32 and ((expects >= 0) & (expects <= 1)).all()
    near = probabilities and np.abs(y - expects).max(initial=0) <= OF_ONE
    return bool(near) or is_same(y, expects, limit)


def is_same(y: Array, expected: Array, relative: float) -> bool:
    if y.shape != expected.shape or y.dtype != expected.dtype:
        return False
    if y.dtype.kind != "f":
        return np.array_equal(y, expected)
    y, expected = _unbounded(y), _unbounded(expected)
    finite = np.isfinite(expected)
    if not np.array_equal(y[~finite], expected[~finite], equal_nan=True):
        return False
    y, expected = y[finite], expected[finite]
    return np.array_equal(y, expected) or Parity.of(y, expected).relative_l2 <= relative


def _unbounded(y: Array) -> Array:
    """Infinity where there is the largest number, which runtimes mask attention's scores with."""
    return np.where(np.abs(y) > 0.99 * np.finfo(y.dtype).max, np.copysign(np.inf, y), y)
