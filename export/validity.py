"""Which of an export's options go together, and with which method and objective."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxplain.contract.explain import MAP, NO_DIRECTIONS, PRODUCT, RELEVANCE, TARGET
from onnxplain.contract.names import an_estimator, check_either
from onnxplain.contract.objective import CLASS
from onnxplain.contract.request import (
    ATTENTIONS,
    BGR,
    CHANNELS,
    RULES,
    SIZES,
    ExportOptions,
    joined,
)
from onnxplain.errors import SourceError
from onnxplain.export.estimators import ESTIMATORS, Estimator, get_estimator
from onnxplain.export.methods import METHODS, Method, get_method
from onnxplain.export.methods.layer_rules import with_rules
from onnxplain.export.methods.method import TEMPERATURE
from onnxplain.export.objectives import LOGIT, Objective, get_objective
from onnxplain.export.objectives.from_file import SUFFIX, of_file
from onnxplain.export.objectives.own import of_function
from onnxplain.export.parameters import Parameter


def method_of(options: ExportOptions) -> Method:
    """The method asked for, with its rules of layers.

    Raises:
        SourceError: there is none of that name, but perhaps an estimator; or no such rule.
    """
    name = options.method
    estimator = ESTIMATORS.find(name)
    if estimator is not None and METHODS.find(name) is None:
        raise SourceError(an_estimator(estimator.name))
    return with_rules(get_method(name), options.rules or {})


def estimator_of(method: Method, options: ExportOptions) -> Estimator | None:
    """The estimator asked for; None where the method is asked at the image alone.

    Raises:
        SourceError: there is none of that name, or it does not go together with the method or with
            other options.
    """
    if options.estimator is None:
        return None
    estimator = get_estimator(options.estimator)
    name, kind = repr(estimator.name), PRODUCT if options.times_image else method.kind
    if options.ascends:
        raise SourceError(f"an ascent asks at its own images; leave out the estimator {name}")
    if kind not in estimator.kinds:
        whose = "times_image" if options.times_image else repr(method.name)
        raise SourceError(
            f"estimator {name} is not for {NO_DIRECTIONS.get(kind, 'directions')}, which {whose} "
            "gives; it asks a method of gradients, such as gradient or excitation"
        )
    return estimator


def divided(
    method: Method, estimator: Estimator | None, options: ExportOptions
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters given to the method, and the values of all of the estimator's.

    Raises:
        SourceError: neither has one of them, both have, or a value is out of its range.
    """
    given = dict(options.parameters or {})
    if estimator is None:
        return given, {}
    own = {one.name for one in method.own}
    others = {one.name for one in estimator.own}
    check_either(method.name, own, estimator.name, others, given)
    asked = {name: value for name, value in given.items() if name in others}
    return {n: v for n, v in given.items() if n in own}, estimator.values(asked)


def parameters_of(
    method: Method, options: ExportOptions, given: Mapping[str, Any]
) -> dict[str, float | None]:
    """The values of the method's parameters that the options ask for, once all of them are valid.

    Args:
        given: those that are given to it by name.

    Raises:
        SourceError: a parameter that the method does not have or a value out of its range, or
            options that do not go together; the message says which.
    """
    given = dict(given)
    if options.temperature is not None:
        if TEMPERATURE in given:
            raise SourceError("the temperature is given twice, also as a parameter: choose one")
        given[TEMPERATURE] = options.temperature
    values = method.values(given)
    name = repr(method.name)
    for wrong, message in (
        (
            options.live_temperature and not method.has_temperature,
            f"method {name} has no temperature to make live",
        ),
        (
            options.times_image and (options.ascends or method.kind == MAP),
            "times_image is for an explanation of the image itself: leave it out",
        ),
        (
            options.times_image and method.kind in (RELEVANCE, PRODUCT),
            f"{name} already counts the image in: leave out times_image",
        ),
        (
            options.concept_layer is not None
            and method.relevance is None
            and not (method.times_input and not method.factors),
            f"concepts are a condition on relevances, and {name} gives none; choose an lrp method, "
            "attn-lrp or cp-lrp",
        ),
        (
            options.layers and method.attends and not method.makes_maps,
            f"method {name} takes every layer of attention; leave out the layer",
        ),
        (
            options.layers and not method.makes_maps,
            f"method {name} goes down to the image; leave out the layer",
        ),
        (
            options.ascends and method.kind == MAP,
            f"an ascent needs a pullback of the image; {name} gives a map alone",
        ),
        (
            options.ascends and method.kind in (RELEVANCE, PRODUCT),
            f"{name} gives {NO_DIRECTIONS.get(method.kind)}, not a direction in which to change "
            "the image: ascend along another method, such as excitation",
        ),
    ):
        if wrong:
            raise SourceError(message)
    return values


def live_of(method: Method, options: ExportOptions) -> list[str]:
    """The method's parameters that are inputs of the graph.

    Raises:
        SourceError: the method does not have one of them, or it is given twice.
    """
    names = [*([TEMPERATURE] if options.live_temperature else []), *options.live]
    method.check_known(names)
    for own in method.own:
        if own.name in names and not isinstance(own, Parameter):
            raise SourceError(f"{own.name} is decided at export; it cannot be live")
    if len(set(names)) < len(names):
        raise SourceError(f"{', '.join(names)}: one is to be live twice")
    return names


def objective_of(options: ExportOptions) -> Objective | None:
    """The objective asked for; None where the network's outputs are to show it.

    Raises:
        SourceError: there is none of that name; or a file that is none.
    """
    asked = options.objective
    if asked is None or isinstance(asked, Objective):
        return asked
    if isinstance(asked, str) and asked.endswith(SUFFIX):
        return of_file(Path(asked))
    if isinstance(asked, str):
        return LOGIT if asked == CLASS else get_objective(asked)
    assert callable(asked)
    return of_function(asked)


def check_objective(objective: Objective, options: ExportOptions) -> None:
    """Hold the options to what an objective allows.

    Raises:
        SourceError: options that do not go together with it.
    """
    name, of_class = repr(objective.name), objective.cotangent is not None
    for wrong, message in (
        (
            of_class and options.settings,
            f"objective {name} has no settings; leave them out",
        ),
        (
            options.multi_target
            and not of_class
            and all(i.name != TARGET for i in objective.inputs),
            f"objective {name} has no target to give several of; leave out multi_target",
        ),
        (
            options.unroll is not None and not of_class,
            f"unroll follows a class's logit; of objective {name} use step",
        ),
        (
            options.topk is not None and not of_class,
            f"topk ranks a classifier's classes; of objective {name} leave it out",
        ),
    ):
        if wrong:
            raise SourceError(message)


def other_choices(options: ExportOptions, objective: Objective) -> dict[str, Any]:
    """What the file notes beside the method's parameters, where it is not the default."""
    chosen: dict[str, Any] = {}
    if objective.cotangent is not None and objective is not LOGIT:
        chosen["objective"] = objective.name
    if options.times_image:
        chosen["times_image"] = True
    if options.channels == BGR:
        chosen[CHANNELS] = BGR
    if options.excepted:
        chosen["excepted"] = joined(options.excepted)
    if options.attentions:
        chosen[ATTENTIONS] = True
    if options.concept_layer is not None:
        chosen["concept_layer"] = options.concept_layer
    if options.rules:
        chosen[RULES] = joined(f"{where}={rule}" for where, rule in options.rules.items())
    if options.sizes:
        chosen[SIZES] = joined(f"{name}={size}" for name, size in options.sizes.items())
    return chosen
