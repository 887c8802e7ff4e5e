"""HTML from untrusted text and pictures, for reports and notebooks."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable
from datetime import datetime
from string import Template

from PIL import Image

_LEAST_SIDE = 192  # pixels; browsers blur what they enlarge


class Markup(str):
    """HTML that is right as it is; `fill` escapes every other string."""


def fill(template: Template, **values: object) -> Markup:
    """The template with its placeholders replaced, what is not `Markup` escaped."""
    return Markup(
        template.substitute(
            {
                name: value if isinstance(value, Markup) else html.escape(str(value))
                for name, value in values.items()
            }
        )
    )


def now() -> str:
    """When a page is made: 3 May 2026, 14:05."""
    moment = datetime.now()
    return f"{moment.day} {moment:%B %Y, %H:%M}"


def join(parts: Iterable[Markup]) -> Markup:
    return Markup("\n".join(parts))


def data_uri(picture: Image.Image) -> str:
    """The picture as a JPEG in a URI, with full chroma: a pullback's colours change by the pixel.

    A small picture is enlarged by a whole factor, so that its pixels stay squares.
    """
    factor = math.ceil(_LEAST_SIDE / min(picture.size))
    size = factor * picture.width, factor * picture.height
    encoded = io.BytesIO()
    enlarged = picture.resize(size, Image.Resampling.NEAREST)
    # Without `optimize`, for which Pillow's buffer is too small where every pixel differs.
    enlarged.save(encoded, "JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
