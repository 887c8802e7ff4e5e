"""What the package itself brings, by name: for a wrong name to be told before the rules, which need
seconds to be imported. `onnxplain.export` declares each in full, and a test holds the two alike.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from onnxplain.contract.objective import CLASS
from onnxplain.contract.ranges import Domain, Range, Whole, Words
from onnxplain.contract.request import ExportOptions
from onnxplain.errors import SourceError
from onnxplain.suggest import called, unknown

EXTENSIONS = "onnxplain"
"""The entry points by which a package names the module that registers more."""


@dataclass(frozen=True)
class Named:
    """What is called so: the domains of its parameters, by name, and its aliases."""

    parameters: Mapping[str, Domain] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


def _positive(*names: str) -> dict[str, Domain]:
    return dict.fromkeys(names, Range())


_CHUNK: dict[str, Domain] = {"chunk": Whole()}
_PROBES = Named(_CHUNK)
_LRP = Named(_positive("epsilon", "stabilizer"))
_SEED: dict[str, Domain] = {"seed": Whole(0, 2**31 - 1)}
_NOISE = Named({"samples": Whole(), "sigma": Range(0, 10, closed=True), **_SEED, **_CHUNK})

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
    "excitation": Named(_positive("temperature", "relu", "max_pool"), ("excitation-pullback",)),
    "lrp-zplus": Named(_positive("epsilon"), ("lrp-z+", "zplus", "z+")),
    "lrp-epsilon": Named(_positive("epsilon"), ("lrp", "epsilon-lrp")),
    "epsilon-plus": Named(_positive("epsilon")),
    "lrp-epsilon-plus": _LRP,
    "lrp-epsilon-plus-flat": _LRP,
    "lrp-epsilon-gamma-box": Named(
        {**_positive("epsilon", "stabilizer"), "gamma": Range(0, 1e6, closed=True)}
    ),
    "lrp-epsilon-alpha2-beta1": _LRP,
    "lrp-epsilon-alpha2-beta1-flat": _LRP,
    "guided-gradcam": Named(),
    "attention-rollout": Named(aliases=("rollout",)),
    "transformer-attribution": Named(),
    "legrad": Named(),
    "semantic": Named(
        _positive("temperature", "relu", "gelu", "silu", "max_pool", "attention"),
        ("semantic-pullback",),
    ),
    "attn-lrp": Named(),
    "cp-lrp": Named(),
}

ESTIMATORS: Mapping[str, Named] = {
    "integrated-gradients": Named(
        {
            "steps": Whole(),
            "baseline": Words(("zero", "black", "mean", "blur", "image"), several=True),
            "rule": Words(("gauss-legendre", "trapezoid")),
            **_CHUNK,
        },
        ("ig",),
    ),
    "expected-gradients": Named({"samples": Whole(), **_SEED, **_CHUNK}, ("gradient-shap",)),
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
    estimator = None
    if options.estimator is not None:
        estimator = _named("estimator", options.estimator, ESTIMATORS)
    for rule in (options.rules or {}).values():
        _named("rule", rule, RULES)
    asked = options.objective
    if isinstance(asked, str) and asked != CLASS and not asked.endswith(".onnx"):
        _named("objective", asked, OBJECTIVES)
    name, own = _method(options.method)
    if options.rules:  # each has parameters of its own
        return
    live = [*(["temperature"] if options.live_temperature else []), *options.live]
    given = dict(options.parameters or {})
    if options.temperature is not None:
        given["temperature"] = options.temperature
    others = {} if estimator is None else ESTIMATORS[estimator].parameters
    if estimator is None:
        check_parameters(name, [*given, *live], own)
    else:
        check_either(name, own, estimator, others, given)
    for each, value in given.items():
        allowed = {**own, **others}[each]
        if value not in allowed:
            raise SourceError(f"{each} {allowed.refusal(value)}")


def _method(name: str) -> tuple[str, Mapping[str, Domain]]:
    """What a method or a product is called, and its parameters.

    Raises:
        SourceError: there is none.
    """
    if (found := called(name, METHODS)) is not None:
        return found, METHODS[found].parameters
    if (found := called(name, ESTIMATORS)) is not None:
        raise SourceError(an_estimator(found))
    factors = [_named("method", factor.strip(), METHODS) for factor in name.split(TIMES)]
    product, own = TIMES.join(factors), [METHODS[factor].parameters for factor in factors]
    # Factors that probe have a chunk in common.
    check_factors(product, (each for one in own for each in one if each not in _CHUNK))
    return product, {each: values for one in own for each, values in one.items()}


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


def check_factors(product: str, parameters: Iterable[str]) -> None:
    """
    Raises:
        SourceError: two of a product's factors have parameters of one name, of which either may be
            meant.
    """
    if both := [name for name, times in Counter(parameters).items() if times > 1]:
        raise SourceError(
            f"two factors of {product!r} have {both[0]}, and only one could be told what it is; "
            "choose others"
        )


def check_either(
    method: str,
    own: Iterable[str],
    estimator: str,
    others: Iterable[str],
    given: Iterable[str],
) -> None:
    """
    Raises:
        SourceError: a parameter that is given is of neither the method nor the estimator, or of
            both.
    """
    own, others, given = set(own), set(others), set(given)
    if both := sorted(own & others & given):
        raise SourceError(
            f"method {method!r} and estimator {estimator!r} both have {both[0]}; leave it out"
        )
    if neither := sorted(given - own - others):
        has = ", ".join(sorted(own | others))
        raise SourceError(
            f"neither method {method!r} nor estimator {estimator!r} has {neither[0]}; they have "
            f"{has}"
        )
