"""An explain graph as a function: right answers for every variant that export writes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from onnxplain.errors import BackendError, InputError
from onnxplain.runtime import load


def test_logits_and_pullback_are_the_graphs(explainer, tiny, x):
    explanation = explainer(x, [3, 1, 0])
    assert explanation.logits.dtype == explanation.pullback.dtype == np.float32
    np.testing.assert_allclose(explanation.logits, tiny.logits(x), rtol=1e-5)
    np.testing.assert_allclose(
        explanation.pullback, tiny.gradient(x, np.array([3, 1, 0])), rtol=1e-5
    )


def test_the_file_alone_tells_what_an_explainer_needs(explainer, tiny):
    assert explainer.metadata.method == "gradient"
    assert explainer.metadata.preprocessing == tiny.preprocessing()
    assert explainer.labels == tiny.labels
    assert explainer.backend.device == "CPU"
    assert not explainer.multi_target


def test_a_photograph_is_preprocessed(explainer, tiny):
    photograph = Image.new("RGB", (20, 16), (255, 0, 51))
    pre = tiny.preprocessing()
    pixel = (np.array([1, 0, 0.2]) - pre.mean) / pre.std
    x = np.broadcast_to(pixel[None, :, None, None], (1, 3, tiny.height, tiny.width))
    explanation = explainer(photograph)
    np.testing.assert_allclose(explanation.logits, tiny.logits(x), rtol=1e-5)
    assert explanation.photographs[0, 0, 0].tolist() == [255, 0, 51]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_batch_size_does_not_change_the_answer(explainer, x, size):
    whole, parts = explainer(x), explainer(x, batch_size=size)
    np.testing.assert_allclose(parts.logits, whole.logits, rtol=1e-6)
    np.testing.assert_allclose(parts.pullback, whole.pullback, rtol=1e-6)


@pytest.mark.parametrize("multi_target", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_graph_of_fixed_batch_size_takes_any_number_of_images(
    graph_file, tiny, x, batch, multi_target
):
    explanation = load(graph_file(batch=batch, multi_target=multi_target))(x, [0, 1, 2])
    np.testing.assert_allclose(explanation.logits, tiny.logits(x), rtol=1e-5)
    np.testing.assert_allclose(
        explanation.pullback.reshape(x.shape), tiny.gradient(x, np.array([0, 1, 2])), rtol=1e-5
    )


def test_another_batch_size_than_the_fixed_one(graph_file, x):
    explainer = load(graph_file(batch=2))
    assert len(explainer(x, batch_size=2)) == 3
    with pytest.raises(InputError, match="batches of 2, not of 3"):
        explainer(x, batch_size=3)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one(explainer, x, size):
    with pytest.raises(InputError, match="at least one image"):
        explainer(x, batch_size=size)


@pytest.mark.parametrize("multi_target", [False, True])
def test_the_pullback_is_channel_first_also_for_a_channel_last_graph(
    graph_file, tiny, x, multi_target
):
    explainer = load(graph_file(layout="NHWC", multi_target=multi_target))
    explanation = explainer(x.transpose(0, 2, 3, 1), [0, 1, 2])
    np.testing.assert_allclose(explanation.logits, tiny.logits(x), rtol=1e-5)
    expected = tiny.gradient(x, np.array([0, 1, 2]))
    if multi_target:
        expected = expected[:, None]
    np.testing.assert_allclose(explanation.pullback, expected, rtol=1e-5)


def test_a_network_of_one_channel(graph_file, tiny):
    explanation = load(graph_file(channels=1))(Image.new("RGB", (9, 9), (90, 90, 90)), 0)
    x = np.full((1, 1, tiny.height, tiny.width), (90 / 255 - 0.5) / 0.25)
    np.testing.assert_allclose(explanation.pullback, tiny.gradient(x, np.array([0])), rtol=1e-4)
    assert explanation.photographs.shape == (1, tiny.height, tiny.width, 3)


def test_a_float64_graph_is_fed_float64(graph_file, tiny, x):
    exact = x.astype(np.float64) / 3
    explanation = load(graph_file(dtype=np.float64))(exact, 0)
    assert explanation.pullback.dtype == np.float64
    np.testing.assert_allclose(explanation.logits, tiny.logits(exact), rtol=1e-14)


def test_image_and_target_are_refused_before_the_graph_runs(explainer, x):
    with pytest.raises(InputError, match="NaN"):
        explainer(np.full_like(x, np.nan))


# Temperature


@pytest.fixture
def live(graph_file):
    return load(graph_file(live_temperature=True))


def test_a_live_temperature_is_the_graphs_input(live, tiny, x):
    gradient = tiny.gradient(x, np.zeros(3, int))
    np.testing.assert_allclose(live(x, 0, temperature=2).pullback, gradient / 2, rtol=1e-5)


def test_without_a_temperature_the_exported_one_holds(live, tiny, x):
    gradient = tiny.gradient(x, np.zeros(3, int))
    np.testing.assert_allclose(live(x, 0).pullback, gradient / tiny.temperature, rtol=1e-5)


def test_a_constant_temperature_cannot_be_changed(explainer, x):
    with pytest.raises(InputError, match="export it with live_temperature=True"):
        explainer(x, temperature=0.3)


def test_a_misspelt_parameter_is_told_those_there_are(live, x):
    with pytest.raises(InputError, match="'relux' is no parameter of this graph; it takes: 'temp"):
        live(x, temperature={"relux": 0.3})


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan, np.inf, "hot", 1e-39, 1e300, 10**400])
def test_a_temperature_is_finite_and_above_zero(live, x, temperature):
    with pytest.raises(InputError, match="'temperature' must be a positive number"):
        live(x, temperature=temperature)


def broken(explainer, output: str, image: int):
    """The explainer, whose graph gives NaN for one image of a run."""
    run = explainer.backend.run

    def once_nan(inputs):
        outputs = run(inputs)
        outputs[output] = outputs[output].copy()
        outputs[output][image] = np.nan
        return outputs

    explainer.backend.run = once_nan
    return explainer


@pytest.mark.parametrize("output", ["logits", "pullback"])
def test_what_is_not_finite_is_an_error(graph_file, x, output):
    explainer = broken(load(graph_file(), "cpu"), output, 1)
    with pytest.raises(InputError, match=rf"the network's {output}.* of image 1 are not finite"):
        explainer(np.stack([x[0]] * 3))
    explainer.allow_nonfinite = True
    assert np.isnan(getattr(explainer(np.stack([x[0]] * 3)), output)[1]).all()


def changed(path, name, change):
    """The file with another constant."""
    model = onnx.load(path)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("output", ["logits", "pullback"])
def test_an_output_without_a_row_for_each_image_is_an_error(graph_file, x, output):
    explainer = load(graph_file(), "cpu")
    run = explainer.backend.run
    explainer.backend.run = lambda inputs: (found := run(inputs)) | {output: found[output][:0]}
    with pytest.raises(BackendError, match=rf"gives {output} of the shape \[0, .* for 3 images"):
        explainer(np.stack([x[0]] * 3))


class TestWhatMakesIt:
    """The error names the operator with which NaN or infinity begins."""

    def test_a_weight(self, graph_file, x):
        path = changed(graph_file(), "W", lambda w: np.full_like(w, np.nan))
        with pytest.raises(InputError, match=r"\w+ '\w+' has weights, 'W', that are not finite"):
            load(path, "cpu")(x)

    def test_an_operator(self, graph_file, x):
        path = changed(graph_file(), "W", np.ones_like)
        with pytest.raises(InputError, match="Mul 'square' makes infinity of finite numbers"):
            load(path, "cpu")(np.full_like(x, 1e30))

    def test_one_that_multiplies_infinity_by_zero(self, graph_file, x):
        named = "Gemm 'logits' makes NaN of the infinity of Mul 'square'"
        with pytest.raises(InputError, match=named):
            load(graph_file(), "cpu")(np.full_like(x, 1e30))

    def test_it_is_told_once(self, graph_file, x):
        explainer = load(graph_file(), "cpu")
        with pytest.raises(InputError, match="makes NaN"):
            explainer(np.full_like(x, 1e30))
        with pytest.raises(InputError, match=r"passes them on\)$"):
            explainer(np.full_like(x, 1e30))


def test_a_batch_is_a_whole_number_of_images(graph_file, x):
    with pytest.raises(InputError, match="batch_size must be a whole number"):
        load(graph_file(), "cpu")(x, batch_size=1.5)


def test_there_are_no_labels_of_no_class(graph_file, x):
    with pytest.raises(InputError, match="at least one class, not of -1"):
        load(graph_file(), "cpu")(x).labels(-1)
    with pytest.raises(InputError, match="k must be a whole number"):
        load(graph_file(), "cpu")(x).labels(1.5)
