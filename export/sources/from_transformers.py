"""Hugging Face image classifiers: the folders that hold them, and what their configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxplain.contract.explain import CROP, DOWN, SQUASH, Preprocessing
from onnxplain.errors import SourceError
from onnxplain.extras import require
from onnxplain.options import check_fields
from onnxplain.reading import parsed, text

if TYPE_CHECKING:
    import torch

_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers for its filters, as `preprocessor_config.json` gives them."""


def load_folder(folder: Path) -> tuple[torch.nn.Module, Preprocessing | None]:
    """The classifier that `save_pretrained` wrote, and its image processor if that is beside it.

    Raises:
        SourceError: the folder holds no such classifier.
    """
    if not (folder / "config.json").is_file():
        raise SourceError(
            f"{folder} is a folder without config.json; a folder is what save_pretrained of a "
            "Hugging Face classifier wrote"
        )
    if (folder / "adapter_config.json").exists():
        raise SourceError(
            f"{folder} holds an adapter of another model, which lies elsewhere; merge them (peft's "
            "merge_and_unload) and save what that gives"
        )
    for written in (folder / "config.json", *folder.glob("*.index.json")):
        _check_stays_within(written)
    require("zoo", f"{folder}", ("transformers",))
    from transformers import AutoModelForImageClassification

    try:
        # Unless told, transformers asks on the terminal whether to run the folder's own Python.
        module = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(
            f"{folder} holds no Hugging Face image classifier: {reason} Load another network with "
            "transformers, and export the module in Python: export(module, path, example=x)"
        ) from error
    written = folder / "preprocessor_config.json"
    return module, read_processor(written) if written.is_file() else None


def _check_stays_within(written: Path) -> None:
    """Hold a configuration to its folder: timm opens any checkpoint that its arguments name, older
    releases as a pickle, both libraries look for what is not there in Hugging Face's Hub, and an
    index of weights says in which files they are.

    Raises:
        SourceError: it names something else, or cannot be read.
    """
    try:
        is_index = written.name.endswith(".index.json")
        for name, value in _settings(parsed(text(written))):
            named = isinstance(value, str) and not any(mark in value for mark in "/\\:")
            is_name = name.strip("_").removesuffix("_internal") in _NAMES
            is_file = is_index and isinstance(value, str)
            if value and (name in _ELSEWHERE or ((is_name or is_file) and not named)):
                raise SourceError(
                    f"{written} says {name} = {value!r}, which leads out of the folder; "
                    "a classifier is read from its folder alone"
                )
    except (OSError, RecursionError, ValueError) as error:
        raise SourceError(f"{written} can't be read: {error!r}") from error


_ELSEWHERE = {"checkpoint_path", "cache_dir", "use_pretrained_backbone"}
"""Settings that make a library read files of other folders."""

_NAMES = {"architecture", "attn_implementation", "backbone"}
"""Settings that are names, or places where they have a separator."""


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """Every setting of a configuration, within others too."""
    within: list[Any] = config if isinstance(config, list) else []
    if isinstance(config, dict):
        yield from config.items()
        within = [value for name, value in config.items() if name != "label2id"]
    for one in within:
        yield from _settings(one)


def read_processor(written: Path) -> Preprocessing:
    """What an image processor does, by its `preprocessor_config.json`.

    Raises:
        SourceError: it does something that `Preprocessing` can't express, or cannot be read.
    """
    try:
        return processor_preprocessing(parsed(text(written)))
    except (
        *(OSError, ArithmeticError, AttributeError, LookupError, TypeError),
        ValueError,
    ) as error:
        raise SourceError(f"{written} can't be read: {error!r}") from error


def processor_preprocessing(config: dict[str, Any]) -> Preprocessing:
    """What an image processor does, as `preprocessor_config.json` has it.

    Of one that squeezes every picture into a size and then cuts out the centre of that, the shorter
    side is resized instead.

    Raises:
        SourceError: it does something that `Preprocessing` can't express.
        Exception: of any other kind of the standard library, where it makes no sense.
    """
    if config.get("do_flip_channel_order"):
        raise SourceError(
            "the image processor turns RGB into BGR, which a graph's preprocessing can't; swap "
            "the channels of the first layer's weights and remove do_flip_channel_order"
        )
    given = config.get("size", 224)
    resized = _height_width(given)
    keeps_aspect = isinstance(given, dict) and "shortest_edge" in given
    size = _height_width(config["crop_size"]) if config.get("do_center_crop") else resized
    resize = min(resized)
    if "crop_pct" in config:  # ConvNeXt's: resize, then crop to `size`, but no large one
        keeps_aspect = resize < 384
        resize = int(resize / (config["crop_pct"] or 1)) if keeps_aspect else resize
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", True):
        mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
    # The processor's pixels are in [0, 255] times this.
    factor = 255 * (config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1)
    found = Preprocessing(
        height=size[0],
        width=size[1],
        resize=max(resize, *size),
        mean=tuple(value / factor for value in mean),
        std=tuple(value / factor for value in std),
        interpolation=_INTERPOLATIONS.get(config.get("resample", 2), "bilinear"),
        fit=CROP if keeps_aspect or config.get("do_center_crop") else SQUASH,
        half=DOWN,
    )
    check_fields(found)
    found.check()
    return found


def configured_size(config: Any) -> tuple[int, int] | None:
    """The input's height and width, if a model's configuration gives them."""
    size = getattr(config, "image_size", None)
    return None if size is None else _height_width(size)


def configured_labels(config: Any) -> tuple[str, ...]:
    """The class names in a configuration; none where they are the placeholders LABEL_0, …"""
    names = getattr(config, "id2label", None) or {}
    labels = tuple(str(names[index]) for index in sorted(names, key=int))
    return () if all(name.startswith("LABEL_") for name in labels) else labels


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        return (size["height"], size["width"]) if edge is None else (edge, edge)
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
