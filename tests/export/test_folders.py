"""Folders of Hugging Face's and checkpoints: what they say is held to what it may be."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from onnxplain.errors import SourceError
from onnxplain.export.sources.from_transformers import load_folder, read_processor
from onnxplain.export.sources.source import load_checkpoint
from onnxplain.extras import MissingPackageError

PROCESSOR = {"size": 8, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize(
    "config",
    [
        {"model_args": {"checkpoint_path": "/tmp/evil.pth"}},
        {"model_args": {"cache_dir": "elsewhere"}},
        {"architecture": "hf-hub:someone/else"},
        {"architecture": "local-dir:/tmp"},
        {"backbone_config": [{"use_pretrained_backbone": True}]},
        {"backbone": "someone/else"},
        {"_attn_implementation": "someone/kernel"},
        {"_attn_implementation_internal": "someone/kernel"},
        {"attn_implementation": {"": "someone/kernel"}},
    ],
)
def test_a_folder_that_leads_elsewhere_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    """timm would load the checkpoint, by older releases a pickle; the Hub would be asked."""
    written = {"model_type": "timm_wrapper", "architecture": "resnet10t"} | config
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(SourceError, match="leads out of the folder"):
        load_folder(tmp_path)


@pytest.mark.parametrize("place", ["../other/x.safetensors", "/tmp/x.safetensors"])
def test_so_is_one_whose_weights_lie_elsewhere(place: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    index = {"metadata": {"format": "pt"}, "weight_map": {"a": "x.safetensors", "b": place}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match=r"index\.json says b = .*leads out of the folder"):
        load_folder(tmp_path)


def test_so_is_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(SourceError, match="an adapter of another model"):
        load_folder(tmp_path)


def test_classes_may_have_the_names_of_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    written = {"model_type": "none", "label2id": {"backbone": 1, "cache_dir": 2}}
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(MissingPackageError, match="needs transformers"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    "text", ["{", 100_000 * "[", "\ud800"], ids=["cut short", "too deep", "no text"]
)
def test_a_configuration_that_is_none_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SourceError, match=r"config\.json can't be read"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"rescale_factor": 0},
        {"crop_pct": 1e-320},
        *({"size": size} for size in (-5, 0, "2", 10**12)),
        *({"size": {"height": edge, "width": edge}} for edge in ("2", 2.5, 1e400, True)),
        {"image_std": [0, 1, 1]},
        {"image_std": [1, 1]},
        {"image_mean": ["a"]},
        {"image_mean": [1e400] * 3},
    ],
)
def test_a_processor_that_makes_no_sense_is_told(changed: dict[str, Any], tmp_path: Path) -> None:
    (path := tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | changed))
    with pytest.raises(SourceError, match=r"preprocessor_config\.json can't be read"):
        read_processor(path)


def test_or_one_of_lists_in_lists(tmp_path: Path) -> None:
    (path := tmp_path / "preprocessor_config.json").write_text(100_000 * "[")
    with pytest.raises(SourceError, match="too deep to be read"):
        read_processor(path)


@pytest.mark.parametrize("key", [1, None, ("a",)])
def test_a_checkpoint_whose_keys_are_no_names_is_told(key: Any, tmp_path: Path) -> None:
    torch.save({key: torch.ones(1)}, path := tmp_path / "c.pth")
    with pytest.raises(SourceError, match="no parameter's name"):
        load_checkpoint(torch.nn.Linear(1, 1), path)
