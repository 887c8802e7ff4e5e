"""timm's transformers, untrained: a map without a layer named, or a sentence that says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

import onnxplain
from onnxplain.errors import SourceError

BRANCHES = "crossvit_tiny_240"
"""Two branches side by side, until the classifier: no layer that all of it goes through."""

FAMILIES = (
    *("beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "convit_tiny", BRANCHES),
    *("deit_tiny_patch16_224", "eva02_tiny_patch14_336", "levit_128s", "pit_ti_224"),
    *("tnt_s_legacy_patch16_224", "twins_svt_small", "visformer_tiny", "volo_d1_224"),
    *("vit_base_patch16_siglip_224", "xcit_nano_12_p16_224"),
)
ALIKE = {name for name in FAMILIES if name.startswith(("beit", "deit", "eva02", "vit"))}
"""Those with one grid of tokens throughout, each of which attends to each."""


@pytest.mark.sweep
@pytest.mark.parametrize("method", ["gradcam", "legrad"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_a_map_or_a_named_reason(name: str, method: str, tmp_path: Path) -> None:
    has_map = name != BRANCHES if method == "gradcam" else name in ALIKE
    options = {"weights": "none", "method": method, "check": False}
    if has_map:
        assert onnxplain.export(f"timm/{name}", tmp_path / "x.onnx", **options).is_map
        return
    with pytest.raises(SourceError, match="choose another method"):
        onnxplain.export(f"timm/{name}", tmp_path / "x.onnx", **options)
