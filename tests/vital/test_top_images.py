"""Neuron search: `onnxplain top-images`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from onnxplain.cli.app import app
from onnxplain.contract.channels import ChannelLayer, ChannelsMetadata, Span
from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError, SourceError
from onnxplain.export.sources.source import torch_network
from onnxplain.runtime.inputs.batches import as_batch, in_photograph
from onnxplain.vital import TopImages, top_images
from onnxplain.vital.graphs.receptive import receptive_field
from onnxplain.vital.graphs.subject import Subject, read_subject
from onnxplain.vital.search.contact_sheet import contact_sheet
from onnxplain.vital.search.image_files import list_images, walk
from onnxplain.vital.search.ranking import Found, Photograph, Ranking
from onnxplain.vital.search.run import _Decoded, _with, rank
from onnxplain.vital.search.top_images import Search

EARLY, LATE = "_blocks.3", "_swish"


# ----- what is found -----


@pytest.fixture(scope="module")
def maps(crops: Path) -> dict[str, np.ndarray]:
    """Each layer's activations for the crops, by PyTorch, [N, C, P]."""
    network = torch_network("efficientnet-lite0")
    found: dict[str, np.ndarray] = {}

    def keep(name: str) -> Any:
        return lambda module, x, y: found.update({name: y.detach().flatten(2).numpy()})

    batch, _ = as_batch(list(walk([str(crops)])), network.preprocessing)
    modules = dict(network.module.named_modules())
    hooks = [modules[name].register_forward_hook(keep(name)) for name in (EARLY, LATE)]
    with torch.inference_mode():
        network.module(torch.from_numpy(batch))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(("by", "provider"), [("max", "cpu"), ("mean", "openvino")])
def test_the_best_images_are_those_of_pytorchs_activations(
    by: str, provider: str, channels_graph: Path, crops: Path, maps: dict[str, np.ndarray]
) -> None:
    table = rank(channels_graph, crops, k=4, by=by, provider=provider)
    files = list(walk([str(crops)]))
    for ranking in table.rankings:
        right = maps[ranking.layer.name]
        values = {"max": right.max(axis=2), "mean": right.mean(axis=2)}[by]
        best = -np.sort(-values, axis=0)[:4].T
        got = ranking.maxima if by == "max" else ranking.means
        np.testing.assert_allclose(got, best, atol=2e-4)
        for channel in range(ranking.layer.channels):
            for patch in table.patches(channel, ranking.layer.name):
                own = right[files.index(patch.photograph.path), channel]
                assert abs(own.max() - patch.maximum) < 2e-4
                assert abs(own.mean() - patch.mean) < 2e-4
                assert abs(own[patch.position] - patch.maximum) < 2e-4


def test_batches_merge_into_what_sorting_everything_gives() -> None:
    rng = np.random.default_rng(0)
    layer = ChannelLayer("x", 6, (1, 1), None)
    maxima = rng.integers(0, 4, (40, 6)).astype(np.float32)  # many are equal
    means = rng.integers(0, 3, (40, 6)).astype(np.float32)
    positions = rng.integers(0, 9, (40, 6))
    names = [Photograph(f"{i}", 1, 1) for i in range(40)]
    ranking, start = Ranking.empty(layer, "max", 7), 0
    while start < 40:
        part = slice(start, start + int(rng.integers(1, 9)))
        ranking = ranking.merged(Found(maxima[part], means[part], positions[part]), names[part])
        start = part.stop
    for c in range(6):
        order = sorted(range(40), key=lambda i: (-maxima[i, c], -means[i, c], i))[:7]
        assert [p.path for p in ranking.photographs[c]] == [str(i) for i in order]
        np.testing.assert_array_equal(ranking.maxima[c], maxima[order, c])
        np.testing.assert_array_equal(ranking.means[c], means[order, c])
        np.testing.assert_array_equal(ranking.positions[c], positions[order, c])


def test_a_table_that_is_read_back_is_the_same(
    channels_graph: Path, crops: Path, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    table = rank(channels_graph, crops, k=20, path=path)
    again = TopImages.load(path)
    assert (again.search, again.done) == (table.search, 11)
    assert again.patches(5, EARLY) == table.patches(5, EARLY)
    assert len(again.best(5, EARLY)) == 11  # no more images than there are
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    line = json.loads(path.read_text())["layers"][0]["best"][5][0]
    assert Path(line["path"]) == table.best(5, EARLY)[0]
    assert tuple(line["box"]) == table.patches(5, EARLY)[0].box


def test_the_best_patch_under_a_sliding_window_counts(crops: Path) -> None:
    """Each patch fills the network's input; the box is the patch in the photograph."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 5, padding=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    ).eval()  # fmt: skip
    subject = read_subject(network, example=torch.zeros(1, 3, 32, 48), layers=["1"])
    table = top_images(subject, crops, k=11, patch=12, batch=4)
    files = list(walk([str(crops)]))
    x = torch.from_numpy(as_batch(files, subject.pre)[0])
    cut = torch.nn.functional.unfold(x, 12, stride=9).unflatten(1, (3, 12, 12)).movedim(-1, 1)
    assert cut.shape[1] == 3 * 5
    whole = torch.nn.functional.interpolate(cut.flatten(0, 1), (32, 48), mode="bilinear")
    means = network[:2](whole).mean((2, 3)).unflatten(0, (len(files), -1)).detach()
    for channel in range(5):
        patches = table.patches(channel)
        assert [p.mean for p in patches] == sorted((p.mean for p in patches), reverse=True)
        for patch in patches:
            own = means[files.index(patch.photograph.path), :, channel]
            assert patch.mean == pytest.approx(float(own.max()), abs=1e-5)
            assert patch.position == int(own.argmax())
            row, column = divmod(patch.position, 5)
            box = (9 * column, 9 * row, 9 * column + 12, 9 * row + 12)
            assert patch.box == in_photograph(box, patch.photograph[1:], subject.pre)
    sheet = contact_sheet(table, [2])
    assert sheet.height > 2 * 192


def test_a_patch_fits_into_the_image(crops: Path) -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(784, 2)
    )
    subject = read_subject(network.eval(), example=torch.zeros(1, 3, 16, 16), layers=["0"])
    with pytest.raises(InputError, match="from 2 to 16 pixels a side, not 17"):
        top_images(subject, crops, patch=17)


def test_patches_are_ranked_by_their_means_alone(tiny: Path, crops: Path) -> None:
    with pytest.raises(InputError, match="patches are ranked by their means: leave out"):
        top_images(tiny, crops, layer="relu", patch=12, by="max")


# ----- interrupted -----


def test_an_interrupted_search_goes_on_and_gives_the_same_table(
    channels_graph: Path, crops: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    rank(channels_graph, crops, k=3, path=whole, batch=2)
    for stop in (2, 6):

        def interrupt(done: int, images: int, stop: int = stop) -> None:
            if done >= stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            rank(channels_graph, crops, k=3, path=parts, batch=2, progress=interrupt)
        assert TopImages.load(parts).done == stop
    seen = []
    rank(
        channels_graph, crops, k=3, path=parts, batch=2, progress=lambda done, _: seen.append(done)
    )
    assert seen == [6, 8, 10, 11]
    assert parts.read_bytes() == whole.read_bytes()


def test_a_search_killed_by_sigkill_goes_on_and_gives_the_same_table(
    channels_graph: Path, crops: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole.json", tmp_path / "killed.json"
    program = """
import os, signal, sys
from pathlib import Path
from onnxplain.vital.search import run

run._SECONDS_BETWEEN_SAVES, run._MOST_SAVING = 0.0, 1e9
run.rank(
    Path(sys.argv[1]), sys.argv[2], k=3, path=sys.argv[3], batch=2,
    progress=lambda done, images: done >= 6 and os.kill(os.getpid(), signal.SIGKILL),
)
assert "torch" not in sys.modules
"""
    arguments = [sys.executable, "-c", program, channels_graph, crops, killed]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert TopImages.load(killed).done == 4
    rank(channels_graph, crops, k=3, path=killed, batch=2)
    rank(channels_graph, crops, k=3, path=whole, batch=2)
    assert killed.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"k": 4}, "k 3, not 4"),
        ({"by": "mean"}, "by 'max', not 'mean'"),
        ({"images": "more"}, "other images"),
    ],
)
def test_a_table_of_another_search_is_refused(
    changed: dict[str, Any], said: str, channels_graph: Path, crops: Path, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    rank(channels_graph, crops / "more", k=3, path=path)
    images = crops if changed.pop("images", None) else crops / "more"
    with pytest.raises(InputError, match=said):
        rank(channels_graph, images, path=path, **({"k": 3} | changed))


def test_a_table_of_another_network_is_refused(
    channels_graph: Path, tiny: Path, crops: Path, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    rank(channels_graph, crops / "more", path=path)
    with pytest.raises(InputError, match="another network or other layers, or other patches"):
        top_images(tiny, crops / "more", layer="relu", path=path)


# ----- networks -----


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one convolution and a batch of 4."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((5, 3, 3, 3)), "v": rng.standard_normal((5, 2))}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["conv"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "v"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [4, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [4, 2])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def test_a_network_with_a_fixed_batch_takes_any_number_of_images(tiny: Path, crops: Path) -> None:
    table = top_images(tiny, crops, layer=["relu", "flat"], k=11)
    assert table.search.batch == 4
    assert len(set(table.best(2, "relu"))) == 11
    flat = table.patches(2, "flat")
    # A layer without positions: its value is both, and it sees all of the crop.
    assert all(patch.maximum == patch.mean and patch.position == 0 for patch in flat)
    by_mean = top_images(tiny, crops, layer="relu", k=11, by="mean")
    assert by_mean.best(2) == table.best(2, "flat")


def test_a_layer_that_is_not_there_names_the_nearest(tiny: Path, crops: Path) -> None:
    with pytest.raises(SourceError, match="did you mean relu"):
        top_images(tiny, crops, layer="relu1")


def test_activations_that_are_no_numbers_pass_the_image_over() -> None:
    layer = ChannelLayer("x", 2, (1, 1), None)
    values = np.array([[1, 2], [np.nan, 0], [3, np.inf], [5, 1]], np.float32)
    outputs = {"maximum_0": values, "mean_0": values, "position_0": np.zeros((4, 2), np.int64)}
    runner = SimpleNamespace(run=lambda inputs: outputs)
    search = Search("x", "", "cpu", 4, "max", 3, 4, "")
    empty = TopImages(search, Preprocessing(1, 1, 1), (Ranking.empty(layer, "max", 3),))
    images = [_Decoded(Photograph(f"{i}", 1, 1), np.zeros((3, 1, 1), np.float32)) for i in range(4)]
    table = _with(empty, images, runner, ChannelsMetadata((layer,), None))
    assert [str(path) for path in table.best(0)] == ["3", "0"]
    assert [failure.path for failure in table.failures] == ["1", "2"]
    assert "NaN or infinite" in table.failures[0].reason


# ----- patches -----


class Branches(torch.nn.Module):
    """Windows of all kinds, branches that are joined, a gate, channels last; then attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.pool = torch.nn.AvgPool2d(3, stride=2, ceil_mode=True)
        self.left = torch.nn.Conv2d(8, 8, (1, 7), padding=(0, 3))
        self.right = torch.nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.gate = torch.nn.Conv2d(16, 16, 1)
        self.gated = torch.nn.Identity()
        self.norm = torch.nn.LayerNorm(16)
        self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = torch.nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.tanh(self.stem(x)))
        x = torch.cat([self.left(x), torch.tanh(self.right(x))], 1)
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) + x
        tokens = x.flatten(2).transpose(1, 2)
        tokens, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head(tokens.mean(1))


def test_the_receptive_field_is_where_the_gradient_is() -> None:
    torch.manual_seed(0)
    module = Branches().eval()
    example = torch.zeros(2, 3, 61, 47)
    subject = read_subject(module, example=example, layers=["pool", "right", "norm", "attention"])
    graph = subject.model.graph
    values = {str(y.name): y for node in graph for y in node.outputs}
    pool, right, norm, attention = (receptive_field(graph, values[name]) for name in subject.layers)
    found: dict[str, torch.Tensor] = {}
    for name in ("pool", "right"):
        module.get_submodule(name).register_forward_hook(
            lambda module, x, y, name=name: found.update({name: y})
        )
    image = torch.randn(1, 3, 61, 47, dtype=torch.float64, requires_grad=True)
    module.double()(image)
    for name, field in (("pool", pool), ("right", right)):
        height, width = found[name].shape[2:]
        layer = ChannelLayer(name, 8, (height, width), field)
        for row, column in ((0, 0), (height // 2, width // 2), (height - 1, width - 1)):
            (g,) = torch.autograd.grad(found[name][0, 1, row, column], image, retain_graph=True)
            rows, columns = (g[0].abs().sum((0, axis)).nonzero() for axis in (2, 1))
            ends = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            assert layer.box(row * width + column, 61, 47) == tuple(int(end) for end in ends)
    # Joined: the taller window of the one branch, the wider of the other. Their gate sees all of
    # the picture, and does not count; attention does.
    assert norm == (Span(4, -9, 13), Span(4, -13, 17))
    assert attention is None
    assert ChannelLayer("x", 16, (1, 64), None).box(3, 32, 32) == (0, 0, 32, 32)


@pytest.mark.parametrize("size", [(640, 427), (300, 900), (57, 61), (224, 224)])
def test_a_box_of_the_input_is_found_in_the_photograph(size: tuple[int, int]) -> None:
    pre = Preprocessing(64, 96, resize=110, mean=(0.0,) * 3, std=(1.0,) * 3)
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    left, top, side = round(0.45 * width), round(0.52 * height), min(size) // 6
    picture[top : top + side, left : left + side] = 255
    batch, _ = as_batch(picture, pre)
    rows, columns = (np.flatnonzero(batch[0, 0].max(axis=axis) > 0.5) for axis in (1, 0))
    seen = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    right = left, top, left + side, top + side
    pixel = min(size) / 110  # one of the network's
    np.testing.assert_allclose(in_photograph(seen, size, pre), right, atol=1 + 1.5 * pixel)
    whole = in_photograph((0, 0, 96, 64), size, pre)
    assert whole[0] >= 0
    assert whole[2] <= width
    assert whole[2] - whole[0] == pytest.approx(min(96 * pixel, width), abs=2 + pixel)


def test_the_sheet_shows_patches_and_photographs(channels_graph: Path, crops: Path) -> None:
    table = rank(channels_graph, crops, k=3)
    sheet = np.asarray(contact_sheet(table, [5, 7], EARLY))
    patch = table.patches(5, EARLY)[0]
    cut = Image.open(patch.photograph.path).crop(patch.box)
    colour = np.asarray(cut.resize((1, 1), Image.Resampling.BOX))[0, 0]
    rows, columns = np.nonzero((sheet != 255).any(axis=2) & (np.arange(sheet.shape[1]) > 125))
    first = sheet[rows.min() : rows.min() + 192, columns.min() : columns.min() + 192]
    # Letterboxed on white: its own rows and columns alone.
    inside = first[(first != 255).any(axis=(1, 2))][:, (first != 255).any(axis=(0, 2))]
    np.testing.assert_allclose(inside.mean(axis=(0, 1)), colour, atol=12)


# ----- images -----


def test_folders_are_walked_in_one_order_and_hidden_files_left_out(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "z/c.png", "c/d.webp", ".hidden.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [os.path.relpath(path, tmp_path) for path in walk([str(tmp_path)])]
    assert found == ["a.JPG", "b.png", "c/d.webp", "z/c.png"]
    before = list_images([str(tmp_path)])
    os.utime(tmp_path / "b.png", ns=(1, 1))
    after = list_images([str(tmp_path)])
    assert (before.count, after.count) == (4, 4)
    assert before.digest != after.digest


def test_no_image_and_an_image_named_twice_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").touch()
    (tmp_path / "empty").mkdir()
    for wrong in ("empty", "missing"):
        with pytest.raises(InputError, match=f"no image found at .*{wrong}"):
            list_images([str(tmp_path / wrong)])
    with pytest.raises(InputError, match="lies within"):
        list_images([str(tmp_path / "a" / "x.png"), str(tmp_path / "a")])
    with pytest.raises(InputError, match="no image given"):
        list_images([])


def test_a_folder_of_nothing_readable_is_an_error(channels_graph: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(InputError, match="none of the 1 images can be used"):
        rank(channels_graph, tmp_path)


# ----- the command -----


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, searched: Subject) -> Iterator[Any]:
    """The command on a network that is read already."""

    def read(source: str, *, layers: list[str], **options: Any) -> Subject:
        chosen = {value: name for value, name in searched.layers.items() if name in layers}
        return Subject(**{**vars(searched), "layers": chosen or searched.layers})

    monkeypatch.setattr("onnxplain.vital.graphs.subject.read_subject", read)

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["top-images", "lite0", *map(str, arguments)])

    return run


def test_the_command_ranks_shows_and_reports_what_it_cannot_read(
    command: Any, crops: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes((crops / "00.png").read_bytes()[:500])
    table, sheet = tmp_path / "table.json", tmp_path / "sheet.png"
    arguments = [crops, broken, "-l", EARLY, "-c", 3, "--sheet", sheet, "-o", table, "-k", 2]
    done = command(*arguments)
    assert done.exit_code == 1
    assert "11 of 12 images ranked for 40 channels" in done.output
    assert "broken.png" in done.output
    assert TopImages.load(table).failures[0].path == str(broken)
    assert Image.open(sheet).size[0] > 2 * 192
    again = command(*arguments)  # nothing is left to do, and it says the same
    assert again.exit_code == 1
    assert "images/s" not in again.output
    assert TopImages.load(table).best(3)[0].name in again.output


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["-l", EARLY, "-c", "40"], 4, "they are 0 to 39"),
        (["-c", "1"], 4, "--channel goes with one --layer"),
        (["--sheet", "x.png"], 4, "give some with --channel"),
        (["--by", "median"], 4, "choose one of max, mean"),
        (["-o", "/nowhere/table.json"], 4, "the folder /nowhere does not exist"),
        (["--provider", "abacus"], 5, "unknown provider"),
        (["-k", "0"], 2, "or equal to 1"),
    ],
)
def test_what_the_command_cannot_do_is_a_sentence(
    arguments: list[str], status: int, said: str, command: Any, crops: Path, tmp_path: Path
) -> None:
    out = [] if "-o" in arguments else ["-o", tmp_path / "table.json"]
    done = command(crops, *arguments, *out)
    assert done.exit_code == status, done.output
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_file_that_is_no_table_is_refused(command: Any, crops: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"mine": 1}')
    done = command(crops, "-o", other)
    assert done.exit_code == 4
    assert "no table" in done.output
    assert other.read_text() == '{"mine": 1}'
