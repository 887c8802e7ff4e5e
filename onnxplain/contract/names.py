"""What the package itself brings, by name: for a wrong name to be told before the rules, which need
seconds to be imported. `onnxplain.export` declares each in full, and a test holds the two alike.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnxplain.contract.explain import Range
from onnxplain.contract.objective import CLASS
from onnxplain.contract.request import ExportOptions
from onnxplain.errors import SourceError
from onnxplain.suggest import called, unknown

EXTENSIONS = "onnxplain"
"""The entry points by which a package names the module that registers more."""


@dataclass(frozen=True)
class Named:
    """What is called so: its parameters' names, and what else it is called."""

    parameters: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


_PROBES = Named(("chunk",))
_LRP = Named(("epsilon", "stabilizer"))
_NOISE = Named(("samples", "sigma", "seed", "chunk"))

METHODS: Mapping[str, Named] = {
    "gradient": Named(aliases=("saliency", "vanilla-gradient", "gradients")),
    "guided": Named(aliases=("guided-backprop", "guided-backpropagation", "guided-gradient")),
    "deconvnet": Named(aliases=("deconvolution", "deconv")),
    "input-x-gradient": Named(
        aliases=("input*gradient", "gradient-x-input", "gradient*input", "input-times-gradient")
    ),
    "gradcam": Named(),
    "gradcam++": Named(aliases=("gradcampp", "gradcam-plus-plus")),
    **dict.fromkeys(("xgradcam", "layercam", "hirescam", "eigencam", "eigengradcam"), Named()),
    **dict.fromkeys(("scorecam", "ablationcam"), _PROBES),
    "excitation": Named(("temperature", "relu", "max_pool"), ("excitation-pullback",)),
    "lrp-zplus": Named(("epsilon",), ("lrp-z+", "zplus", "z+")),
    "lrp-epsilon": Named(("epsilon",), ("lrp", "epsilon-lrp")),
    "epsilon-plus": Named(("epsilon",)),
    "lrp-epsilon-plus": _LRP,
    "lrp-epsilon-plus-flat": _LRP,
    "lrp-epsilon-gamma-box": Named(("epsilon", "stabilizer", "gamma")),
    "lrp-epsilon-alpha2-beta1": _LRP,
    "lrp-epsilon-alpha2-beta1-flat": _LRP,
    "guided-gradcam": Named(),
    "attention-rollout": Named(aliases=("rollout",)),
    "transformer-attribution": Named(),
    "legrad": Named(),
    "semantic": Named(
        ("temperature", "relu", "gelu", "silu", "max_pool", "attention"), ("semantic-pullback",)
    ),
    "attn-lrp": Named(),
    "cp-lrp": Named(),
}

ESTIMATORS: Mapping[str, Named] = {
    "integrated-gradients": Named(("steps", "baseline", "rule", "chunk"), ("ig",)),
    "expected-gradients": Named(("samples", "seed", "chunk"), ("gradient-shap",)),
    **dict.fromkeys(("smoothgrad", "smoothgrad-squared", "vargrad"), _NOISE),
}

OBJECTIVES: Mapping[str, Named] = dict.fromkeys(
    ("detection", "embedding", "segment", "sequence", "value", "logit", "cross-entropy", "energy"),
    Named(),
)

RULES: Mapping[str, Named] = dict.fromkeys(
    ("epsilon", "z-plus", "gamma", "alpha-beta", "flat", "w-square", "box"), Named()
)

TIMES = "*"
"""Between the names of a product's factors."""


def check_names(options: ExportOptions) -> None:
    """Hold an export's options to what there is, by name.

    Where `onnxplain.export` is imported, or an installed package extends it, its own tables may
    hold more, and say it themselves.

    Raises:
        SourceError: no such method, estimator, objective or rule, or no such parameter of them.
    """
    if "onnxplain.export" in sys.modules:
        return
    try:
        _check(options)
    except SourceError:
        from importlib.metadata import entry_points  # which takes time to import

        if not entry_points(group=EXTENSIONS):
            raise


def _check(options: ExportOptions) -> None:
    """
    Raises:
        SourceError: the package itself brings nothing of that name.
    """
    method = options.method
    estimator = None
    if options.estimator is not None:
        estimator = _named("estimator", options.estimator, ESTIMATORS)
    for rule in (options.rules or {}).values():
        _named("rule", rule, RULES)
    asked = options.objective
    if isinstance(asked, str) and asked != CLASS and not asked.endswith(".onnx"):
        _named("objective", asked, OBJECTIVES)
    if called(method, METHODS) is None:
        if (found := called(method, ESTIMATORS)) is not None:
            raise SourceError(an_estimator(found))
        for factor in method.split(TIMES):
            _named("method", factor.strip(), METHODS)
        return  # a product's parameters are its factors'
    name = _named("method", method, METHODS)
    if options.temperature is not None and options.temperature not in Range():
        raise SourceError(f"temperature {Range().refusal(options.temperature)}")
    own = METHODS[name].parameters
    live = [*(["temperature"] if options.live_temperature else []), *options.live]
    if options.rules:  # each has parameters of its own
        return
    given = [*(options.parameters or {}), *([] if options.temperature is None else ["temperature"])]
    if estimator is None:
        check_parameters(name, [*given, *live], own)
    elif others := set(given) - {*own, *ESTIMATORS[estimator].parameters}:
        raise SourceError(neither(name, own, estimator, ESTIMATORS[estimator].parameters, others))


def _named(what: str, name: str, table: Mapping[str, Named]) -> str:
    """
    Raises:
        SourceError: nothing in the table is called so.
    """
    found = called(name, table)
    if found is None:
        raise SourceError(unknown(what, name, table))
    return found


def an_estimator(name: str) -> str:
    """The sentence that says that what is given as a method is the name of an estimator."""
    return (
        f"{name} asks a method at many images: choose one, such as method='gradient', and "
        f"estimator='{name}'"
    )


def check_parameters(method: str, given: Iterable[str], own: Iterable[str]) -> None:
    """
    Raises:
        SourceError: one that is given is none of the method's own.
    """
    own = list(own)
    for name in given:
        if name not in own:
            others = f" (it has {', '.join(own)})" if own else ""
            raise SourceError(f"method {method!r} has no {name}; leave it out{others}")


def neither(
    method: str, own: Iterable[str], estimator: str, others: Iterable[str], names: Iterable[str]
) -> str:
    """The sentence that says that neither has a parameter."""
    has = ", ".join(sorted({*own, *others}))
    return (
        f"neither method {method!r} nor estimator {estimator!r} has {min(names)}; they have {has}"
    )
