"""From the bytes of a request to a model's inputs. Runs in threads, on untrusted data."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File, FormParser, parse_options_header

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.runtime import Explainer, load_image
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.inputs.scalars import live_inputs
from onnxplain.runtime.inputs.targets import as_indices
from onnxplain.serve.batcher import Work
from onnxplain.serve.refusal import Refusal, malformed, too_large, unusable
from onnxplain.serve.schemas import LARGEST_INDEX, ExplainRequest, Options, from_base64, sentence
from onnxplain.serve.settings import Limits

Image.init()
FORMATS: list[str] = [
    name
    for name in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
    if name in Image.OPEN  # not every build of Pillow has all of them
]
"""By Pillow's names. Some of its formats start other programs; none of those is accepted."""

MULTIPART, JSON, RAW = "multipart/form-data", "application/json", "application/octet-stream"

_MOST_FIELDS = 64 + 8
_LONGEST_FIELD = 1000  # bytes


@dataclass(frozen=True, eq=False)
class Asked:
    """What a request asks for.

    Attributes:
        source: an image file's bytes, or an array.
        options: what to do with it.
    """

    source: bytes | NDArray[Any]
    options: Options


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a model needs to answer, and the photograph for the picture, uint8 [H,W,3]."""

    work: Work
    options: Options
    photograph: NDArray[np.uint8]


def decode(
    content_type: str, query: str, body: bytes, explainer: Explainer, limits: Limits
) -> Prepared:
    """Read a request for one image's explanation.

    Args:
        content_type: the header; multipart/form-data, application/json or
            application/octet-stream.
        query: options from the URL; the body's take precedence.
        body: the request's.
        explainer: the model's.
        limits: beyond these a request is refused.

    Raises:
        Refusal: whatever is wrong with the request, with a 4xx status.
    """
    return prepare(parse(content_type, query, body, explainer), explainer, limits)


def parse(content_type: str, query: str, body: bytes, explainer: Explainer) -> Asked:
    """The request, parsed.

    Raises:
        Refusal: another content type, or a body that does not match it.
    """
    kind, parameters = parse_options_header(content_type)
    in_url = _options(parse_qsl(query, keep_blank_values=True))
    match kind.decode("latin-1"):
        case "application/json":
            asked = _json(body)
        case "multipart/form-data":
            asked = _multipart(body, parameters)
        case "application/octet-stream":
            return Asked(_raw(body, explainer.metadata.preprocessing), in_url)
        case _:
            kinds = f"{MULTIPART}, {JSON} and {RAW}"
            raise Refusal(415, f"the content type is one of {kinds}", "malformed")
    given = asked.options.model_dump(include=asked.options.model_fields_set & in_url.fields())
    return Asked(asked.source, in_url.model_copy(update=given))


def prepare(asked: Asked, explainer: Explainer, limits: Limits) -> Prepared:
    """The image as the network takes it, and the class indices.

    Raises:
        Refusal: not an image, or too large; unknown classes; a temperature that the graph cannot
            take.
    """
    options, signature = asked.options, explainer.backend.signature
    wanted = len(options.targets)
    if wanted > limits.images:
        raise too_large(f"{limits.images} targets at most in one request, not {wanted}")
    try:
        live_inputs(signature, options.temperature)
        targets = as_indices(
            options.targets, wanted, signature.classes, explainer.labels, multi_target=False
        )
        source, pre = asked.source, explainer.metadata.preprocessing
        picture: Image.Image | NDArray[Any]
        if isinstance(source, bytes):
            picture = open_image(source, limits.pixels)
            _check_resized((picture.height, picture.width), pre, limits.pixels)
        else:
            picture = source
            _check_array(picture, pre, limits.pixels)
        batch, photographs = as_batch(picture, pre, signature.dtype)
    except InputError as error:
        raise unusable(str(error)) from None
    if explainer.multi_target:
        targets = targets[None]
    else:  # a view: a waiting request holds its image only once
        batch = np.broadcast_to(batch, (wanted, *batch.shape[1:]))
    return Prepared(Work(batch, targets, options.temperature), options, photographs[0])


def open_image(data: bytes, most_pixels: int) -> Image.Image:
    """An image file's picture, RGB and upright; its size is checked before it is decoded.

    Raises:
        Refusal: too many pixels.
        InputError: not an image of `FORMATS`, or a damaged one.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise too_large(f"an image has {most_pixels} pixels at most") from None
    except Exception:  # decoders raise all sorts of exceptions on damaged files
        raise InputError(f"this is not an image of {', '.join(FORMATS)}") from None
    with image:
        _check_pixels((image.height, image.width), most_pixels)
        return load_image(image)


def _check_array(array: NDArray[Any], pre: Preprocessing, most: int) -> None:
    if array.ndim > 3:
        raise unusable("a request has one image: leave the batch's dimension out")
    if array.dtype == np.uint8 and array.ndim > 1:
        _check_pixels(array.shape, most)
        _check_resized(array.shape[:2], pre, most)


def _check_pixels(size: Sequence[int], most: int) -> None:
    if size[0] * size[1] > most:
        raise too_large(f"an image has {most} pixels at most, not {size[0] * size[1]}")


def _check_resized(size: Sequence[int], pre: Preprocessing, most: int) -> None:
    """Check the size after resizing too: a very flat image would become very wide."""
    height, width = (pre.resize * side // min(size) for side in size)
    if height * width > most:
        raise too_large(
            f"an image has {most} pixels at most, too, when its shorter side is resized to "
            f"{pre.resize}, not {height * width}"
        )


def _json(body: bytes) -> Asked:
    try:
        request = ExplainRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise malformed(sentence(error)) from None
    if request.tensor is not None:
        array = request.tensor.array()
        if array.dtype == np.int64:
            raise unusable("an image's tensor is float32 or uint8")
        return Asked(array, request)
    assert request.image is not None  # of the two, pydantic lets through exactly one
    return Asked(from_base64(request.image), request)


def _raw(body: bytes, pre: Preprocessing) -> NDArray[np.float32]:
    shape = pre.image_shape
    expected = 4 * math.prod(shape)
    if len(body) != expected:
        raise unusable(
            f"a raw tensor is the network's input, float32 {list(shape)}, little endian: "
            f"{expected} bytes, not {len(body)}"
        )
    return np.frombuffer(body, "<f4").reshape(shape)


def _multipart(body: bytes, parameters: Mapping[bytes, bytes]) -> Asked:
    fields: list[tuple[str, str]] = []
    files: list[bytes] = []

    def on_field(field: Any) -> None:
        value = field.value or b""
        if len(fields) >= _MOST_FIELDS or len(value) > _LONGEST_FIELD:
            raise malformed("there are too many fields, or one of them is too long")
        fields.append((_text(field.field_name), _text(value)))

    def on_file(file: File) -> None:
        if _text(file.field_name) != "image" or files:
            raise malformed("there is one file, and its field is called 'image'")
        file.file_object.seek(0)
        files.append(file.file_object.read())

    in_memory = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}
    try:
        boundary = parameters.get(b"boundary")
        parser = FormParser(MULTIPART, on_field, on_file, boundary=boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise malformed(f"this is not multipart/form-data: {error}") from None
    if not files:
        raise malformed("there is no file in the field 'image'")
    return Asked(files[0], _options(fields))


def _options(fields: Sequence[tuple[str, str]]) -> Options:
    """Options given as text, with `targets` repeated; a number is an index."""
    given: dict[str, Any] = {}
    for name, value in fields:
        if name == "targets":
            given.setdefault(name, []).append(_index_or_name(value))
        elif name in given:
            raise malformed(f"{name[:50]!r} is given twice")
        else:
            given[name] = value
    try:
        return Options.model_validate(given)
    except ValidationError as error:
        raise malformed(sentence(error)) from None


def _index_or_name(text: str) -> int | str:
    try:
        index = int(text)
    except ValueError:
        return text
    return index if abs(index) < LARGEST_INDEX else text


def _text(value: bytes | None) -> str:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        raise malformed("a field's name or value is not UTF-8") from None
