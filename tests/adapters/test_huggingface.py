"""transformers' image-classification pipeline, by its own example flow, of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import onnxplain
from onnxplain.adapters.huggingface import ImageExplanationPipeline
from onnxplain.errors import InputError

SIZE = 32
NAMES = ["cat", "dog", "hare", "fox", "owl", "elk"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and its image processor, as `save_pretrained` leaves them."""
    folder = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 12],
        depths=[1, 1],
        layer_type="basic",
        id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)},
    )
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path) -> transformers.Pipeline:
    return transformers.pipeline("image-classification", model=str(folder), device=-1)


@pytest.fixture(scope="module")
def graph(folder: Path) -> onnxplain.Explainer:
    path = folder / "x.onnx"
    onnxplain.export(str(folder), path, method="gradient")
    return onnxplain.load(path, "cpu", threads=1)


@pytest.fixture
def images() -> list[Image.Image]:
    """As large as the network's input: packages do not agree in how they make others so."""
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)) for _ in range(3)]


def scores(answers: list[dict[str, object]]) -> dict[object, object]:
    return {answer["label"]: answer["score"] for answer in answers}


@pytest.mark.parametrize(
    "given", [{}, {"top_k": 2}, {"function_to_apply": "sigmoid"}, {"function_to_apply": "none"}]
)
def test_it_answers_what_transformers_pipeline_answers(
    theirs: transformers.Pipeline,
    graph: onnxplain.Explainer,
    images: list[Image.Image],
    given: dict[str, object],
) -> None:
    ours = ImageExplanationPipeline(graph)
    right, found = theirs(images[0], **given), ours(images[0], **given)
    assert [answer["label"] for answer in found] == [answer["label"] for answer in right]
    assert scores(found) == pytest.approx(scores(right), rel=1e-4)
    assert [sorted(answer) for answer in found[1:]] == [["label", "score"]] * (len(right) - 1)


def test_what_takes_a_file_many_or_a_generator(
    theirs: transformers.Pipeline,
    graph: onnxplain.Explainer,
    images: list[Image.Image],
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "a.png")
    images[0].save(path)
    ours = ImageExplanationPipeline(graph, explained=2)
    assert scores(ours(path)) == pytest.approx(scores(theirs(path)), rel=1e-4)
    for given in ([path, path], images):
        for size in (1, 2):
            found, right = ours(given, batch_size=size), theirs(given, batch_size=size)
            assert len(found) == len(right) == len(given)
            for one, other in zip(found, right, strict=True):
                assert scores(one) == pytest.approx(scores(other), rel=1e-4)
    streams = (pipeline(image for image in images) for pipeline in (ours, theirs))
    for one, other in zip(*streams, strict=True):
        assert scores(one) == pytest.approx(scores(other), rel=1e-4)


def test_the_first_answers_have_the_gradient_and_a_picture(
    folder: Path, graph: onnxplain.Explainer, images: list[Image.Image]
) -> None:
    network = transformers.ResNetForImageClassification.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    found = ImageExplanationPipeline(graph, explained=2, style="heatmap")(images, batch_size=2)
    for image, answers in zip(images, found, strict=True):
        x = processor(image, return_tensors="pt")["pixel_values"].requires_grad_()
        logits = network(x).logits[0]
        for answer in answers[:2]:
            target = NAMES.index(answer["label"])
            (right,) = torch.autograd.grad(logits[target], x, retain_graph=True)
            assert answer["pullback"] == pytest.approx(right[0].numpy(), rel=1e-3, abs=1e-6)
            assert answer["explanation"].size == (192, 192)  # enlarged, by a whole factor
        assert not np.array_equal(answers[0]["pullback"], answers[1]["pullback"])
        assert "pullback" not in answers[2]


def test_what_it_cannot_do_is_a_sentence(graph: onnxplain.Explainer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="explained is from 0 to 6 answers, not 7"):
        ImageExplanationPipeline(graph, explained=7)
    with pytest.raises(InputError, match="style"):
        ImageExplanationPipeline(graph, style="rainbow")
    assert (
        "pullback"
        not in ImageExplanationPipeline(graph, explained=0)(Image.new("RGB", (40, 50)))[0]
    )
