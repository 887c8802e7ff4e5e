"""Outputs with the names of what an explain graph adds, and objectives given as objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from onnxplain.contract.explain import OPTIONAL_INPUTS, RESERVED, TARGET
from onnxplain.errors import InputError, SourceError
from onnxplain.export import Fit, Input, Objective
from onnxplain.export.objectives.own import of_function
from onnxplain.runtime.onnx_file import read_ports

from .networks import close, exported, gradient, images, vector

X = images()


class Named(nn.Module):
    """A vector of five numbers, by a name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network, self.name = vector(5), name

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {self.name: self.network(x)}


@pytest.mark.usefixtures("compared")
@pytest.mark.parametrize(
    ("name", "options", "given"),
    [
        ("query", {"objective": "embedding", "settings": {"similarity": "dot"}}, {"query": True}),
        ("direction", {"objective": "value"}, {"targets": 2, "direction": -1}),
        ("explained_class", {"objective": "value"}, {"targets": 2}),
        ("objective", {"objective": "value"}, {"targets": 2}),
        ("alpha", {"objective": "value", "step": True}, {"targets": 2}),
    ],
)
def test_an_output_of_a_name_that_the_graph_needs(
    name: str, options: dict[str, Any], given: dict[str, Any]
) -> None:
    network = Named(name).eval()
    explainer = exported(network, **options)
    assert not any("not checked" in note for note in explainer.metadata.notes)
    q = np.arange(5.0)
    explanation = explainer(X.numpy(), **{**given, **({"query": q} if "query" in given else {})})
    value, expected = gradient(
        network,
        X,
        lambda y: (
            (y[name] * Tensor(q).double()).sum(1)
            if "query" in given
            else given.get("direction", 1) * y[name][:, 2]
        ),
    )
    close(explanation.objective, value)
    close(explanation.pullback, expected)
    close(explanation.outputs[f"source.{name}"], network(X)[name].detach().numpy())
    if name == "explained_class":
        np.testing.assert_array_equal(explanation.targets, [2, 2])


def test_an_output_of_another_name_keeps_it() -> None:
    """As one would that is the name of an input that this file does not have."""
    explainer = exported(Named("limit").eval(), objective="value")
    assert "limit" in read_ports(explainer.path)[1]


@pytest.mark.parametrize("name", sorted({*RESERVED, *OPTIONAL_INPUTS} - {TARGET}))
def test_no_input_of_an_objective_has_a_name_of_the_contract(name: str) -> None:
    own = of_function(len)
    with pytest.raises(ValueError, match="of a taken one"):
        Objective("own", "mine", own.fits, own.emit, (Input(name, "what"),))


def total(**others: Any) -> Objective:
    """A number of a vector; beside it what `others` make of all of them."""

    def fits(network: Any, settings: Any) -> Fit:
        (output,) = network.outputs
        return Fit({"y": output}, {output.name: ("batch", "class")}, "it is", classes=5, ranks=5)

    def emit(op: Any, fit: Fit, inputs: Any) -> Any:
        y = fit.outputs["y"].with_batch_first(op)
        hot = op.CastLike(op.Equal(op.Unsqueeze(inputs["target"], [1]), [0, 1, 2, 3, 4]), y)
        chosen = op.ReduceSum(op.Mul(y, hot), [1], keepdims=0)
        return chosen, {name: make(op, y) for name, make in others.items()}

    target = Input("target", "which", "index", 0)
    return Objective("total", "a number", fits, emit, (target,))


def test_an_objective_that_is_not_registered() -> None:
    explainer = exported(vector(5), objective=total())
    close(explainer(X.numpy(), 3).pullback, gradient(vector(5), X, lambda y: y[:, 3])[1])
    with pytest.raises(InputError, match="objective must be a string or an Objective or a functio"):
        exported(vector(5), objective=3)


def test_an_output_that_no_target_changes_is_the_same_for_each() -> None:
    own = total(greatest=lambda op, y: op.ReduceMax(y, [1], keepdims=1))
    explainer = exported(vector(5), objective=own, multi_target=True)
    found = explainer(X.numpy(), [[0, 3, 4]] * 2).outputs["greatest"]
    expected = vector(5)(X).detach().numpy().max(1)
    close(found, np.repeat(expected[:, None, None], 3, axis=1))


def test_an_output_that_the_network_has_too() -> None:
    own = total(embedding=lambda op, y: op.Identity(y))
    with pytest.raises(SourceError, match="'total' puts out 'embedding', and so does the network"):
        exported(Named("embedding").eval(), objective=own)


def test_a_live_parameter_of_the_name_of_a_value() -> None:
    options = {"objective": "value", "method": "excitation", "live_temperature": True}
    explainer = exported(Named("temperature").eval(), **options)
    explanation = explainer(X.numpy(), 1, temperature=0.5)
    assert set(explanation.outputs) == {"source.temperature", "explained_class"}
