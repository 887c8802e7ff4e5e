"""Derivatives of any file: beside PyTorch's own, and what is said where there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import onnxplain
from onnxplain.bench.rivals.energies import Energy, molecules, write
from onnxplain.cli.app import app
from onnxplain.contract.derivatives import Derivatives
from onnxplain.errors import InputError, NoRuleError, SourceError
from onnxplain.export.differentiate import STAGES
from onnxplain.export.finish import clean
from onnxplain.reference.float64 import evaluator

from .graphs import operators, session

Array = np.ndarray
node = helper.make_node
DOUBLE, FLOAT, HALF = TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16
INT64 = TensorProto.INT64
EXACT = 1e-12


@pytest.fixture(scope="module")
def energy() -> Energy:
    return Energy().eval()


@pytest.fixture(scope="module")
def energy_file(energy: Energy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(energy, tmp_path_factory.mktemp("energy") / "energy.onnx")


def run(path: Path, **feeds: Any) -> dict[str, Array]:
    """The outputs by name; a dot in an input's name is written as two underscores."""
    ready = session(path)
    given = {name.replace("__", "."): np.asarray(value) for name, value in feeds.items()}
    names = [y.name for y in ready.get_outputs()]
    return dict(zip(names, ready.run(None, given), strict=True))


def error(found: Array, expected: torch.Tensor) -> float:
    assert found.shape == tuple(expected.shape)
    reference = expected.detach().numpy()
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Mapping[str, int],
    weights: Mapping[str, Any] | None = None,
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "handmade",
        [helper.make_tensor_value_info(n, dtype, list(s)) for n, (dtype, s) in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, None) for name, dtype in outputs.items()],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


W = np.random.default_rng(0).standard_normal((4, 3))


def tanh_file(path: Path, batch: int | str = "N", dtype: int = DOUBLE) -> Path:
    """y = tanh(x·W) [batch, 3], h = x·W, and s, the sum of y² over all."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    nodes = [
        node("MatMul", ["x", "W"], ["h"]),
        node("Tanh", ["h"], ["y"]),
        node("Mul", ["y", "y"], ["squares"]),
        node("ReduceSum", ["squares"], ["s"], keepdims=0),
    ]
    outputs = {"y": dtype, "h": dtype, "s": dtype}
    return save(path, nodes, {"x": (dtype, [batch, 4])}, outputs, {"W": W.astype(kind)})


def rows(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal(shape))


def of_tanh(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x @ torch.from_numpy(W))


# ----- energies -----


def test_forces_and_hessian_products_are_those_of_torch_func(
    energy: Energy, energy_file: Path, tmp_path: Path
) -> None:
    """In float64, for numbers of molecules and of atoms that the exporter did not see."""
    made = onnxplain.differentiate(
        energy_file, tmp_path / "d.onnx", of="energy", wrt=["positions"], second=True
    )
    assert list(made.outputs) == ["grad.positions", "hvp.positions"]
    assert list(made.inputs) == ["direction.positions"]
    assert made.notes == ()
    for count, atoms in ((1, 7), (4, 2)):
        positions, kinds = molecules(count, atoms)
        v = torch.from_numpy(np.random.default_rng(2).standard_normal(positions.shape))

        def total(x: torch.Tensor, kinds: torch.Tensor = kinds) -> torch.Tensor:
            return energy(x, kinds).sum()

        found = run(tmp_path / "d.onnx", positions=positions, kinds=kinds, direction__positions=v)
        gradient = torch.func.grad(total)
        assert error(found["energy"], energy(positions, kinds)) < EXACT
        assert error(found["grad.positions"], gradient(positions)) < EXACT
        product = torch.func.jvp(gradient, (positions,), (v,))[1]
        assert error(found["hvp.positions"], product) < EXACT


def test_a_seed_that_is_an_input_gives_the_vector_jacobian_product(
    energy: Energy, energy_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "d.onnx"
    made = onnxplain.differentiate(energy_file, path, wrt="positions", seed="input")
    assert list(made.inputs) == ["seed.energy"]
    positions, kinds = molecules(3, 4)
    seed = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    found = run(path, positions=positions, kinds=kinds, seed__energy=seed)
    _, pull = torch.func.vjp(lambda x: energy(x, kinds), positions)
    assert error(found["grad.positions"], pull(seed)[0]) < EXACT


def test_an_inner_value_and_a_weight_have_a_gradient_too(
    energy: Energy, energy_file: Path, tmp_path: Path
) -> None:
    """The features of the atoms, which are made of whole numbers, and the embedding itself."""
    graph = onnx.load(energy_file).graph
    features = next(n.output[0] for n in graph.node if n.op_type == "Gather")
    path = tmp_path / "d.onnx"
    onnxplain.differentiate(energy_file, path, of="energy", wrt=[features, "kinds.weight"])
    positions, kinds = molecules(2, 3)
    found = run(path, positions=positions, kinds=kinds)
    assert found[f"grad.{features}"].shape == (2, 3, 6)
    table = dict(energy.named_parameters())["kinds.weight"]
    (expected,) = torch.autograd.grad(energy(positions, kinds).sum(), table)
    assert error(found["grad.kinds.weight"], expected) < EXACT
    summed = np.zeros(tuple(table.shape))
    np.add.at(summed, kinds.numpy(), found[f"grad.{features}"])
    assert error(summed, expected) < EXACT


def test_a_size_can_be_fixed(energy_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "d.onnx"
    onnxplain.differentiate(energy_file, path, wrt="positions", sizes={"atoms": 3}, check=False)
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*onnx.load(path).graph.input, *onnx.load(path).graph.output)
    }
    assert shapes["positions"] == shapes["grad.positions"] == ["batch", 3, 3]
    assert shapes["energy"] == ["batch"]


# ----- Jacobians -----


def test_the_jacobian_of_a_batch_is_that_of_each_sample(tmp_path: Path) -> None:
    path, x = tmp_path / "d.onnx", rows(5, 4)
    made = onnxplain.differentiate(
        tanh_file(tmp_path / "m.onnx"), path, of="y", wrt="x", jacobian=True
    )
    assert made.outputs == {"jacobian.y.x": "of y by x"}
    found = run(path, x=x)
    assert error(found["jacobian.y.x"], torch.func.vmap(torch.func.jacrev(of_tanh))(x)) < EXACT
    assert error(found["y"], of_tanh(x)) < EXACT


def test_a_fixed_graph_has_the_whole_jacobian(tmp_path: Path) -> None:
    """Of several outputs by several values."""
    path, x = tmp_path / "d.onnx", rows(2, 4)
    source = tanh_file(tmp_path / "m.onnx", batch=2)
    onnxplain.differentiate(source, path, of=["y", "s"], wrt=["x", "W"], jacobian=True)
    found, w = run(path, x=x), torch.from_numpy(W)

    def y(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ w)

    def s(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return y(x, w).square().sum()

    for name, function in (("y", y), ("s", s)):
        by_x, by_w = torch.func.jacrev(function, argnums=(0, 1))(x, w)
        assert error(found[f"jacobian.{name}.x"], by_x) < EXACT
        assert error(found[f"jacobian.{name}.W"], by_w) < EXACT


def test_a_hessian_is_the_jacobian_of_a_gradient(tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    onnxplain.differentiate(tanh_file(tmp_path / "m.onnx", batch=1), first, of="s")
    onnxplain.differentiate(first, second, of="grad.x", wrt="x", jacobian=True)
    x = rows(1, 4)
    expected = torch.func.hessian(lambda x: of_tanh(x).square().sum())(x)
    assert error(run(second, x=x)["jacobian.grad.x.x"], expected) < EXACT


def test_the_jacobian_of_each_energy_is_its_gradient(
    energy: Energy, energy_file: Path, tmp_path: Path
) -> None:
    """Through an embedding, with any number of atoms."""
    path = tmp_path / "d.onnx"
    onnxplain.differentiate(energy_file, path, wrt="positions", jacobian=True)
    positions, kinds = molecules(3, 4)
    found = run(path, positions=positions, kinds=kinds)
    expected = torch.func.grad(lambda x: energy(x, kinds).sum())(positions)
    assert error(found["jacobian.energy.positions"], expected) < EXACT


def test_samples_stay_apart_wherever_their_axis_goes(tmp_path: Path) -> None:
    """Second, joined with heads before and behind it, and first again, as in attention."""
    nodes = [
        node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),  # [4, N, 6]
        node("Reshape", ["steps", "heads"], ["joined"]),  # [4, N · 2, 3]
        node("Transpose", ["joined"], ["stacked"], perm=[1, 0, 2]),  # [N · 2, 4, 3]
        node("Transpose", ["joined"], ["keys"], perm=[1, 2, 0]),
        node("MatMul", ["stacked", "keys"], ["scores"]),
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "stacked"], ["values"]),
        node("Transpose", ["values"], ["again"], perm=[1, 0, 2]),
        node("Reshape", ["again", "rows"], ["flat"]),  # [4 · N, 6]
        node("LayerNormalization", ["flat", "scale"], ["normal"]),
        node("Reshape", ["normal", "apart"], ["last"]),
        node("ReduceSum", ["last", "first"], ["y"], keepdims=0),
    ]
    weights = {
        **{"heads": np.array([4, -1, 3]), "rows": np.array([-1, 6]), "first": np.array([0])},
        **{"apart": np.array([4, -1, 6]), "scale": np.linspace(1, 2, 6)},
    }
    source = save(tmp_path / "m.onnx", nodes, {"x": (DOUBLE, ["N", 4, 6])}, {"y": DOUBLE}, weights)
    onnxplain.differentiate(source, tmp_path / "d.onnx", jacobian=True, check=False)

    def each(x: torch.Tensor) -> torch.Tensor:
        heads = x.reshape(4, 2, 3).transpose(0, 1)
        weights = torch.softmax(heads @ heads.transpose(1, 2), -1)
        flat = (weights @ heads).transpose(0, 1).reshape(4, 6)
        scale = torch.linspace(1, 2, 6, dtype=torch.float64)
        return torch.nn.functional.layer_norm(flat, (6,), scale).sum(0)

    x = rows(3, 4, 6)
    graph = evaluator(onnx.load(tmp_path / "d.onnx"))
    _, found = graph.run(None, {"x": x.numpy()})
    assert error(found, torch.func.vmap(torch.func.jacrev(each))(x)) < EXACT


MIXING: dict[str, list[onnx.NodeProto]] = {
    "Softmax": [node("Softmax", ["x"], ["y"], axis=0)],
    "CumSum": [node("CumSum", ["x", "zero"], ["y"])],
    "ReduceSum": [node("ReduceSum", ["x", "zeros"], ["s"]), node("Add", ["x", "s"], ["y"])],
    "MatMul": [
        node("Transpose", ["x"], ["t"]),
        node("MatMul", ["t", "x"], ["square"]),
        node("MatMul", ["x", "square"], ["y"]),
    ],
    "Reshape": [
        node("Transpose", ["x"], ["t"]),
        node("Reshape", ["t", "wide"], ["r"]),
        node("Mul", ["x", "r"], ["y"]),
    ],
    "Transpose": [
        node("Unsqueeze", ["x", "zeros"], ["u"]),
        node("MatMul", ["u", "W"], ["m"]),
        node("Squeeze", ["m", "zeros"], ["v"]),
        node("Transpose", ["v"], ["y"]),
    ],
    "Pad": [node("Pad", ["x", "pads"], ["p"]), node("Slice", ["p", "zeros", "last"], ["y"])],
}


@pytest.mark.parametrize("operator", MIXING)
def test_samples_that_may_mix_are_noticed(operator: str, tmp_path: Path) -> None:
    weights = {
        **{"zero": np.array(0), "zeros": np.array([0]), "wide": np.array([-1, 3])},
        **{"W": np.eye(3, dtype=np.float32), "pads": np.array([1, 0, 0, 0])},
        **{"last": np.array([-1])},
    }
    inputs = {"x": (FLOAT, ["N", 3])}
    source = save(tmp_path / "m.onnx", MIXING[operator], inputs, {"y": FLOAT}, weights)
    with pytest.raises(SourceError, match=r"may mix the samples|needs the size"):
        onnxplain.differentiate(source, tmp_path / "d.onnx", jacobian=True)


def test_a_jacobian_of_what_mixes_its_batch_asks_for_the_batch(tmp_path: Path) -> None:
    nodes = [node("Softmax", ["x"], ["y"], axis=0)]
    source = save(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["N", 3])}, {"y": FLOAT})
    with pytest.raises(SourceError, match=r"Softmax .* may mix the samples .* 'N' with sizes="):
        onnxplain.differentiate(source, tmp_path / "d.onnx", jacobian=True)
    onnxplain.differentiate(source, tmp_path / "d.onnx", jacobian=True, sizes={"N": 2})
    x = rows(2, 3).float()
    expected = torch.func.jacrev(lambda x: torch.softmax(x, 0))(x)
    assert error(run(tmp_path / "d.onnx", x=x)["jacobian.y.x"], expected) < 1e-6


def test_a_jacobian_of_too_many_rows_says_how_many(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"])]
    source = save(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["N", 70, 70])}, {"y": FLOAT})
    with pytest.raises(SourceError, match=r"4,900 rows.*budget= of 2 allows it"):
        onnxplain.differentiate(source, tmp_path / "d.onnx", jacobian=True)


# ----- the rest of the file -----


def test_all_inputs_and_outputs_stay_and_the_file_says_what_is_new(tmp_path: Path) -> None:
    source, path = tanh_file(tmp_path / "m.onnx"), tmp_path / "d.onnx"
    model = onnx.load(source)
    helper.set_model_props(model, {"author": "me"})
    onnx.save(model, source)
    told: list[str] = []
    made = onnxplain.differentiate(source, path, of="s", wrt=["x", "h"], progress=told.append)
    assert tuple(told) == STAGES
    model = onnx.load(path)
    assert [x.name for x in model.graph.input] == ["x"]
    assert [y.name for y in model.graph.output] == ["y", "h", "s", "grad.x", "grad.h"]
    props = {entry.key: entry.value for entry in model.metadata_props}
    assert props["author"] == "me"
    assert Derivatives.from_props(props) == made
    assert made.of == ("s",)
    assert made.wrt == ("x", "h")
    assert made.source == "m.onnx"


def test_what_is_asked_for_goes_without_saying(tmp_path: Path) -> None:
    """The only output of floats, by every input of floats that it depends on smoothly."""
    nodes = [
        node("Gather", ["table", "i"], ["row"]),
        node("Mul", ["row", "x"], ["product"]),
        node("Greater", ["x", "limit"], ["above"]),
        node("Where", ["above", "product", "row"], ["y"]),
        node("ArgMax", ["unused"], ["place"]),
    ]
    inputs = {"i": (INT64, [2]), "x": (FLOAT, [2, 3]), "limit": (FLOAT, []), "unused": (FLOAT, [4])}
    weights = {"table": np.ones((5, 3), np.float32)}
    source = save(tmp_path / "m.onnx", nodes, inputs, {"y": FLOAT, "place": INT64}, weights)
    made = onnxplain.differentiate(source, tmp_path / "d.onnx")
    assert (made.of, made.wrt) == (("y",), ("x",))


def test_equal_values_within_are_told_apart(tmp_path: Path) -> None:
    """Two products that are one for any optimiser: the gradient by the first is its own."""
    nodes = [
        node("Tanh", ["x"], ["a"]),
        node("Tanh", ["x"], ["b"]),
        node("Identity", ["a"], ["c"]),
        node("Mul", ["a", "two"], ["a2"]),
        node("Mul", ["b", "c"], ["bc"]),
        node("Add", ["a2", "bc"], ["y"]),
    ]
    source = save(
        tmp_path / "m.onnx",
        nodes,
        {"x": (DOUBLE, ["N", 3])},
        {"y": DOUBLE},
        {"two": np.array(2.0)},
    )
    x, path = rows(2, 3), tmp_path / "d.onnx"
    onnxplain.differentiate(source, path, wrt=["a", "b", "x"])
    found, t = run(path, x=x), torch.tanh(x)
    assert error(found["grad.a"], 2 + t) < EXACT
    assert error(found["grad.b"], t) < EXACT
    assert error(found["grad.x"], (2 + 2 * t) * (1 - t * t)) < EXACT
    assert operators(path)["Identity"] == 0


def test_an_input_that_is_an_output_stays_one(tmp_path: Path) -> None:
    nodes, path = [node("Sin", ["x"], ["y"])], tmp_path / "d.onnx"
    outputs = {"y": DOUBLE, "x": DOUBLE, "k": DOUBLE}
    source = save(
        tmp_path / "m.onnx", nodes, {"x": (DOUBLE, ["N"])}, outputs, {"k": np.array([5.0])}
    )
    model = onnx.load(source)
    model.graph.output[1].CopyFrom(model.graph.input[0])
    onnx.save(model, source)
    onnxplain.differentiate(source, path, of="y", wrt="x")
    found, x = run(path, x=rows(3)), rows(3)
    assert list(found) == ["y", "x", "k", "grad.x"]
    assert error(found["grad.x"], torch.cos(x)) < EXACT
    assert (found["x"] == x.numpy()).all()
    assert found["k"].tolist() == [5]


def test_a_value_that_is_differentiated_by_itself_has_its_own_share(tmp_path: Path) -> None:
    nodes, path = [node("Sin", ["x"], ["h"]), node("Mul", ["h", "h"], ["y"])], tmp_path / "d.onnx"
    source = save(tmp_path / "m.onnx", nodes, {"x": (DOUBLE, ["N"])}, {"y": DOUBLE, "h": DOUBLE})
    onnxplain.differentiate(source, path, of=["y", "h"], wrt=["h", "x"])
    found, x = run(path, x=rows(3)), rows(3)
    assert error(found["grad.h"], 2 * torch.sin(x) + 1) < EXACT
    assert error(found["grad.x"], (2 * torch.sin(x) + 1) * torch.cos(x)) < EXACT


def test_a_mean_over_an_open_size_and_a_sum_of_a_scalar(tmp_path: Path) -> None:
    nodes = [
        node("Mul", ["x", "x"], ["square"]),
        node("ReduceMean", ["square", "time"], ["mean"], keepdims=0),
        node("ReduceSum", ["s"], ["same"], keepdims=0),
        node("Mul", ["mean", "same"], ["y"]),
    ]
    inputs = {"x": (DOUBLE, ["N", "T"]), "s": (DOUBLE, [])}
    source = save(tmp_path / "m.onnx", nodes, inputs, {"y": DOUBLE}, {"time": np.array([1])})
    onnxplain.differentiate(source, tmp_path / "d.onnx")
    x = rows(2, 5)
    found = run(tmp_path / "d.onnx", x=x, s=np.array(3.0))
    assert error(found["grad.x"], 6 * x / 5) < EXACT
    assert error(found["grad.s"], (x * x).mean(1).sum()) < EXACT


def test_a_part_of_what_is_open_twice_is_put_back(tmp_path: Path) -> None:
    """One of three projections, as attention takes it, of a sequence of any length."""
    nodes = [
        node("Gather", ["x", "second"], ["keys"], axis=2),
        node("Gather", ["x", "third"], ["values"], axis=2),
        node("Mul", ["keys", "values"], ["y"]),
    ]
    inputs, parts = {"x": (DOUBLE, ["N", "T", 3, 2])}, {"second": np.array(1), "third": np.array(2)}
    source = save(tmp_path / "m.onnx", nodes, inputs, {"y": DOUBLE}, parts)
    onnxplain.differentiate(source, tmp_path / "d.onnx")
    x = rows(2, 5, 3, 2)
    expected = torch.stack([0 * x[:, :, 0], x[:, :, 2], x[:, :, 1]], 2)
    assert error(run(tmp_path / "d.onnx", x=x)["grad.x"], expected) < EXACT


def test_a_float16_file_keeps_its_inputs_and_outputs(tmp_path: Path) -> None:
    """What is computed, and the derivatives, are float32."""
    source, path = tanh_file(tmp_path / "m.onnx", dtype=HALF), tmp_path / "d.onnx"
    onnxplain.differentiate(source, path, of="y", seed="input")
    x, g = rows(3, 4), rows(3, 3)
    found = run(path, x=x.numpy().astype(np.float16), seed__y=g.numpy().astype(np.float32))
    assert {name: y.dtype.name for name, y in found.items()} == {
        **{"y": "float16", "h": "float16", "s": "float16"},
        **{"grad.x": "float32"},
    }
    assert error(found["grad.x"], torch.func.vjp(of_tanh, x)[1](g)[0]) < 2e-3


def test_the_gradient_by_a_weight_stored_in_float16_is_float32(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float16)
    nodes = [node("MatMul", ["x", "W"], ["h"]), node("ReduceSum", ["h"], ["y"], keepdims=0)]
    source = save(tmp_path / "m.onnx", nodes, {"x": (HALF, ["N", 64])}, {"y": HALF}, {"W": weight})
    onnxplain.differentiate(source, tmp_path / "d.onnx", wrt="W")
    x = rows(3, 64).half()
    found = run(tmp_path / "d.onnx", x=x.numpy())
    assert found["grad.W"].dtype == np.float32
    assert error(found["grad.W"], x.float().sum(0)[:, None].expand(64, 32)) < 1e-6
    stored = {i.name: i.data_type for i in onnx.load(tmp_path / "d.onnx").graph.initializer}
    assert stored["W"] == HALF


def test_a_file_of_opset_9_and_quantised_ones_are_differentiated_too(tmp_path: Path) -> None:
    """What quantisers round passes straight through."""
    old = save(
        tmp_path / "old.onnx",
        [node("Upsample", ["x", "twice"], ["u"], mode="nearest"), node("Tanh", ["u"], ["y"])],
        {"x": (FLOAT, ["N", 1, 2, 2])},
        {"y": FLOAT},
        {"twice": np.array([1, 1, 2, 2], np.float32)},
    )
    model = onnx.load(old)
    model.opset_import[0].version, model.ir_version = 9, 4
    onnx.save(model, old)
    onnxplain.differentiate(old, tmp_path / "d.onnx")
    x = rows(3, 1, 2, 2).float()
    assert error(run(tmp_path / "d.onnx", x=x)["grad.x"], 4 * (1 - torch.tanh(x) ** 2)) < 1e-6

    quantised = save(
        tmp_path / "q.onnx",
        [
            node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            node("Mul", ["d", "d"], ["y"]),
        ],
        {"x": (FLOAT, ["N", 3])},
        {"y": FLOAT},
        {"s": np.float32(0.125), "z": np.int8(0)},
    )
    onnxplain.differentiate(quantised, tmp_path / "d.onnx")
    x = rows(2, 3).float()
    assert error(run(tmp_path / "d.onnx", x=x)["grad.x"], 2 * torch.round(x * 8) / 8) < 1e-6


def test_the_hessian_of_a_piecewise_linear_network_is_zero(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "W"], ["h"]), node("Relu", ["h"], ["y"])]
    source = save(tmp_path / "m.onnx", nodes, {"x": (DOUBLE, ["N", 4])}, {"y": DOUBLE}, {"W": W})
    onnxplain.differentiate(source, tmp_path / "d.onnx", second=True)
    found = run(tmp_path / "d.onnx", x=rows(2, 4), direction__x=rows(2, 4))
    assert not found["hvp.x"].any()
    assert found["hvp.x"].shape == (2, 4)


def test_what_no_cotangent_passes_stays_where_none_shall_pass(tmp_path: Path) -> None:
    """A loop over as many rounds as an input says, and an operator of ONNX Runtime's own."""
    more = helper.make_graph(
        [node("Add", ["v", "v"], ["w"]), node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", FLOAT, [2]),
        ],
    )
    nodes = [
        node("Loop", ["rounds", "", "k"], ["doubled"], body=more),
        node("Sin", ["x"], ["y"]),
    ]
    inputs = {"x": (FLOAT, ["N"]), "k": (FLOAT, [2]), "rounds": (INT64, [])}
    source = save(tmp_path / "m.onnx", nodes, inputs, {"y": FLOAT, "doubled": FLOAT})
    model = onnx.load(source)
    model.graph.output[1].type.tensor_type.shape.dim.add().dim_value = 2
    onnx.save(model, source)
    path, x = tmp_path / "d.onnx", rows(3).float()
    onnxplain.differentiate(source, path, of="y")
    found = run(path, x=x, k=np.ones(2, np.float32), rounds=np.array(3))
    assert error(found["grad.x"], torch.cos(x)) < 1e-6
    assert found["doubled"].tolist() == [8, 8]
    onnxplain.differentiate(source, path, of="doubled", wrt="k")
    found = run(path, x=x, k=np.ones(2, np.float32), rounds=np.array(3))
    assert found["grad.k"].tolist() == [8, 8]


# ----- sentences -----

SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "no such output": ({"of": "yy"}, r"of=: no value 'yy' in the network; did you mean y"),
    "no such value": ({"of": "y", "wrt": "z"}, r"wrt=: no value 'z' in the network"),
    "several outputs": ({}, r"choose what to differentiate with of=; the outputs are: 'y' double"),
    "no dependence": ({"of": "h", "wrt": "y"}, r"'h' does not depend on 'y'"),
    "a size that is not open": ({"of": "y", "sizes": {"M": 3}}, r"no size 'M' open.*N"),
    "a size of nothing": ({"of": "y", "sizes": {"N": 0}}, r"sizes=: 'N' is a number of elements"),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_what_cannot_be_is_a_sentence(case: str, tmp_path: Path) -> None:
    options, sentence = SENTENCES[case]
    path = tmp_path / "d.onnx"
    with pytest.raises(SourceError, match=sentence):
        onnxplain.differentiate(tanh_file(tmp_path / "m.onnx"), path, **options)
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": "twos"}, "seed is one of ones, input"),
        ({"jacobian": True, "seed": "input"}, "leave out seed="),
        ({"jacobian": True, "second": True}, "a Hessian is the Jacobian of a gradient"),
        ({"wrt": 3}, "wrt must be a string or a sequence of strings"),
    ],
)
def test_options_that_do_not_go_together(
    options: Mapping[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        onnxplain.differentiate(tanh_file(tmp_path / "m.onnx"), tmp_path / "d.onnx", **options)


def test_a_module_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"an ONNX file's path, not a Linear: torch\.onnx\.export"):
        onnxplain.differentiate(torch.nn.Linear(2, 2), tmp_path / "d.onnx")  # type: ignore[arg-type]


def test_whole_numbers_have_no_derivative_but_what_is_made_of_them(tmp_path: Path) -> None:
    nodes = [
        node("Gather", ["table", "tokens"], ["words"]),
        node("ReduceSum", ["words"], ["y"], keepdims=0),
        node("Cast", ["y"], ["whole"], to=INT64),
        node("Cast", ["whole"], ["rounded"], to=FLOAT),
    ]
    weights = {"table": np.ones((5, 3), np.float32)}
    outputs = {"y": FLOAT, "whole": INT64, "rounded": FLOAT}
    source = save(tmp_path / "m.onnx", nodes, {"tokens": (INT64, ["N"])}, outputs, weights)
    for options, sentence in (
        ({"of": "y", "wrt": "tokens"}, r"wrt=: 'tokens' int64.* of no floats .*'?words'?"),
        ({"of": "y", "wrt": "whole"}, r"wrt=: 'whole' int64.* has no derivative$"),
        ({"of": "whole", "wrt": "words"}, r"of=: 'whole' int64.* of no floats.*rounded, made"),
        ({"of": "y"}, r"'y' depends on no input of floats.*inputs are: 'tokens' int64"),
        ({"of": "rounded", "wrt": "words"}, r"steps lead from 'words' to 'rounded'"),
    ):
        with pytest.raises(SourceError, match=sentence):
            onnxplain.differentiate(source, tmp_path / "d.onnx", **options)


def test_a_source_that_is_not_valid_may_be_what_makes_the_graph_so(tmp_path: Path) -> None:
    tanh = node("Tanh", ["x"], ["y"], foo=3)
    source = save(tmp_path / "m.onnx", [tanh], {"x": (FLOAT, [2, 3])}, {"y": FLOAT}, {})
    with pytest.raises(SourceError, match=r"where the source itself is.*attribute: foo"):
        onnxplain.differentiate(source, tmp_path / "d.onnx")


def test_a_name_that_is_taken_asks_for_a_prefix(tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    onnxplain.differentiate(tanh_file(tmp_path / "m.onnx"), first, of="s")
    with pytest.raises(SourceError, match=r"'grad\.x' already; .* prefix="):
        onnxplain.differentiate(first, second, of="grad.x")
    made = onnxplain.differentiate(first, second, of="grad.x", prefix="second.")
    assert list(made.outputs) == ["second.grad.x"]
    x = rows(2, 4)
    gradient = torch.func.grad(lambda x: of_tanh(x).square().sum())
    expected = torch.func.grad(lambda x: gradient(x).sum())(x)
    assert error(run(second, x=x)["second.grad.x"], expected) < EXACT


def test_an_operator_without_a_rule_is_named(tmp_path: Path) -> None:
    source = save(
        tmp_path / "m.onnx",
        [node("Gate", ["x"], ["g"], domain="mine"), node("Mul", ["x", "g"], ["y"])],
        {"x": (FLOAT, [2, 3])},
        {"y": FLOAT},
    )
    model = onnx.load(source)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.value_info.append(helper.make_tensor_value_info("g", FLOAT, [2, 3]))
    onnx.save(model, source)
    with pytest.raises(NoRuleError, match=r"no rule .* operator mine::Gate.*register_vjp"):
        onnxplain.differentiate(source, tmp_path / "d.onnx")


@pytest.mark.parametrize("wrt", [None, "rois"])
@pytest.mark.parametrize("follows", [False, True], ids=["input", "follows from x"])
def test_where_regions_are_is_no_constant_of_a_derivative(
    wrt: str | None, follows: bool, tmp_path: Path
) -> None:
    """The pullback of an explanation takes it for one; here a path would be left out in silence."""
    nodes = [node("RoiAlign", ["x", "rois", "image"], ["y"], output_height=2, output_width=2)]
    inputs: dict[str, Any] = {"x": (FLOAT, [1, 2, 6, 6])}
    if follows:
        nodes.insert(0, node("Reshape", ["means", "shape"], ["rois"]))
        nodes.insert(0, node("ReduceMean", ["x", "axes"], ["means"], keepdims=0))
        weights = {"shape": [1, 4], "axes": [0, 1, 2], "image": [0]}
        inputs = {"x": (FLOAT, [1, 2, 6, 4])}
    else:
        inputs["rois"], weights = (FLOAT, [1, 4]), {"image": [0]}
    source = save(tmp_path / "m.onnx", nodes, inputs, {"y": FLOAT}, weights)
    message = "no rule for RoiAlign .* with respect to the places of its regions, "
    with pytest.raises(NoRuleError, match=message):
        onnxplain.differentiate(source, tmp_path / "d.onnx", wrt=wrt)
    if not follows:
        onnxplain.differentiate(source, tmp_path / "d.onnx", wrt="x")
        x, rois = rows(1, 2, 6, 6).float(), torch.tensor([[0.5, 1, 4, 5]])
        given = x.clone().requires_grad_()
        pooled = torchvision.ops.roi_align(given, [rois], 2, aligned=True)
        (expected,) = torch.autograd.grad(pooled.sum(), given)
        found = run(tmp_path / "d.onnx", x=x.numpy(), rois=rois.numpy())
        assert error(found["grad.x"], expected) < 1e-6


def test_a_wrong_forward_pass_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: ir.Model) -> None:
        clean(model)
        model.graph.initializers["W"].const_value = ir.tensor(2 * W, name="W")

    monkeypatch.setattr("onnxplain.export.differentiate.clean", spoil)
    path = tmp_path / "d.onnx"
    with pytest.raises(SourceError, match=r"is not right: on noise, its output 'y' differs"):
        onnxplain.differentiate(tanh_file(tmp_path / "m.onnx"), path, of="y")
    assert not path.exists()


# ----- on the command line -----


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def test_the_command_writes_the_file_and_says_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tanh_file(tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    given = ["--of", "y", "--of", "s", "--wrt", "x", "--wrt", "h", "--second", "--sizes", "N=3"]
    code, text = command("differentiate", "m.onnx", *given)
    assert code == 0, text
    for part in ("m.grad.onnx", "grad.x of y + s by x", "in direction.h", "hvp.h the Hessian by h"):
        assert part in text
    found = run(
        tmp_path / "m.grad.onnx", x=rows(3, 4), direction__x=rows(3, 4), direction__h=0 * W[:3]
    )
    assert found["hvp.x"].shape == (3, 4)
    code, text = command("info", "m.grad.onnx")
    assert code == 0, text
    assert "of y, s by x, h" in text
    assert "hvp.x" in text


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--of", "yy"], 3, "error: --of: no value 'yy' in the network; did you mean y"),
        ([], 3, "choose what to differentiate with --of; the outputs are"),
        (["--of", "y", "--sizes", "N=2.5"], 4, "--sizes takes NAME and a whole number"),
        (["--of", "y", "--sizes", "N=inf"], 4, "--sizes takes NAME and a whole number"),
        (["--of", "y", "--sizes", "M=2"], 3, "no size 'M' open"),
        (["--of", "y", "--jacobian", "--second"], 4, "--jacobian and --second exclude each other"),
        (["--of", "y", "--seed", "two"], 4, "seed is one of ones, input"),
        (["--colour"], 2, "No such option"),
    ],
)
def test_the_command_refuses_with_a_sentence_and_a_status(
    arguments: Sequence[str], status: int, sentence: str, tmp_path: Path
) -> None:
    source = tanh_file(tmp_path / "m.onnx")
    code, text = command("differentiate", source, "-o", tmp_path / "d.onnx", *arguments)
    assert code == status
    assert sentence in text


TWINS = {
    "an Identity": "b = Identity (a)",
    "computed again": "b = Sin (x)",
    "a Reshape to its shape": "s = Shape (a) b = Reshape (a, s)",
}


@pytest.mark.parametrize("wrt", [None, "a"])
@pytest.mark.parametrize("name", TWINS)
def test_outputs_that_are_one_value_keep_their_names_and_shares(
    name: str, wrt: str | None, tmp_path: Path
) -> None:
    text = f"""<ir_version: 9, opset_import: ["": 20]>
        twins (double[3] x) => (double[3] a, double[3] b, double[3] c) {{
            a = Sin (x)
            {TWINS[name]}
            c = Mul (a, b)
        }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "twins.onnx")
    path, x = tmp_path / "d.onnx", np.arange(3.0)
    onnxplain.differentiate(tmp_path / "twins.onnx", path, of=["a", "b", "c"], wrt=wrt)
    found = run(path, x=x)
    for output in ("a", "b"):
        np.testing.assert_allclose(found[output], np.sin(x))
    if wrt is None:
        np.testing.assert_allclose(found["grad.x"], (2 + 2 * np.sin(x)) * np.cos(x))
    elif name == "computed again":  # and b is none of a's
        np.testing.assert_allclose(found["grad.a"], 1 + np.sin(x))
    else:
        np.testing.assert_allclose(found["grad.a"], 2 + 2 * np.sin(x))


@pytest.mark.parametrize("other", ["v", "u"])
def test_the_maximum_of_a_stack_that_is_an_output_too(other: str, tmp_path: Path) -> None:
    """It is written as Max, and the stack stays."""
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
        stacked (float[2, 3] x) => (float[2, 2, 3] stack, float y) <int64[1] first = {{0}}> {{
        w = Neg(x)  u = Unsqueeze(x, first)  v = Unsqueeze(w, first)
        stack = Concat<axis=0>(u, {other})
        m = ReduceMax<keepdims=0>(stack, first)
        y = ReduceSum<keepdims=0>(m)
    }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    onnxplain.differentiate(tmp_path / "m.onnx", tmp_path / "d.onnx", of="y", wrt="x")
    x = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
    found = run(tmp_path / "d.onnx", x=x)
    np.testing.assert_array_equal(found["stack"], [x, -x if other == "v" else x])
    expected = np.sign(x) if other == "v" else np.ones_like(x)
    np.testing.assert_array_equal(found["grad.x"], expected)
