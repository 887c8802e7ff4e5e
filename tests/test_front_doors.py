"""Every way in: names of timm, Hugging Face classifiers, TorchScript, torch.export programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import timm
import torch
import transformers
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli.app import app
from onnxplain.errors import SourceError
from onnxplain.export.sources.from_transformers import processor_preprocessing
from onnxplain.export.sources.source import from_module, torch_network
from onnxplain.export.sources.tracing import blank_image, logits_of, trace
from onnxplain.reference.answers import compare

SIZE = 32


class Logits(torch.nn.Module):
    """What a Hugging Face classifier returns, reduced to its logits."""

    def __init__(self, classifier: torch.nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(x).logits
        return logits


class Small(torch.nn.Module):
    """A convolution, a ReLU, a mean, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.stem(x)).mean((2, 3)))


def small() -> Small:
    torch.manual_seed(0)
    return Small().eval()


def agree(path: Path, module: torch.nn.Module, size: int, batch: int = 3) -> None:
    """The explain graph against the float64 reference of the module."""
    images = np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)
    parity = compare(onnxplain.load(path), module, images, np.array([0, -1, 2])[:batch])
    for measured in parity.values():
        assert measured.relative_l2 <= 1e-3
        assert measured.cosine >= 0.9999


# ----- Hugging Face -----

TINY: Mapping[str, Mapping[str, Any]] = {
    "ViT": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8},
    "DeiT": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8},
    "Dinov2": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 8,
    },
    "Beit": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 8,
        "use_relative_position_bias": True,
    },
    "Swin": {
        "embed_dim": 16,
        "depths": [2, 1],
        "num_heads": [2, 4],
        "window_size": 4,
        "patch_size": 2,
    },
    "Pvt": {
        "hidden_sizes": [16, 16, 16, 16],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
        "sequence_reduction_ratios": [4, 2, 1, 1],
    },
    "Segformer": {
        "hidden_sizes": [16, 16, 16, 16],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
    },
    "Levit": {"hidden_sizes": [16, 16, 16], "depths": [1, 1, 1], "num_attention_heads": [1, 1, 1]},
    "ConvNext": {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]},
    "ResNet": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 2],
        "layer_type": "basic",
    },
    "RegNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "groups_width": 8},
    "MobileNetV2": {"depth_multiplier": 0.25, "min_depth": 8},
    "EfficientNet": {
        "width_coefficient": 0.25,
        "hidden_dim": 320,
        "initializer_range": 0.2,
        "num_block_repeats": [1, 1, 1, 1, 1, 1, 1],
    },
}


def classifier(family: str, **options: Any) -> torch.nn.Module:
    """A small one with random weights, of 5 classes."""
    config = getattr(transformers, f"{family}Config")(
        image_size=SIZE, num_labels=5, **TINY[family], **options
    )
    torch.manual_seed(0)
    made: torch.nn.Module = getattr(transformers, f"{family}ForImageClassification")(config).eval()
    for parameter in made.parameters():  # biases and scales that start at 0 or 1e-6 hide mistakes
        if parameter.abs().max() < 1e-3:
            torch.nn.init.normal_(parameter, std=0.2)
    return made


QUICK = ("ViT", "Swin", "ResNet")


@pytest.mark.parametrize(
    "family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.sweep) for f in TINY]
)
def test_hugging_face_classifiers_agree_with_the_reference(family: str, tmp_path: Path) -> None:
    module, traced = classifier(family), tmp_path / "traced.onnx"
    source = from_module(module, size=(SIZE, SIZE))
    ir.save(source.model, traced)
    for method in ("gradient", "excitation", "semantic"):
        path = tmp_path / f"{method}.onnx"
        onnxplain.export(traced, path, method=method)
        agree(path, Logits(module), SIZE)


def test_a_hugging_face_classifier_says_its_size_and_classes(tmp_path: Path) -> None:
    module, path = (
        classifier("ResNet", id2label={i: f"class {i}" for i in range(5)}),
        tmp_path / "x",
    )
    metadata = onnxplain.export(module.train(), path, size=SIZE, method="gradient")
    assert module.training
    assert metadata.labels == tuple(f"class {i}" for i in range(5))
    assert (metadata.preprocessing.height, metadata.preprocessing.width) == (SIZE, SIZE)
    assert any("assumed ImageNet's mean" in note for note in metadata.notes)


def test_a_folder_of_save_pretrained_is_a_source(tmp_path: Path) -> None:
    module, folder = classifier("ViT"), tmp_path / "my_vit"
    module.save_pretrained(folder)  # type: ignore[operator]
    processor = {
        "do_resize": True,
        "size": {"height": SIZE, "width": SIZE},
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    path = tmp_path / "explain.onnx"
    metadata = onnxplain.export(folder, path, method="gradient")
    pre = metadata.preprocessing
    assert (pre.height, pre.width, pre.resize, pre.interpolation) == (SIZE, SIZE, SIZE, "bicubic")
    assert pre.mean == (0.5, 0.5, 0.5)
    assert pre.std == (0.25, 0.25, 0.25)
    assert metadata.source == "my_vit"
    assert metadata.labels == ()  # LABEL_0, LABEL_1, … are no names
    assert metadata.notes == ()
    agree(path, Logits(module), SIZE)


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"without config\.json.*save_pretrained"):
        onnxplain.export(tmp_path, tmp_path / "x.onnx")


def test_an_image_processors_numbers_become_preprocessing() -> None:
    crop = {
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
    }
    pre = processor_preprocessing(crop)
    assert (pre.height, pre.width, pre.resize, pre.interpolation) == (224, 224, 256, "bicubic")
    convnext = crop | {"do_center_crop": False, "size": {"shortest_edge": 224}, "crop_pct": 0.875}
    pre = processor_preprocessing(convnext)
    assert (pre.height, pre.resize) == (224, 256)
    assert pre.fit == "crop"
    vit = crop | {"do_center_crop": False, "size": {"height": 224, "width": 224}}
    large = crop | {"do_center_crop": False, "size": {"shortest_edge": 384}, "crop_pct": 1.0}
    assert processor_preprocessing(vit).fit == processor_preprocessing(large).fit == "squash"
    # Pixels times 1/127.5 less 1: (p/255 − 0.5) / 0.5.
    halves = crop | {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}
    pre = processor_preprocessing(halves)
    np.testing.assert_allclose([*pre.mean, *pre.std], 0.5)
    pre = processor_preprocessing(crop | {"do_normalize": False})
    assert (pre.mean, pre.std) == ((0, 0, 0), (1, 1, 1))
    with pytest.raises(SourceError, match="RGB into BGR"):
        processor_preprocessing(crop | {"do_flip_channel_order": True})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: y,
        lambda y: {"logits": y, "features": y[:, :1]},
        lambda y: {"out": y},
        lambda y: (y, y[:, :1]),
        lambda y: transformers.modeling_outputs.ImageClassifierOutput(logits=y),
    ],
)
def test_logits_are_found_in_what_networks_return(wrap: Callable[[Any], Any]) -> None:
    logits = torch.randn(2, 5)
    assert logits_of(wrap(logits)) is logits


def test_an_output_without_logits_names_what_there_is() -> None:
    with pytest.raises(SourceError, match=r"dict with boxes, masks.*wrap it"):
        logits_of({"boxes": torch.zeros(1), "masks": torch.zeros(1)})


# ----- timm -----


def test_a_timm_network_by_name_agrees_with_the_reference(tmp_path: Path) -> None:
    path = tmp_path / "explain.onnx"
    metadata = onnxplain.export("timm/test_resnet", path, weights="none")
    pre, config = metadata.preprocessing, timm.get_pretrained_cfg("test_resnet")
    assert (3, pre.height, pre.width) == config.input_size
    assert pre.resize == int(pre.height / config.crop_pct)
    assert (pre.mean, pre.std, pre.interpolation) == (config.mean, config.std, config.interpolation)
    assert metadata.source == "timm/test_resnet"
    assert metadata.labels == ()  # nobody trained it
    agree(path, torch_network("timm/test_resnet", "none").module, pre.height, batch=2)


def test_untrained_weights_come_from_a_fixed_seed() -> None:
    one, two = (torch_network("timm/test_vit", "none").module.state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_timm_network_made_for_a_size_is_made_for_another() -> None:
    network = torch_network("timm/test_vit", "none", (96, 96))
    assert network.module(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)
    assert (network.preprocessing.height, network.preprocessing.width) == (96, 96)
    network = torch_network("timm/test_resnet", "none", (96, 64))  # takes any size
    assert (network.preprocessing.height, network.preprocessing.width) == (96, 64)


def test_a_timm_checkpoint_is_loaded(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = torch_network("timm/test_vit", "none").module.state_dict()
    state = {key: value + 1 for key, value in state.items()}
    torch.save({"state_dict": state}, tmp_path / "c.pth")
    save_file(state, tmp_path / "c.safetensors")
    for name in ("c.pth", "c.safetensors"):
        loaded = torch_network("timm/test_vit", str(tmp_path / name)).module.state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet5", r"timm has no network 'resnet5'; did you mean resnet50"),
        ("timm/pvt_v2_b1.in2k", r"no weights 'in2k' of pvt_v2_b1; did you mean in1k\?"),
        ("resnet5000", r"nor timm/NAME of timm's; did you mean resnet50"),
        ("fcn_resnet50", r"no image classifier: .*get_model\(name\), path, example=x\)"),
    ],
)
def test_the_nearest_names_are_suggested(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        onnxplain.export(name, tmp_path / "x.onnx")


def test_without_timm_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    result = CliRunner().invoke(app, ["export", "timm/test_vit", "-o", str(tmp_path / "x.onnx")])
    assert result.exit_code != 0
    assert 'pip install "onnxplain[zoo]"' in result.output.replace("\n", " ")


def test_a_timm_module_needs_no_example(tmp_path: Path) -> None:
    module = timm.create_model("test_resnet")
    metadata = onnxplain.export(module, tmp_path / "x.onnx", method="gradient")
    assert metadata.preprocessing.interpolation == module.pretrained_cfg["interpolation"]
    assert module.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("how", ["module", "script"])
def test_a_module_in_half_precision_needs_no_example_either(how: str, dtype: torch.dtype) -> None:
    module = small().to(dtype)
    module = torch.jit.script(module) if how == "script" else module
    source = from_module(module, size=(SIZE, SIZE))
    assert source.model.graph.inputs[0].dtype.name == str(dtype).removeprefix("torch.").upper()


def test_the_default_example_is_on_the_device_of_the_module() -> None:
    example = blank_image(small().to("meta"), 3, (SIZE, SIZE))
    assert (example.device.type, example.dtype) == ("meta", torch.float32)


# ----- TorchScript and torch.export -----


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_torchscript_file_agrees_with_the_reference(how: str, tmp_path: Path) -> None:
    module, file, path = small(), tmp_path / "scripted.pt", tmp_path / "explain.onnx"
    example = torch.zeros(1, 3, SIZE, SIZE)
    torch.jit.save(
        torch.jit.script(module) if how == "script" else torch.jit.trace(module, example), file
    )
    metadata = onnxplain.export(file, path, size=SIZE)
    assert metadata.source == "scripted.pt"
    agree(path, module, SIZE)


def test_a_torchscript_object_is_left_in_its_mode(tmp_path: Path) -> None:
    script = torch.jit.script(small()).train()
    onnxplain.export(script, tmp_path / "x.onnx", example=torch.zeros(1, 3, SIZE, SIZE))
    assert script.training
    assert script.stem.training


@pytest.mark.usefixtures("trusting")
def test_a_torchscript_file_asks_for_its_size(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(small()), tmp_path / "scripted.pt")
    with pytest.raises(SourceError, match=r"leaves the size of its input open.*size="):
        onnxplain.export(tmp_path / "scripted.pt", tmp_path / "x.onnx")


@pytest.mark.parametrize("what", ["state", "module", "text"])
def test_a_pt_file_that_is_no_network(what: str, tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    if what == "text":
        file.write_text("nothing")
    else:
        torch.save(small().state_dict() if what == "state" else small(), file)
    with pytest.raises(SourceError, match=r"neither TorchScript nor.*NAME --weights .*c\.pt"):
        onnxplain.export(file, tmp_path / "x.onnx", size=SIZE)


@pytest.mark.usefixtures("trusting")
def test_a_program_keeps_its_dynamic_batch(tmp_path: Path) -> None:
    module, file, path = small(), tmp_path / "program.pt2", tmp_path / "explain.onnx"
    program = torch.export.export(
        module,
        (torch.zeros(2, 3, SIZE, SIZE),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    torch.export.save(program, file)
    for source in (file, program):
        onnxplain.export(source, path)
        agree(path, module, SIZE, batch=3)


class OneAtATime(Small):
    """Its code refuses a batch; `mixing` images, it could not take one either."""

    def __init__(self, mixing: bool) -> None:
        super().__init__()
        self.mixing = mixing

    def forward(self, x: torch.Tensor) -> Any:
        if x.shape[0] > 1:
            raise ValueError("one at a time, please")
        logits = super().forward(x)
        return torch.cumsum(logits, dim=0) if self.mixing else logits


def test_a_batch_that_tracing_fixed_is_freed_where_that_is_safe(tmp_path: Path) -> None:
    module, path = OneAtATime(mixing=False).eval(), tmp_path / "explain.onnx"
    module.load_state_dict(small().state_dict())
    metadata = onnxplain.export(module, path, size=SIZE, mean=[0.5] * 3)
    assert metadata.notes == ()
    agree(path, small(), SIZE, batch=3)


@pytest.mark.filterwarnings("ignore:the batch stays fixed")
def test_a_batch_that_stays_fixed_is_noted_with_its_reason(tmp_path: Path) -> None:
    module, path = OneAtATime(mixing=True).eval(), tmp_path / "explain.onnx"
    metadata = onnxplain.export(module, path, size=SIZE, mean=[0.5] * 3)
    (note,) = metadata.notes
    assert "batches of 1 alone" in note
    assert "one at a time, please" in note
    assert onnxplain.load(path).metadata.notes == (note,)
    agree(path, module, SIZE, batch=1)


# ----- nothing is left behind -----


class Cached(Small):
    """As timm's LeViT: in evaluation mode a forward pass keeps what it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> Any:
        if "bias" not in self.cache:
            self.cache["bias"] = self.head.bias * 2
        return super().forward(x) + self.cache["bias"]


def test_tracing_leaves_a_module_as_it_was(tmp_path: Path) -> None:
    module = Cached().train()
    module.stem.eval()
    torch.nn.utils.weight_norm(module.head)  # its weight is no parameter, and deepcopy refuses it
    before = {key: value.clone() for key, value in module.state_dict().items()}
    trace(module, torch.zeros(1, 3, SIZE, SIZE), "cached", ["stem"])
    assert module.training
    assert not module.stem.training
    assert not module.cache
    assert not module._forward_hooks
    assert not module.stem._forward_hooks
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize("dimensions", [3, 4, 5])
@pytest.mark.parametrize("mask", [None, "causal", "boolean", "added"])
def test_attention_is_spelled_as_pytorch_computes_it(mask: str | None, dimensions: int) -> None:
    from onnxplain.export.sources.spelling import spelled

    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 4, 6, 8)[5 - dimensions :]
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    options: dict[str, Any] = {
        None: {"scale": 0.3},
        "causal": {"is_causal": True},
        "boolean": {"attn_mask": torch.rand(6, 6, generator=generator) > 0.3},
        "added": {"attn_mask": torch.randn(6, 6, generator=generator)},
    }[mask]
    attention = torch.nn.functional.scaled_dot_product_attention
    expected = attention(q, k, v, **options)
    with spelled():
        torch.testing.assert_close(attention(q, k, v, **options), expected)


def test_grouped_attention_is_spelled_as_pytorch_computes_it() -> None:
    from onnxplain.export.sources.spelling import spelled

    q, k, v = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    attention = torch.nn.functional.scaled_dot_product_attention
    expected = attention(q, k, v, enable_gqa=True)
    with spelled():
        torch.testing.assert_close(attention(q, k, v, enable_gqa=True), expected)


# ----- the command line -----


def test_the_command_names_its_file_after_the_source_and_prints_the_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.save(torch.jit.script(small()), "scripted.pt")
    result = CliRunner().invoke(app, ["--trust", "export", "scripted.pt", "--size", str(SIZE)])
    assert result.exit_code == 0, result.output
    assert onnx.load("scripted.explain.onnx").graph.output[0].name == "logits"
    assert "note: assumed ImageNet's mean" in result.output
    assert "give --mean and --std" in result.output


def test_an_untrained_vit_takes_images_of_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The DEFAULT weights of vit_h_14 are for 518 × 518; without weights it is built for 224."""
    blocks = "torchvision.models.vision_transformer.EncoderBlock"
    monkeypatch.setattr(blocks, lambda *_, **__: torch.nn.Identity())
    network = torch_network("vit_h_14", "none")
    assert (network.preprocessing.height, network.preprocessing.resize) == (224, 224)
