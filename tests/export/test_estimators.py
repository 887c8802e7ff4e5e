"""Estimators: the rule asked at many images, in one file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxplain
from onnxplain.batch import Options, explain_lake
from onnxplain.batch.run import Summary
from onnxplain.batch.worker import Worker
from onnxplain.errors import BackendError, InputError, SourceError
from onnxplain.export.estimators import ESTIMATORS
from onnxplain.export.estimators.noise import noise
from onnxplain.export.estimators.paths import RULES, drawn
from onnxplain.export.loops import chunks
from onnxplain.runtime.folder import explain_files
from onnxplain.runtime.inputs import batches
from onnxplain.runtime.inputs.images import load_image
from onnxplain.runtime.sessions.tensorrt import build_engine

torch = pytest.importorskip("torch")

SHAPE = (3, 12, 10)
COUNTS = {name: "steps" if name == "integrated-gradients" else "samples" for name in ESTIMATORS}


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 8, 3),
        torch.nn.SiLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    ).eval()


@pytest.fixture(scope="module")
def images() -> Any:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, *SHAPE), np.float32))


@pytest.fixture(scope="module")
def source(net: Any, images: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "net.onnx"
    batch = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(net, (images,), path, dynamo=True, dynamic_shapes=batch, verbose=False)
    return path


@pytest.fixture(scope="module")
def made(source: Path) -> Callable[..., onnxplain.Explainer]:
    files: dict[str, Path] = {}

    def make(estimator: str | None, **options: Any) -> onnxplain.Explainer:
        """Of what was asked for before, the same file."""
        asked = repr((estimator, options))
        if asked not in files:
            path = source.with_name(f"{len(files)}.explain.onnx")
            onnxplain.export(source, path, estimator=estimator, **{"method": "gradient", **options})
            files[asked] = path
        return onnxplain.load(files[asked], "cpu")

    return make


@pytest.fixture(scope="module")
def classes(net: Any, images: Any) -> Any:
    return net(images).argmax(1)


@pytest.fixture(scope="module")
def gradient(net: Any, classes: Any) -> Callable[[Any], Any]:
    """Of the logits of the classes predicted for the images, at others."""

    def of(x: Any) -> Any:
        x = x.clone().requires_grad_()
        net(x).gather(1, classes[:, None]).sum().backward()
        return x.grad

    return of


def same(found: np.ndarray, expected: Any, tolerance: float = 2e-6) -> bool:
    expected = np.asarray(expected)
    return bool(np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected))


def captum_paths(net: Any, x: Any, classes: Any, rule: str, steps: int, start: Any) -> Any:
    attr = pytest.importorskip("captum.attr")
    names = {"gauss-legendre": "gausslegendre", "trapezoid": "riemann_trapezoid"}
    return attr.IntegratedGradients(net).attribute(
        x, start, classes, n_steps=steps, method=names[rule], return_convergence_delta=True
    )


def test_integrated_gradients_are_captums(made, net, images, classes):
    """And their convergence delta, on several images, of which each is explained by its class."""
    found = made("integrated-gradients", parameters={"steps": 20})(images.numpy())
    expected, delta = captum_paths(net, images, classes, "gauss-legendre", 20, 0 * images)
    assert same(found.pullback, expected.detach())
    assert np.allclose(found.convergence_delta, delta.detach(), atol=1e-6)
    assert found.targets.tolist() == classes.tolist()


def test_the_trapezoid_is_whole_where_captums_weights_add_up_to_less(made, net, images, classes):
    """1 − 1/steps: its step is 1/steps between points that are 1/(steps − 1) apart."""
    options = {"steps": 9, "rule": "trapezoid"}
    found = made("integrated-gradients", parameters=options)(images.numpy())
    expected, _ = captum_paths(net, images, classes, "trapezoid", 9, 0 * images)
    assert same(found.pullback, expected.detach() * 9 / 8)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_weights_of_a_path_add_up_to_1(rule, steps):
    points, weights = RULES[rule](steps)
    assert len(points) == steps
    assert np.isclose(weights.sum(), 1)
    assert np.isclose((weights * points).sum(), 0.5)  # exact for straight lines


def baseline(name: str, x: Any, blurred: Any) -> Any:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    black = torch.tensor(-mean / std).float()[None, :, None, None]
    return {
        "zero": 0 * x,
        "black": 0 * x + black,
        "mean": 0 * x + x.mean((2, 3), keepdim=True),
        "blur": blurred,
        "image": blurred.flip(0),
    }[name]


@pytest.mark.parametrize("name", ["zero", "black", "mean", "blur", "image"])
def test_the_path_begins_at_its_baseline(made, net, images, classes, name):
    def axis(length: int, sigma: float) -> Any:
        apart = torch.arange(length)[:, None] - torch.arange(length)[None]
        weights = torch.exp(-0.5 * (apart / sigma) ** 2)
        return weights / weights.sum(1, keepdim=True)

    blurred = axis(12, 1.0) @ images @ axis(10, 1.0).T
    start = baseline(name, images, blurred)
    explainer = made("integrated-gradients", parameters={"steps": 5, "baseline": name})
    inputs = {"baseline": start.numpy()} if name == "image" else {}
    found = explainer(images.numpy(), **inputs)
    expected, delta = captum_paths(net, images, classes, "gauss-legendre", 5, start)
    assert same(found.pullback, expected.detach(), 1e-5)
    assert np.allclose(found.convergence_delta, delta.detach(), atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 5])
def test_several_baselines_give_the_mean_of_their_attributions(made, images, chunk):
    """And of their convergence deltas; a chunk may hold samples of two of them."""
    start = images.flip(0).numpy()
    steps = {"steps": 2 if chunk > 1 else 5}
    alone = [
        made("integrated-gradients", parameters={**steps, "baseline": name})(
            images.numpy(), **({"baseline": start} if name == "image" else {})
        )
        for name in ("zero", "mean", "image")
    ]
    asked = {**steps, "baseline": "zero, mean,image", "chunk": chunk}
    explainer = made("integrated-gradients", parameters=asked)
    assert explainer.metadata.estimator.parameters["baseline"] == "zero,mean,image"
    assert explainer.metadata.estimator.explanations == 3 * steps["steps"] + 2
    found = explainer(images.numpy(), baseline=start)
    assert same(found.pullback, np.mean([each.pullback for each in alone], axis=0), 1e-5)
    deltas = [each.convergence_delta for each in alone]
    assert np.allclose(found.convergence_delta, np.mean(deltas, axis=0), atol=1e-6)


def test_a_baseline_of_one_image_is_that_of_all(made, images):
    explainer = made("integrated-gradients", parameters={"steps": 3, "baseline": "image"})
    one = images.numpy()[:1]
    several = explainer(images.numpy(), baseline=np.concatenate([one, one]))
    assert np.array_equal(explainer(images.numpy(), baseline=one).pullback, several.pullback)
    assert np.array_equal(explainer(images.numpy(), baseline=one[0]).pullback, several.pullback)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs 'baseline': where the path begins"),
        ({"baseline": np.zeros((3, 8, 8), np.float32)}, "'baseline' .*12"),
        ({"baseline": np.zeros((3, *SHAPE), np.float32)}, "one image, or 2 for 2 images, not 3"),
        ({"baseline": ["nowhere.png"] * 3}, "one image, or 2 for 2 images, not 3"),
        ({"baselines": np.zeros(SHAPE, np.float32)}, "no input 'baselines'"),
    ],
)
def test_a_baseline_that_cannot_be_used_is_a_sentence(made, images, given, message):
    explainer = made("integrated-gradients", parameters={"steps": 2, "baseline": "image"})
    with pytest.raises(InputError, match=message):
        explainer(images.numpy(), **given)


@pytest.mark.parametrize(
    ("name", "nt_type"),
    [
        ("smoothgrad", "smoothgrad"),
        ("smoothgrad-squared", "smoothgrad_sq"),
        ("vargrad", "vargrad"),
    ],
)
def test_noise_tunnels_are_captums(made, net, images, classes, name, nt_type, monkeypatch):
    """Of the same noise, its deviation a share of each image's range."""
    attr = pytest.importorskip("captum.attr")
    found = made(name, parameters={"samples": 6, "sigma": 0.2, "seed": 3})(images.numpy())
    n = torch.from_numpy(noise(6, SHAPE, 3)).float()
    extent = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    drawn = torch.stack([0.2 * one * n for one in extent]).flatten(0, 1)  # sample after sample
    monkeypatch.setattr(torch, "normal", lambda *_: drawn)
    expected = attr.NoiseTunnel(attr.Saliency(net)).attribute(
        images, nt_type, nt_samples=6, target=classes, abs=False
    )
    assert same(found.pullback, expected.detach(), 1e-5)


def test_noise_is_normal_and_every_samples_own():
    n = noise(8, (3, 64, 64), 0)
    assert abs(n.mean()) < 0.02
    assert abs(n.std() - 1) < 0.02
    rows = n.reshape(8, -1)
    correlations = np.corrcoef(rows) - np.eye(8)
    assert np.abs(correlations).max() < 0.05
    assert not np.array_equal(n, noise(8, (3, 64, 64), 1))


def test_expected_gradients_are_gradientshap_of_the_same_draws(made, images, gradient):
    baselines = np.random.default_rng(5).standard_normal((3, *SHAPE)).astype(np.float32)
    explainer = made("expected-gradients", parameters={"samples": 8, "seed": 2})
    found = explainer(images.numpy(), baselines=baselines)
    alphas, places = drawn(8, 2)
    expected = torch.zeros_like(images)
    for alpha, place in zip(alphas, places, strict=True):
        start = torch.from_numpy(baselines[int(place * 3)])
        difference = images - start
        expected += difference * gradient(start + alpha * difference)
    assert same(found.pullback, expected / 8)
    alone = explainer(images.numpy()[1:], baselines=baselines, batch_size=1)
    assert same(found.pullback[1:], alone.pullback)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_chunks_change_nothing(made, images, name):
    given = {"baselines": images.numpy()} if name == "expected-gradients" else {}
    one, several = (
        made(name, parameters={COUNTS[name]: 6, "chunk": chunk})(images.numpy(), **given)
        for chunk in (1, 4)
    )
    assert same(several.pullback, one.pullback)


def test_a_chunk_divides_the_samples():
    assert [chunks(50, most) for most in (1, 4, 5, 7, 60)] == [1, 2, 5, 5, 50]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_several_targets_are_those_one_by_one(made, images, name):
    given = {"baselines": images.numpy()} if name == "expected-gradients" else {}
    parameters = {COUNTS[name]: 6, "chunk": 4}
    found = made(name, parameters=parameters, multi_target=True)(
        images.numpy(), [[1, 3], [-1, 0]], **given
    )
    explainer = made(name, parameters=parameters)
    for k, targets in enumerate(([1, -1], [3, 0])):
        alone = explainer(images.numpy(), targets, **given)
        assert same(found.pullback[:, k], alone.pullback, 1e-5)
        if alone.convergence_delta is not None:
            assert np.allclose(found.convergence_delta[:, k], alone.convergence_delta, atol=1e-6)


@pytest.mark.parametrize("objective", ["cross-entropy", "energy"])
def test_attributions_add_up_for_every_objective_of_a_classifier(made, images, objective):
    explainer = made("integrated-gradients", objective=objective, parameters={"steps": 60})
    found = explainer(images.numpy())
    assert (
        np.abs(found.convergence_delta).max() < 0.02 * np.abs(found.pullback.sum((1, 2, 3))).max()
    )


@pytest.mark.parametrize("method", ["excitation", "semantic", "lrp-zplus", "gradcam"])
def test_smoothgrad_goes_with_every_method(made, images, method):
    once, smooth = made(None, method=method), made("smoothgrad", method=method)
    none = made("smoothgrad", method=method, parameters={"sigma": 0, "samples": 2})
    assert same(none(images.numpy()).pullback, once(images.numpy()).pullback, 1e-5)
    assert not same(smooth(images.numpy()).pullback, once(images.numpy()).pullback, 1e-3)


def test_the_file_grows_by_nodes_alone(made, images):
    """The weights are where they were; the body of the loop reads them from outside."""
    once = made(None)
    weights = {t.name for t in onnx.load(once.path).graph.initializer if len(t.dims) == 4}
    file = onnx.load(made("integrated-gradients", parameters={"steps": 200}).path)
    (loop,) = (node for node in file.graph.node if node.op_type == "Loop")
    (body,) = (a.g for a in loop.attribute if a.name == "body")
    assert not body.initializer
    assert {t.name for t in file.graph.initializer if len(t.dims) == 4 and t.dims[2] > 1} <= weights
    convolutions = [n for n in (*file.graph.node, *body.node) if n.op_type == "Conv"]
    assert len(convolutions) <= 8  # of the image, of the baseline, of a sample there and back


def test_what_the_file_says(made, images):
    explainer = made("smoothgrad", method="excitation", parameters={"relu": 0.5, "samples": 7})
    metadata = explainer.metadata
    assert metadata.parameters == {"temperature": 0.3, "relu": 0.5}
    assert metadata.estimator.parameters == {"samples": 7, "sigma": 0.15, "seed": 0, "chunk": 1}
    assert metadata.estimator.explanations == 7.5
    assert "by smoothgrad, samples 7" in metadata.described_method
    assert metadata.kind == "direction"
    assert made("vargrad").metadata.kind == "magnitude"
    assert made("integrated-gradients").metadata.kind == "product"
    assert not made(None).metadata.estimator.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "integrated-gradient"}, "no estimator.*did you mean integrated-gradients"),
        ({"parameters": {"steps": 0}}, "steps must be a whole number from 1 to 10000, not 0"),
        ({"parameters": {"steps": 2.5}}, "steps must be a whole number"),
        ({"parameters": {"chunk": 0}}, "chunk must be a whole number from 1"),
        ({"parameters": {"baseline": "grey"}}, "baseline must be one of zero, black, mean"),
        ({"parameters": {"baseline": "zero,zero"}}, "or several, with commas.*, not 'zero,zero'"),
        ({"parameters": {"samples": 5}}, "neither method 'gradient' nor.*has samples; they have"),
        ({"method": "gradcam"}, "not for class activation maps, which 'gradcam' gives"),
        ({"method": "lrp-zplus"}, "not for relevances, which 'lrp-zplus' gives"),
        ({"times_image": True}, "not for products with the image .*, which times_image gives"),
        ({"step": True}, "leave out the estimator 'integrated-gradients'"),
        ({"estimator": "smoothgrad", "parameters": {"sigma": -1}}, "sigma must be .*not -1"),
        ({"estimator": "smoothgrad", "parameters": {"samples": "many"}}, "not 'many'"),
    ],
)
def test_what_cannot_be_is_a_sentence(made, options, message):
    with pytest.raises(SourceError, match=message):
        made(**{"estimator": "integrated-gradients", **options})


@pytest.mark.parametrize("name", ESTIMATORS)
def test_runtimes_agree(made, images, name):
    pytest.importorskip("openvino")
    explainer = made(name, parameters={COUNTS[name]: 6, "chunk": 4})
    other = onnxplain.load(explainer.path, "openvino")
    given = {"baselines": images.numpy()} if name == "expected-gradients" else {}
    found, expected = (each(images.numpy(), **given) for each in (other, explainer))
    assert same(found.pullback, expected.pullback, 1e-4)


@pytest.mark.parametrize(("multi_target", "number"), [(False, 3), (True, 2), (True, 1)])
def test_openvino_takes_a_set_as_a_whole(made, images, multi_target, number):
    """Not an image of it for each that is explained."""
    pytest.importorskip("openvino")
    parameters = {"samples": 6, "chunk": 4}
    explainer = made("expected-gradients", parameters=parameters, multi_target=multi_target)
    other = onnxplain.load(explainer.path, "openvino")
    baselines = np.random.default_rng(5).standard_normal((number, *SHAPE)).astype(np.float32)
    targets = [[1, 3], [-1, 0]] if multi_target else [1, -1]
    given = (images.numpy(), targets)
    found, expected = (each(*given, baselines=baselines) for each in (other, explainer))
    assert same(found.pullback, expected.pullback, 1e-4)


def test_the_compiler_of_tensorrt_rtx_takes_the_loop(made):
    pytest.importorskip("tensorrt_rtx")
    path = made("integrated-gradients", parameters={"steps": 3, "baseline": "image"}).path
    engine = build_engine(path, sm=[89], keep=False)
    assert list(engine.inputs) == ["image", "target", "baseline"]


@pytest.mark.parametrize("name", ["integrated-gradients", "vargrad"])
def test_a_chunk_of_all_samples_needs_no_loop_and_runs_in_float16(made, images, name):
    """What is not linear in the cotangent too: the squares, and what is explained itself."""
    path = made(name, parameters={COUNTS[name]: 6, "chunk": 6}).path
    assert all(node.op_type != "Loop" for node in onnx.load(path).graph.node)
    found, expected = (
        onnxplain.load(path, "cpu", precision)(images.numpy())
        for precision in ("float16", "float32")
    )
    assert same(found.pullback, expected.pullback, 3e-2)
    if expected.convergence_delta is not None:
        assert np.allclose(found.convergence_delta, expected.convergence_delta, atol=1e-3)
    path = made(name, parameters={COUNTS[name]: 6, "chunk": 4}).path
    with pytest.raises(BackendError, match=r"no form of Loop .* with a chunk of all of it"):
        onnxplain.load(path, "cpu", "float16")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photographs to be explained, and beside it two to begin at."""
    pictures = np.random.default_rng(3).integers(0, 256, (4, 16, 16, 3), np.uint8)
    (tmp_path / "folder").mkdir()
    for name, pixels in zip(["a", "b", "folder/c", "folder/d"], pictures, strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "folder"


def test_photographs_to_begin_at_are_decoded_once_for_a_folder(made, folder, monkeypatch):
    explainer = made("expected-gradients", parameters={"samples": 6, "chunk": 4})
    given, files = {"baselines": ["a.png", "b.png"]}, sorted(folder.iterdir())
    expected = explainer(files, **given)
    opened = []
    monkeypatch.setattr(batches, "load_image", lambda it: opened.append(it) or load_image(it))
    found = explain_files(explainer, files, [-1], lambda _, one: one.pullback[0], inputs=given)
    assert same(np.stack([pullback for _, pullback in found]), expected.pullback)
    assert [one for one in opened if isinstance(one, str)] == ["a.png", "b.png"]


def test_a_batch_run_goes_on_with_the_same_images_alone(made, folder, tmp_path, monkeypatch):
    """They are decoded where it is started, and its plan has their digest."""

    def explained(job: Any, pending: list[int], *_: Any) -> Iterator[dict[str, Any]]:
        monkeypatch.chdir("/")  # as a worker's may be
        columns = [Worker(job)({"shard": [shard]}) for shard in pending]
        monkeypatch.chdir(tmp_path)
        yield from ({name: value[0] for name, value in row.items()} for row in columns)

    monkeypatch.setattr("onnxplain.batch.run.explained", explained)
    monkeypatch.setattr("onnxplain.batch.run.connected", lambda *_: nullcontext())
    path = made("expected-gradients", parameters={"samples": 6, "chunk": 4}).path

    def explain(given: Any) -> Summary:
        options = Options(inputs={"baselines": given})
        return explain_lake(path, [str(folder)], tmp_path / "out", options)

    assert explain(["a.png", "b.png"]) == Summary(images=2, errors=0, earlier=0)
    pixels = np.stack([np.asarray(Image.open(name)) for name in ("a.png", "b.png")])
    assert explain(pixels) == Summary(images=2, errors=0, earlier=2)
    Image.fromarray(pixels[0] // 2).save("a.png")
    with pytest.raises(InputError, match="was begun with other inputs"):
        explain(["a.png", "b.png"])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_verify_knows_them(made, net, source, name):
    """Against NumPy over PyTorch, and over a fresh derivation of an ONNX file."""
    path = made(name, parameters={COUNTS[name]: 6, "chunk": 4}).path
    assert onnxplain.verify(path, net, provider="cpu").passed
    assert onnxplain.verify(path, source, provider="cpu").passed
    with pytest.raises(InputError, match=f"a graph of '{name}' is checked against what"):
        onnxplain.verify(path, provider="cpu")


@pytest.mark.parametrize("baseline", ["black,mean", "blur", "image"])
def test_verify_knows_where_a_path_begins(made, net, baseline):
    options = {"steps": 3, "baseline": baseline, "rule": "trapezoid"}
    path = made("integrated-gradients", parameters=options).path
    assert onnxplain.verify(path, net, provider="cpu").passed


def test_verify_finds_a_wrong_estimate(made, net, tmp_path):
    """Weights that add up to 1.01."""
    model = onnx.load(made("integrated-gradients", parameters={"steps": 7}).path)
    weights = np.polynomial.legendre.leggauss(7)[1] / 2
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.size == 7 and np.allclose(array.reshape(-1), weights):
            wrong = onnx.numpy_helper.from_array(array * np.float32(1.01), tensor.name)
            tensor.CopyFrom(wrong)
    onnx.save(model, tmp_path / "wrong.onnx")
    assert not onnxplain.verify(tmp_path / "wrong.onnx", net, provider="cpu", tolerance=1e-4).passed


def test_the_recipes_of_the_page_run(source, images, tmp_path, monkeypatch):
    page = Path(__file__).parent.parent.parent / "docs" / "estimators.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    photographs = images.numpy()
    given = {"network": source, "image": None, "photograph": photographs[:1], "others": photographs}
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(block, given)
    assert (tmp_path / "smooth.png").stat().st_size > 100
