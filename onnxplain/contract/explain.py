"""What an explain graph carries besides its tensors: `export` writes it, `runtime` reads it.

Everything stands in the ONNX file's `metadata_props` under `onnxplain.*`, as JSON where it is
not a plain string, so that a runtime needs the file alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxplain.contract.derivatives import Derivatives
from onnxplain.contract.entries import DAMAGED, described, listed
from onnxplain.contract.estimator import Estimated
from onnxplain.contract.objective import EXPLAINED_BOX, EXPLAINED_CLASS, OBJECTIVE, Explained
from onnxplain.contract.pixels import Pixels
from onnxplain.contract.ranges import GREATEST, LEAST, Range
from onnxplain.contract.values import Values
from onnxplain.errors import BackendError
from onnxplain.options import check_fields, check_type
from onnxplain.printable import in_lines, one_line

IMAGE, TARGET, TEMPERATURE, LOGITS, PULLBACK = (
    "image",
    "target",
    "temperature",
    "logits",
    "pullback",
)
"""Inputs and outputs of every explain graph (`temperature` only of a live one)."""

ORIGIN, ALPHA, EPS, LIMIT, NEXT_IMAGE = "origin", "alpha", "eps", "limit", "next_image"
"""What a graph exported with a step of the ascent has besides."""

ATTENTION = "attention."
"""What the names of outputs begin with that are layers' attention; the layer's name follows."""

RESERVED = (IMAGE, TARGET, OBJECTIVE, EXPLAINED_CLASS, EXPLAINED_BOX, PULLBACK, NEXT_IMAGE)
"""Names that mean the same in every file; an output of the network that has one is `source.NAME`.
"""

OPTIONAL_INPUTS = (TEMPERATURE, ORIGIN, ALPHA, EPS, LIMIT)
"""Inputs that a file has where it was asked for them; no objective's input is named so."""

ACCENTUATED, ACCENTUATED_LOGITS = "accentuated", "accentuated_logits"
"""The outputs of a graph exported with the ascent unrolled, besides `logits` at its start."""

DIRECTION, MAP, RELEVANCE, PRODUCT, MAGNITUDE = (
    *("direction", "map", "relevance", "product", "magnitude"),
)
"""Kinds of pullback: a cotangent of the image, which says in what direction to change it; a class
activation map, which has one channel; how much each pixel contributed (layer-wise relevance
propagation); a cotangent times the image, its way from a baseline, or what another method gives;
how strong something is at each pixel, without a sign."""

NO_DIRECTIONS = {
    MAP: "class activation maps",
    RELEVANCE: "relevances",
    PRODUCT: "products with the image or of methods",
    MAGNITUDE: "magnitudes",
}
"""The kinds along which nothing can climb, in words."""


@dataclass(frozen=True)
class AscentDefaults:
    """How a method's authors ascend: how many steps, their length, and the farthest from the start.

    Lengths are in units of the pixel space's norm; `eps` None sets no bound. Those of
    arXiv 2507.22832 v1, unless a method has others.
    """

    steps: int = 5
    alpha: float = 20.0
    eps: float | None = 100.0


KERNELS_DOMAIN = "onnxplain.kernels"
"""Of the fused operations, which are functions of the file and operators of `onnxplain-kernels`."""

DEFAULT_WEIGHTS, NO_WEIGHTS = "DEFAULT", "none"
"""The weights of a network by name that are no checkpoint: the pretrained ones, and random ones
from a fixed seed."""

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Pillow's ways of resampling."""

CROP, SQUASH, LETTERBOX = FITS = ("crop", "squash", "letterbox")
"""How a photograph is made to fit: its shorter side is resized and the centre taken; both sides are
resized to the input's, whatever becomes of the aspect; or it is resized until it lies within, and
gets a border."""

EVEN, DOWN = HALVES = ("even", "down")
"""Where the centre goes that is half a pixel off: to the even one, and of a border toward 0, as
torchvision rounds; or down, as Hugging Face does."""

_AS_0_1 = {"fit": CROP, "fill": 0, "half": EVEN, "multiple": 0, "least": 1}
"""What a preprocessing was in files of 0.1, which do not say so."""

_LARGEST = 2**15  # pixels of a side
_FARTHEST = 2**31  # of a mean and a standard deviation, whose pixels end at 1
_LONGEST = 10**6  # steps
_PREFIX = "onnxplain."
_TEXTS = {"version", "method", "source", "activation", "kind", "weights"}  # the rest is JSON

METHOD = f"{_PREFIX}method"
"""The entry that every explain graph has, and nothing else."""

VALUES = f"{_PREFIX}values"
"""The entry of files that explain by other values than one image."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the input: resize, fit, scale to [0, 1], normalise.

    `fit` is one of `FITS`; for a crop, `resize` is the length in pixels of the shorter side before
    that of `height` × `width`; `mean` and `std` have one entry per channel (1 or 3), for pixel
    values in [0, 1]; `interpolation` is one of Pillow's resampling names in lower case; `layout` is
    "NCHW" or "NHWC"; `fill` is the border's grey, of 0…255; `half` is one of `HALVES`.
    Where `multiple` is not 0 the network takes any size: a photograph keeps its own, but for sides
    that are no multiples of it, which are resized to the nearest; none of what the network sees may
    be less than `least`, as windows would find no place on it; and `height` × `width` is the size
    of what is no photograph, such as noise to compare on.
    """

    height: int
    width: int
    resize: int
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    layout: str = "NCHW"
    fit: str = CROP
    fill: int = 0
    half: str = EVEN
    multiple: int = 0
    least: int = 1

    @property
    def any_size(self) -> bool:
        return self.multiple > 0

    @property
    def keeps_pixels(self) -> bool:
        """Whether the network sees all of a photograph's pixels, and none resized."""
        return self.multiple == 1

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """One image as the network takes it: [C,H,W], or [H,W,C] where the layout is NHWC."""
        return self.shape(self.channels)

    def shape(self, channels: int) -> tuple[int, int, int]:
        """The same of so many channels."""
        if self.layout == "NHWC":
            return self.height, self.width, channels
        return channels, self.height, self.width

    def sides(self, shape: Sequence[int]) -> tuple[int, int]:
        """Width and height of images of that shape, [C,H,W] or [N,C,H,W], or as the layout has
        them."""
        *_, height, width = shape[:-1] if self.layout == "NHWC" else shape
        return width, height

    @property
    def described(self) -> str:
        """How a photograph is made to fit: "shorter side to 256 (bilinear), crop 224 × 224"."""
        if self.any_size:
            more = f"; sides to multiples of {self.multiple}" if self.multiple > 1 else ""
            least = f"; from {self.least} × {self.least} on" if self.least > self.multiple else ""
            return f"at its own size{more}{least}"
        size = f"{self.height} × {self.width}"
        border = f", border {self.fill}" if self.fill else ""
        if self.fit == CROP:
            return f"shorter side to {self.resize} ({self.interpolation}), crop {size}{border}"
        return f"{self.fit} to {size} ({self.interpolation}){border}"

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height to which a photograph of that width and height is resized."""
        if self.any_size:
            width, height = (max(round(n / self.multiple), 1) * self.multiple for n in size)
        elif self.fit == CROP:
            width, height = (self.resize * n // min(size) for n in size)
        elif self.fit == LETTERBOX:
            width = max(min(round(size[0] * self.height / size[1]), self.width), 1)
            height = max(min(round(size[1] * self.width / size[0]), self.height), 1)
        else:
            width, height = self.width, self.height
        return width, height

    def cropped(self, resized: tuple[int, int]) -> tuple[int, int]:
        """Width and height of what the network sees of it."""
        return resized if self.any_size else (self.width, self.height)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether one image of that shape is the network's input."""
        if not self.any_size:
            return shape == self.image_shape
        height, width, channels = shape if self.layout == "NHWC" else (*shape[1:], *shape[:1])
        sides = height, width
        return (
            channels == self.channels
            and min(sides) >= self.least
            and not any(n % self.multiple for n in sides)
        )

    def sees(self, size: tuple[int, int]) -> bool:
        """Whether the network sees anything of a photograph of that width and height."""
        return not self.any_size or min(self.resized(size)) >= self.least

    @property
    def described_sides(self) -> str:
        """What is asked of open ones, in words: "multiples of 32, from 64 on"."""
        words = [f"multiples of {self.multiple}"] if self.multiple > 1 else []
        words += [f"from {self.least} on"] if self.least > max(self.multiple, 1) else []
        return ", ".join(words)

    @property
    def described_shape(self) -> str:
        """The shape of an image in words: "3, 224, 224"."""
        if not self.any_size:
            return ", ".join(map(str, self.image_shape))
        sides = "height, width"
        return f"{sides}, {self.channels}" if self.layout == "NHWC" else f"{self.channels}, {sides}"

    def to_json(self) -> dict[str, Any]:
        """As a file says it: without what 0.1 did not know, and refuses, where it is as there."""
        entry = dataclasses.asdict(self)
        return {k: v for k, v in entry.items() if k not in _AS_0_1 or v != _AS_0_1[k]}

    def check(self) -> None:
        """
        Raises:
            ValueError: something that no export writes.
        """
        _check_number("preprocessing: multiple", self.multiple, 0, _LARGEST)
        _check_number("preprocessing: least", self.least, 1, _LARGEST)
        for name in ("height", "width", "resize"):
            _check_number(f"preprocessing: {name}", getattr(self, name), 1, _LARGEST)
        if not self.mean or len(self.std) != len(self.mean):
            raise ValueError(
                f"preprocessing: mean has {len(self.mean)} entries, and std {len(self.std)}; both "
                "must have one for each channel"
            )
        for shift in self.mean:
            _check_number("preprocessing: mean", shift, -_FARTHEST, _FARTHEST)
        for scale in self.std:
            _check_number("preprocessing: std", scale, 1 / _FARTHEST, _FARTHEST)
        _check_choice("preprocessing: interpolation", self.interpolation, INTERPOLATIONS)
        _check_choice("preprocessing: layout", self.layout, ("NCHW", "NHWC"))
        _check_choice("preprocessing: fit", self.fit, FITS)
        _check_choice("preprocessing: half", self.half, HALVES)
        _check_number("preprocessing: fill", self.fill, 0, 255)


def _check_number(what: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{what} is {value!s:.20}, must be {least:.6g}…{most:.6g}")


def _check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{what} is {value!r:.40}, must be one of {', '.join(choices)}")


NO_IMAGE = Preprocessing(0, 0, 0, (), ())
"""That of a file that does not explain by one image."""


@dataclass(frozen=True)
class Metadata:
    """The `onnxplain.*` entries of an explain graph.

    `parameters` are the method's, numbers and strings (`{"temperature": 0.3}`;
    `{"layer": "layer4.2"}` of a class activation map, `{"epsilon": 1e-5}` of relevances); `kind`
    is one of the three above;
    `activation` makes the logits probabilities, "softmax" or "sigmoid"; `multiply_adds` holds
    "forward" and "explain", counted per image on the exported graph; `patterns` counts the
    composite operations found in the network ({"GELU": 12, "attention": 12}); `replaced` and
    `ordinary` name, kind by kind, the nonlinear operations whose derivative the method replaces
    and does not, each by its layer ({"ReLU": ["layer1.0.relu", …]}); `weights` are those
    of a network by name, "DEFAULT", "none" or the name of a checkpoint's file, and empty for a
    source that has its own; `notes` are
    sentences on what the export had to assume or could not do; `ascent` is how to ascend along
    the pullback unless told otherwise; `ranges` are those of the live parameters that may be other
    than positive; `objective` says what is explained, and of which inputs and outputs, where that
    is no classifier's logit; `values` says by what it is explained, where that is not the image
    alone, and then there is no `preprocessing`; `estimator` at which images the method is asked,
    where that is not the one image; `pixels` how `image` holds a photograph's, where the graph does
    the preprocessing itself.
    """

    version: str
    method: str
    source: str
    preprocessing: Preprocessing
    parameters: Mapping[str, Any] = field(default_factory=dict)
    kind: str = DIRECTION
    activation: str = "softmax"
    labels: tuple[str, ...] = ()
    multiply_adds: Mapping[str, int] = field(default_factory=dict)
    patterns: Mapping[str, int] = field(default_factory=dict)
    replaced: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ordinary: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ascent: AscentDefaults = AscentDefaults()
    weights: str = ""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    objective: Explained = field(default_factory=Explained)
    values: Values = field(default_factory=Values)
    estimator: Estimated = field(default_factory=Estimated)
    pixels: Pixels = field(default_factory=Pixels)

    @property
    def described_weights(self) -> str:
        """Where the weights are from, in words."""
        of = {
            "": "the source's own",
            DEFAULT_WEIGHTS: "pretrained",
            NO_WEIGHTS: "none: random, from a fixed seed",
        }
        return of.get(self.weights, f"the checkpoint {self.weights}")

    @property
    def described_method(self) -> str:
        """The method and its parameters: "excitation, temperature 0.3"; by which estimator."""
        values = {k: v if isinstance(v, str) else f"{v:g}" for k, v in self.parameters.items()}
        said = ", ".join([self.method, *(f"{name} {value}" for name, value in values.items())])
        return f"{said}; by {self.estimator.described}" if self.estimator.name else said

    @property
    def is_map(self) -> bool:
        """Whether the pullback has one channel, however many the image has."""
        return self.kind == MAP

    @property
    def pullback_shape(self) -> tuple[int, int, int]:
        """The pullback of one image for one target, as the graph gives it."""
        return self.preprocessing.shape(1 if self.is_map else self.preprocessing.channels)

    @property
    def no_direction(self) -> str | None:
        """Why nothing can climb along the pullback, in words; None where it can."""
        if self.kind not in NO_DIRECTIONS:
            return None
        again = "with another method, such as excitation"
        if self.parameters.get("times_image"):
            again = "without times_image"
        if self.estimator.name:
            again = "without the estimator"
        return (
            f"{self.estimator.name or self.method} gives {NO_DIRECTIONS[self.kind]}, not a "
            f"direction in which to change the image; export {again}"
        )

    def to_props(self) -> dict[str, str]:
        """The entries as ONNX `metadata_props`."""
        entries = {**dataclasses.asdict(self), "preprocessing": self.preprocessing.to_json()}
        if self.objective == Explained():
            del entries["objective"]  # as in every file before there were others
        del entries["preprocessing" if self.values else "values"]
        if not self.estimator.name:
            del entries["estimator"]
        if self.pixels == Pixels():
            del entries["pixels"]
        return {
            _PREFIX + key: value if isinstance(value, str) else json.dumps(value)
            for key, value in entries.items()
        }

    def require_image(self, what: str) -> None:
        """
        Raises:
            BackendError: the file explains by something else, and `what` needs an image.
        """
        if self.values:
            raise BackendError(
                f"{what} explains images, and this file explains {self.values.described}: give "
                "its arrays by name, in a .npz file to onnxplain explain, or to what "
                "onnxplain.load returns"
            )

    def require_input(self, what: str) -> None:
        """
        Raises:
            BackendError: the file takes photographs, and `what` needs the network's own input.
        """
        self.require_image(what)
        if self.pixels:
            raise BackendError(
                f"{what} changes or makes the network's own input, and this file takes photographs "
                "and makes it itself: export the network again without preprocess=True"
            )

    def require_one_size(self, what: str) -> None:
        """
        Raises:
            BackendError: the file takes images of any size, and `what` those of one.
        """
        if self.preprocessing.any_size:
            raise BackendError(
                f"{what} takes images of one size, and this file those of any: export the network "
                "again with size=HEIGHT"
            )

    def _check(self) -> None:
        """
        Raises:
            ValueError: something that no export writes.
        """
        check_fields(self)
        if not self.values:
            self.preprocessing.check()
        self.pixels.check()
        _check_choice("activation", self.activation, ("softmax", "sigmoid"))
        _check_choice("kind", self.kind, (DIRECTION, *NO_DIRECTIONS))
        _check_number("ascent: steps", self.ascent.steps, 1, _LONGEST)
        for name in ("alpha", "eps"):
            if (length := getattr(self.ascent, name)) is not None:
                _check_number(f"ascent: {name}", length, LEAST, GREATEST)
        if self.multiply_adds.keys() not in (set(), {"forward", "explain"}):
            raise ValueError("multiply_adds must be forward and explain")
        counts = {
            **{f"multiply_adds: {name}": n for name, n in self.multiply_adds.items()},
            **{f"patterns: {name}": n for name, n in self.patterns.items()},
            "estimator: explanations": self.estimator.explanations,
            "objective: classes": self.objective.classes,
            "objective: ranks": self.objective.ranks,
        }
        for name, count in counts.items():
            _check_number(name, count, 0, GREATEST)
        for name, allowed in self.ranges.items():
            _check_number(f"ranges: {name}: low", allowed.low, -math.inf, allowed.high)
        for name, value in (*self.parameters.items(), *self.estimator.parameters.items()):
            check_type(name, value, str | float | bool)
            if not isinstance(value, str):
                _check_number(name, value, -GREATEST, GREATEST)

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> Metadata:
        """Read the entries back.

        Raises:
            BackendError: the file was not written by onnxplain, or by one that this one can't read.
        """
        if Derivatives.KEY in props:
            raise BackendError(
                "this ONNX file holds derivatives (onnxplain differentiate wrote it) and explains "
                "nothing: `onnxplain info` shows them, any runtime runs it; make an explain graph "
                "of the network itself with: onnxplain export FILE.onnx"
            )
        if METHOD not in props:
            raise BackendError(
                "this ONNX file is not an explain graph (no onnxplain metadata); "
                "make one with: onnxplain export FILE.onnx"
            )
        # Files of 0.1.0 may lack these.
        since = {
            "notes": "[]", "patterns": "{}", "ascent": "{}", "kind": _kind_by_parameters(props),
            "weights": "", "ranges": "{}", "replaced": "{}", "ordinary": "{}", "objective": "{}",
            "values": "{}",
            "estimator": "{}",
            "pixels": "{}",
        }  # fmt: skip
        if VALUES in props:
            since["preprocessing"] = "{}"
        props = {_PREFIX + key: value for key, value in since.items()} | dict(props)
        try:
            said = {f.name: props[_PREFIX + f.name] for f in dataclasses.fields(cls)}
            entries: dict[str, Any] = {
                key: one_line(text) if key in _TEXTS else in_lines(json.loads(text))
                for key, text in said.items()
            }
            entries["values"] = Values.from_json(entries["values"])
            if entries["values"]:
                entries["preprocessing"] = NO_IMAGE
            else:
                pre = entries["preprocessing"]
                shifts = {name: listed(name, pre[name]) for name in ("mean", "std")}
                entries["preprocessing"] = Preprocessing(**{**pre, **shifts})
            entries["ascent"] = AscentDefaults(**entries["ascent"])
            entries["ranges"] = {k: Range(**v) for k, v in entries["ranges"].items()}
            entries["objective"] = Explained.from_json(entries["objective"])
            entries["estimator"] = Estimated.from_json(entries["estimator"])
            entries["pixels"] = Pixels.from_json(entries["pixels"])
            for key in ("labels", "notes"):
                entries[key] = listed(key, entries[key])
            found = cls(**entries)
            found._check()
            return found
        except DAMAGED as error:
            raise BackendError(
                f"the file's onnxplain metadata cannot be read ({described(error)}); export it "
                "again with the installed version"
            ) from error


def _kind_by_parameters(props: Mapping[str, str]) -> str:
    """The kind of pullback of a file that does not say it, as those of 0.1.0 do not."""
    if props[METHOD] == "input-x-gradient":
        return PRODUCT
    of_parameter = {'"layer"': MAP, '"epsilon"': RELEVANCE}
    parameters = props.get(_PREFIX + "parameters", "")
    return next((kind for name, kind in of_parameter.items() if name in parameters), DIRECTION)
