"""An explained frame: a heatmap where the network looked, and a line of text."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onnxplain.contract.explain import Preprocessing
from onnxplain.runtime import Explanation
from onnxplain.runtime.inputs.batches import box_in_photograph, crop_offset
from onnxplain.runtime.pictures.marks import outlined
from onnxplain.runtime.pictures.render import heatmap_image


def explained_frame(
    image: Image.Image, explanation: Explanation, pre: Preprocessing
) -> Image.Image:
    """The frame in grey with the heatmap over the part that the network saw, and in outlines the
    box that is explained, or the region.

    Like `onnxplain.runtime.pictures.render.overlay`, but for the whole frame and with Pillow: a
    frame of 1920 × 1080 must not take longer than the network.

    Args:
        image: the frame, RGB.
        explanation: that of this frame only.
        pre: how the frame became the network's input.
    """
    heat = explanation.heatmap().reshape(-1, pre.height, pre.width)[0]
    left, top, right, bottom = seen_part(image.size, pre)
    size = (right - left, bottom - top)
    colours = heatmap_image(heat).resize(size, Image.Resampling.BILINEAR)
    cover = Image.fromarray(np.rint(255 * 0.85 * heat**0.75).astype(np.uint8))
    page = image.convert("L").point([round(0.8 * value) for value in range(256)]).convert("RGB")
    page.paste(colours, (left, top), cover.resize(size, Image.Resampling.BILINEAR))
    (row,) = explanation.rows()
    boxes = () if row.boxes is None else box_in_photograph(row.boxes[:1], image.size, pre)
    if row.region is None:
        return outlined(page, boxes)
    seen = page.crop((left, top, right, bottom))
    page.paste(outlined(seen, (), row.region), (left, top))
    return outlined(page, boxes)


def seen_part(size: tuple[int, int], pre: Preprocessing) -> tuple[int, int, int, int]:
    """The part of a picture (width, height) that the centre crop takes: left, top, right, bottom.

    It extends beyond the picture where the network's input pads it.
    """
    edges = []
    for side, part in zip(size, (pre.width, pre.height), strict=True):
        resized = pre.resize * side // min(size)
        first = crop_offset(resized - part)
        edges.append([round(at * side / resized) for at in (first, first + part)])
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def write_line(image: Image.Image, text: str) -> None:
    """Write a line of text on a dark bar at the lower edge of the picture itself."""
    size = max(12, image.height // 30)
    bar = (0, image.height - round(1.6 * size), image.width, image.height)
    draw = ImageDraw.Draw(image)
    draw.rectangle(bar, fill=(20, 20, 20))
    middle = (bar[1] + bar[3]) / 2
    draw.text((size / 2, middle), text, "white", ImageFont.load_default(size), anchor="lm")
