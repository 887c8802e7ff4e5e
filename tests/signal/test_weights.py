"""The authors' checkpoints, and ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onnxplain.errors import InputError, SourceError
from onnxplain.signal.autoencoder import Autoencoder, Design
from onnxplain.signal.settings import Settings
from onnxplain.signal.study import Study
from onnxplain.signal.weights import (
    AUTHORS_MEAN,
    AUTHORS_STD,
    load_autoencoder,
    save_autoencoder,
    start_from,
)

from .small import autoencoder


def authors_state(network: Autoencoder, prefix: str) -> dict[str, torch.Tensor]:
    """A state as they publish it: `conv11.weight` … `conv_final.bias`, behind a prefix."""
    return {
        prefix + ".".join(name.split(".")[-2:]): tensor
        for name, tensor in network.state_dict().items()
    }


@pytest.fixture(scope="module")
def segnet() -> Autoencoder:
    return autoencoder("segnet", 32)


@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder."])
def test_a_state_with_the_authors_names_loads(
    segnet: Autoencoder, tmp_path: Path, prefix: str
) -> None:
    state = authors_state(segnet, prefix)
    assert {f"{prefix}conv11.weight", f"{prefix}conv53d.weight", f"{prefix}conv_final.bias"} <= (
        state.keys()
    )
    behind = {"resnet.layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)} if prefix else {}
    state |= behind  # a container may hold the classifier too
    torch.save({"model_state": state} if prefix else state, tmp_path / "authors.pth")
    loaded = load_autoencoder(tmp_path / "authors.pth")
    assert loaded.design.name == "segnet"
    assert torch.equal(loaded.encoder.conv42.weight, segnet.encoder.conv42.weight)
    assert torch.equal(loaded.decoder.bn21d.running_var, segnet.decoder.bn21d.running_var)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_authors_network_is_the_same_function_of_rgb_as_theirs(
    segnet: Autoencoder, tmp_path: Path, channels: str
) -> None:
    """Their script normalises BGR, and reverses it once more for a network that takes RGB."""
    torch.save({"model_state": authors_state(segnet, "")}, tmp_path / "authors.pth")
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (AUTHORS_MEAN, AUTHORS_STD))
    theirs = Autoencoder(Design("segnet", 32, (0.0,) * 3, (1.0,) * 3)).eval()
    theirs.load_state_dict(segnet.state_dict())
    axes = [1] if channels == "rgb" else []
    with torch.no_grad():
        fed = ((255 * pixels.flip(1) - mean) / std).flip(axes)
        expected = (theirs(fed).flip(axes) * std + mean).flip(1) / 255
        found = start_from(tmp_path / "authors.pth", 32, 3, channels).eval()(pixels)
    error = (found - expected).norm() / expected.norm()
    assert error <= 1e-3  # a place that rounding moves costs some 1e-4


def test_the_authors_network_takes_rgb_unless_told_otherwise(
    segnet: Autoencoder, tmp_path: Path
) -> None:
    torch.save(authors_state(segnet, ""), tmp_path / "authors.pth")
    first = load_autoencoder(tmp_path / "authors.pth").encoder.conv11.weight
    assert torch.equal(first, segnet.encoder.conv11.weight)
    with pytest.raises(InputError, match="one of rgb, bgr"):
        load_autoencoder(tmp_path / "authors.pth", "grb")


def test_only_the_authors_network_may_take_bgr(segnet: Autoencoder, tmp_path: Path) -> None:
    """Of weights of a training it would change nothing; a study's own decoders are such."""
    save_autoencoder(segnet, tmp_path / "ours.pt")
    with pytest.raises(InputError, match="channels are those of the authors' weights"):
        load_autoencoder(tmp_path / "ours.pt", "bgr")
    with pytest.raises(InputError, match="weights to begin with: give start"):
        Settings("digits", channels="bgr").check()
    study = Study(Settings("digits", start="authors.pth", channels="bgr"), ("a", "b"))
    assert study.tuned("a", "authors.pth").channels == "bgr"
    assert study.tuned("a", "autoencoder.pt").channels == "rgb"


def test_names_may_be_bytes(segnet: Autoencoder, tmp_path: Path) -> None:
    """As Python 2 wrote them."""
    state = {name.encode(): tensor for name, tensor in authors_state(segnet, "module.").items()}
    torch.save({b"model_state": state}, tmp_path / "authors.pth")
    loaded = load_autoencoder(tmp_path / "authors.pth")
    assert torch.equal(loaded.decoder.conv_final.bias, segnet.decoder.conv_final.bias)


def test_a_file_as_pytorch_of_their_time_wrote_it_loads(
    segnet: Autoencoder, tmp_path: Path
) -> None:
    """PyTorch 0.3 on Python 2: no archive, and BatchNorms that counted no batches."""
    state = {
        f"module.{'decoder' if 'd.' in name or 'final' in name else 'encoder'}.{name}": tensor
        for name, tensor in authors_state(segnet, "").items()
        if "num_batches" not in name
    }
    path = tmp_path / "s2snet_resnet50.pth"
    content = {"model_state": state, "epoch": 3}
    torch.save(content, path, pickle_protocol=2, _use_new_zipfile_serialization=False)
    loaded = load_autoencoder(path)
    assert torch.equal(loaded.encoder.bn11.running_mean, segnet.encoder.bn11.running_mean)
    assert torch.equal(loaded.decoder.conv11d.weight, segnet.decoder.conv11d.weight)


def test_weights_come_back_with_their_design(tmp_path: Path) -> None:
    network = autoencoder("segnet-tiny", 16, 1)
    save_autoencoder(network, tmp_path / "a.pt")
    loaded = load_autoencoder(tmp_path / "a.pt")
    assert loaded.design == network.design
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_what_holds_no_autoencoder_is_refused(tmp_path: Path, segnet: Autoencoder) -> None:
    state = authors_state(segnet, "")
    del state["conv32.weight"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(SourceError, match=r"conv32\.weight"):
        load_autoencoder(tmp_path / "short.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(SourceError, match="not a file of PyTorch weights"):
        load_autoencoder(tmp_path / "text.pth")
    with pytest.raises(SourceError, match="no such file"):
        load_autoencoder(tmp_path / "missing.pth")


def test_a_size_that_the_pools_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="a multiple of 32, not 100"):
        Design.of("segnet", 100, 3)
