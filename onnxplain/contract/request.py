"""What an export may be asked for, declared once for Python, the command line and who else exports.

Which of the options go together with which method, `onnxplain.export.validity` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

from onnxplain.contract.explain import FITS, INTERPOLATIONS
from onnxplain.contract.picture import PictureOptions
from onnxplain.contract.pixels import FORMATS, GEOMETRIES, NETWORK, QUANTISED, RGB
from onnxplain.errors import InputError, SourceError
from onnxplain.options import declared, option

ANY = "any"
"""The size of an image that stays open."""

CHANNELS, BGR = "channels", "bgr"
"""What a file notes of a network whose channels it turns round."""

ATTENTIONS = "attentions"
"""What a file notes that puts out its layers' attention."""

RULES = "rules"
"""What a file notes of layers with rules of their own."""

SIZES = "sizes"
"""What a file notes of sizes that its source leaves open."""

_BETWEEN, _WITHIN = ", ", ",\\ "  # names, and what stands for that in the name of an ONNX value


@runtime_checkable
class Objective(Protocol):
    """What `onnxplain.export.Objective` declares."""

    @property
    def name(self) -> str: ...
    @property
    def fits(self) -> Any: ...
    @property
    def emit(self) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of `onnxplain.export`; each field says what it is for."""

    method: str = option(
        "excitation",
        "excitation (ReLU networks), semantic (any: transformers, SiLU, norms), gradient, guided, "
        "deconvnet, input-x-gradient, gradcam, gradcam++, xgradcam, layercam, hirescam, eigencam, "
        "eigengradcam, scorecam, ablationcam, guided-gradcam, lrp-zplus, lrp-epsilon, "
        "epsilon-plus, lrp-epsilon-plus, lrp-epsilon-plus-flat, lrp-epsilon-gamma-box, "
        "lrp-epsilon-alpha2-beta1, lrp-epsilon-alpha2-beta1-flat, attn-lrp, cp-lrp, "
        "attention-rollout, transformer-attribution, legrad, or one that a package registers; or a "
        "product of some, as guided*layercam.",
    )
    temperature: float | None = option(
        None,
        "How soft the gates are: for excitation T, unless given the one that is known for the "
        "network, or 0.3; for semantic a factor on the paper's temperatures, 1 unless given.",
    )
    parameters: Mapping[str, float | str] | None = option(
        None,
        "The method's other parameters by name: relu and max_pool of excitation; of semantic gelu, "
        "silu and attention too; epsilon of the lrp methods, stabilizer, gamma and beta of their "
        "rules; and the estimator's, such as steps or samples. On the "
        "command line relu=0.5, and the option again for more.",
        name="param",
    )
    rules: Mapping[str, str] | None = option(
        None,
        "Of the lrp methods: another rule for some layers with weights. For `first`, those that no "
        "other comes before; for all of a kind, `convolution` or `dense`; or for a layer by its "
        "name, or all within a module. A rule is epsilon, z-plus, gamma, alpha-beta, flat, "
        "w-square, or box (of first layers). On the command line first=box, and the option again "
        "for more.",
        name="rule",
    )
    concept_layer: str | None = option(
        None,
        "Of a method of relevance: the layer whose channels the file's input `concepts` [N, C] "
        "weighs in the backward pass, so that it tells what of the relevance goes through some of "
        "them; the output concept_relevance [N, C] is what goes through each. Named as `layer`.",
    )
    weights: str = option(
        "DEFAULT",
        "For a network by name: DEFAULT (pretrained), none (random, from a fixed seed), or the "
        "path of a checkpoint (with or without `module.` prefixes).",
    )
    example: Any = option(
        None,
        "For a module: a tensor [N, C, H, W] like its inputs, where neither it (timm's and Hugging "
        "Face's do) nor `size` says what they are; of several inputs, or others than images, a "
        "tuple, or a dictionary by name.",
    )
    size: int | tuple[int, int] | str | None = option(
        None,
        "The image's size in pixels, one number or height and width, where the network leaves it "
        "open; or any: height and width stay open, in the explanation too, of networks that take "
        "images of any size. On the command line 224, 224x320 or any.",
    )
    sizes: Mapping[str, int] | None = option(
        None,
        "Of inputs that are no image: numbers for sizes that the network leaves open, by name. On "
        "the command line length=12, and the option again for more.",
        unset="they stay open",
    )
    mean: Sequence[float] | None = option(
        None,
        "One number per channel, for pixels in [0, 1]. On the command line 0.5,0.5,0.5.",
        unset="what the network says, else ImageNet's",
    )
    std: Sequence[float] | None = option(None, "As the mean.", unset="as the mean")
    scale: float = option(
        1.0,
        "The greatest pixel: 255 for a network of pixels from 0 to 255, whose mean and std are in "
        "these units too, 0 and 1 unless given.",
    )
    channels: str = option(
        "rgb",
        "bgr for a network that takes blue, green and red, as OpenCV and Caffe have them: the file "
        "takes red, green and blue, in whose order mean and std are, and turns them round itself.",
        choices=("rgb", "bgr"),
    )
    fit: str | None = option(
        None,
        "How a photograph is made to fit the input: crop (the shorter side is resized, and the "
        "centre taken), squash (both sides are, whatever becomes of the aspect) or letterbox (all "
        "of it, with a border, as YOLO takes it).",
        choices=FITS,
        unset="what the network says, else crop",
    )
    fill: int | None = option(
        None,
        "The grey of a letterbox's border, or of a crop's where the photograph is too small.",
        unset="114 of a letterbox, else 0",
    )
    resize: int | None = option(
        None,
        "Of a crop: what the photograph's shorter side is resized to before, in pixels.",
        unset="what the network says, else 8/7 of the input's longer side",
    )
    interpolation: str | None = option(
        None,
        "How Pillow resizes: nearest, box, bilinear, hamming, bicubic or lanczos.",
        choices=INTERPOLATIONS,
        unset="what the network says, else bilinear",
    )
    preprocess: bool = option(
        False,
        "Let the file take photographs: `image` becomes uint8 pixels of any height and width, and "
        "to resize, fit and normalise them, as Pillow and torchvision do, becomes part of the "
        "graph.",
    )
    pixels: str = option(
        RGB,
        "With preprocess, how they lie: rgb or bgr [N, h, w, 3]; rgb-planar or bgr-planar "
        "[N, 3, h, w]; gray [N, h, w]; or nv12 [N, h * 3/2, w], as cameras deliver it.",
        choices=FORMATS,
    )
    geometry: str = option(
        NETWORK,
        "With preprocess, of what size the pullback is: network, that of the network's input; or "
        "photograph, [N, C, h, w]: a direction becomes the gradient by the photograph's red, green "
        "and blue, from 0 to 255, in the network's order and number of channels; relevances and "
        "products keep their sum; the rest is laid on it by bilinear interpolation. 0 where it was "
        "cropped.",
        choices=GEOMETRIES,
    )
    quantise_output: str | None = option(
        None,
        "Put the pullback out as int8 or float16, divided by the new output pullback_scale, [N] "
        "or [N, K], for slow links.",
        choices=QUANTISED,
        unset="in float32",
    )
    labels: Sequence[str] | None = option(
        None,
        "The names of the classes, in order. On the command line a file: text, one a line, or a "
        "JSON list.",
        unset="what the network says",
    )
    excepted: Sequence[str] = option(
        (),
        "Operators whose gradient stays the ordinary one, whatever the method: a node's or a "
        "value's name, or a PyTorch module's path. On the command line, the option again for more.",
        name="except_",
        unset="none",
    )
    objective: str | Objective | Callable[..., Any] | None = option(
        None,
        "What is explained. Of a classifier: logit, the target's; cross-entropy, of the target, "
        "negated; or energy, half the sum of all logits' squares. Of others: segment, detection, "
        "embedding, value, sequence, one that a package registers, or an ONNX file that computes "
        "it of the network's outputs, by their names. In Python also an Objective, or a function "
        "`emit(op, outputs)` that gives one number per image.",
        unset="what the network's outputs show",
    )
    settings: Mapping[str, str] | None = option(
        None,
        "The objective's own choices by name: similarity=dot of embedding. On the command line the "
        "option again for more.",
        name="setting",
    )
    estimator: str | None = option(
        None,
        "Ask the method at many images, and put the answers together: integrated-gradients, "
        "expected-gradients, smoothgrad, smoothgrad-squared, vargrad, or one that a package "
        "registers. Its parameters go with the method's.",
        unset="the image alone",
    )
    attentions: bool = option(
        False,
        "Put out each layer's attention too, as its softmax gives it: `attention.` and the layer's "
        "name, [N, heads, queries, keys], or with an axis of windows behind the batch.",
    )
    times_image: bool = option(False, "Multiply the result by the image: attribution × input.")
    multi_target: bool = option(
        False, "Explain K targets of each image from one forward pass: `target` is [N, K]."
    )
    live_temperature: bool = option(False, "Make the temperature an input of the graph.")
    live: Sequence[str] = option(
        (),
        "Other parameters of the method to make inputs of the graph: relu, max_pool. On the "
        "command line, the option again for more.",
        unset="none",
    )
    step: bool = option(
        False,
        "Add a step of feature accentuation: the output next_image, from the inputs origin, "
        "alpha, eps and limit.",
    )
    unroll: int | None = option(
        None, "Instead of explaining, accentuate in one call of this many steps."
    )
    kernels: bool = option(
        False,
        "Keep the operations that onnxplain-kernels fuses as calls of functions in the file; "
        "without that package, ONNX Runtime runs the functions' bodies.",
    )
    input: str | None = option(None, "The image input, where an ONNX file has several.")
    wrt: str | Sequence[str] | None = option(
        None,
        "What to explain by instead of the image: any input of floats, or any value within, as the "
        "embeddings of words; all inputs stay inputs. On the command line, the option again for "
        "more.",
        unset="the image; else the only input of floats, or the embedding of the only tokens",
    )
    output: str | None = option(None, "The logits, where an ONNX file has several outputs.")
    layer: str | Sequence[str] | None = option(
        None,
        "For gradcam and its like: the layer to look at, a PyTorch module's path "
        "(layer4.2) or the name of an ONNX value or node. Of several, on the command line the "
        "option again, the mean of their maps, each scaled to [0, 1].",
        unset="the last with height and width; of a transformer the last tokens that are read",
    )
    picture: str | PictureOptions | None = option(
        None,
        "Draw the explanation in the graph too: the output picture, uint8 [N, h, w, 3], ready for "
        "a screen. heatmap, overlay, signed or pullback, as `onnxplain explain --style` draws "
        "them; with options behind commas, overlay,colours=cividis,alpha=0.6.",
        unset="no picture",
    )
    topk: int | None = option(
        None,
        "Of a classifier: put out the likeliest classes too, top_classes and top_probabilities, "
        "so many.",
        least=1,
        unset="none",
    )
    check: bool = option(
        True,
        "Compare the logits with the network's own, on two images of noise, before the file takes "
        "its place.",
    )
    budget: float = option(
        1.0,
        "What the network may grow to, as a multiple of the usual limits: 200,000 nodes once its "
        "functions and loops are written out.",
        above=0,
    )
    progress: Callable[[str], None] = option(
        lambda stage: None, "Called with each of `onnxplain.export.STAGES` as it begins."
    )

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """Those of `size`; None where it is not given, or any.

        Raises:
            InputError: it is another word.
        """
        if self.size is None or self.any_size:
            return None
        sides: Any = self.size
        height, width = (sides, sides) if isinstance(sides, Integral) else sides
        return int(height), int(width)

    @property
    def any_size(self) -> bool:
        """Whether height and width stay open.

        Raises:
            InputError: `size` is another word.
        """
        if isinstance(self.size, str) and self.size != ANY:
            raise InputError(f"size is a number, height and width, or {ANY!r}; not {self.size!r}")
        return isinstance(self.size, str)

    @property
    def layers(self) -> tuple[str, ...]:
        """Those asked for."""
        if isinstance(self.layer, str):
            return (self.layer,)
        return tuple(self.layer or ())

    def check_choices(self) -> None:
        """
        Raises:
            SourceError: a choice that there is not.
            InputError: `size` is another word than any.
        """
        _ = self.any_size
        for name, declaration in declared(ExportOptions).items():
            value = getattr(self, name)
            if declaration.choices and value is not None and value not in declaration.choices:
                raise SourceError(f"{name} is {' or '.join(declaration.choices)}, not {value!r}")

    @property
    def ascends(self) -> bool:
        """Whether the graph changes the image along the pullback."""
        return self.step or self.unroll is not None


def joined(names: Iterable[str]) -> str:
    """Layers or nodes as a file's parameters name them: `as_asked` parts them again."""
    return _BETWEEN.join(name.replace(_BETWEEN, _WITHIN) for name in names)


def as_asked(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The options that ask for the parameters that a file's metadata name."""
    named = {"temperature", "layer", "objective", "times_image", "excepted"}
    named |= {CHANNELS, RULES, SIZES, ATTENTIONS, "concept_layer"}
    own = {name: value for name, value in parameters.items() if name in named}
    others = {name: value for name, value in parameters.items() if name not in own}
    for name in {"excepted", "layer", RULES, SIZES} & own.keys():
        own[name] = [part.replace(_WITHIN, _BETWEEN) for part in own[name].split(_BETWEEN)]
    if RULES in own:  # of the name of a rule none has an equals sign, of that of a layer some may
        own[RULES] = dict(part.rsplit("=", 1) for part in own[RULES])
    if SIZES in own:
        parts = (part.rsplit("=", 1) for part in own[SIZES])
        own[SIZES] = {name: int(size) for name, size in parts}
    return {**own, "parameters": others}
