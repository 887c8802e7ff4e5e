"""From the bytes of a request to a model's inputs. Runs in threads, on untrusted data."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File, FormParser, parse_options_header

from onnxplain.contract.explain import IMAGE, TARGET, Preprocessing
from onnxplain.errors import InputError
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.inputs.scalars import live_inputs
from onnxplain.runtime.inputs.targets import target_input
from onnxplain.serve.batcher import Work
from onnxplain.serve.given import Given, own_inputs
from onnxplain.serve.pictures import check_pixels, check_resized, open_image
from onnxplain.serve.refusal import Refusal, malformed, too_large, unusable
from onnxplain.serve.schemas import LARGEST_INDEX, ExplainRequest, Options, from_base64, sentence
from onnxplain.serve.settings import Limits

MULTIPART, JSON, RAW = "multipart/form-data", "application/json", "application/octet-stream"

_MOST_FIELDS = 64 + 8
_LONGEST_FIELD, _LONGEST_INPUT = 1000, 2**17  # bytes, of an option and of the objective's numbers


@dataclass(frozen=True, eq=False)
class Asked:
    """What a request asks for.

    Attributes:
        source: an image file's bytes, or an array.
        options: what to do with it.
        inputs: what the objective takes besides.
    """

    source: bytes | NDArray[Any]
    options: Options
    inputs: Mapping[str, Given] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a model needs to answer, and the answer besides.

    Attributes:
        photograph: for the picture, what the network sees, uint8 [H,W,3].
        source: the image that was sent; None of a tensor as the network takes it.
        size: width and height of the image that was sent; None of a tensor as the network takes it.
    """

    work: Work
    options: Options
    photograph: NDArray[np.uint8]
    source: Image.Image | NDArray[Any] | None = None
    size: tuple[int, int] | None = None


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
    own = explainer.metadata.objective.inputs.keys() - {TARGET}
    in_url, inputs = _options(parse_qsl(query, keep_blank_values=True), own)
    match kind.decode("latin-1"):
        case "application/json":
            asked = _json(body)
        case "multipart/form-data":
            asked = _multipart(body, parameters, own)
        case "application/octet-stream":
            return Asked(_raw(body, explainer.metadata.preprocessing), in_url, inputs)
        case _:
            kinds = f"{MULTIPART}, {JSON} and {RAW}"
            raise Refusal(415, f"the content type is one of {kinds}", "malformed")
    given = asked.options.model_dump(include=asked.options.model_fields_set & in_url.fields())
    return Asked(asked.source, in_url.model_copy(update=given), {**inputs, **asked.inputs})


def prepare(asked: Asked, explainer: Explainer, limits: Limits) -> Prepared:
    """The image as the network takes it, the class indices, and what the objective takes besides.

    Raises:
        Refusal: not an image, or too large; unknown classes; a temperature that the graph cannot
            take; an input of the objective that cannot be used.
    """
    options, signature = asked.options, explainer.backend.signature
    named = options.targets if "targets" in options.model_fields_set else None
    wanted = 1 if named is None else len(named)
    if wanted > limits.images:
        raise too_large(f"{limits.images} targets at most in one request, not {wanted}")
    several = explainer.multi_target
    try:
        live_inputs(signature, options.temperature)
        rows: Any = named if named is None or not several else [named]
        targets = target_input(signature, rows, 1 if several else wanted)
        source, pre = asked.source, explainer.metadata.preprocessing
        picture: Image.Image | NDArray[Any]
        if isinstance(source, bytes):
            picture = open_image(source, limits.pixels)
            check_resized((picture.height, picture.width), pre, limits.pixels)
        else:
            picture = source
            _check_array(picture, pre, limits.pixels)
        size = _size(picture)
        inputs = own_inputs(asked.inputs, explainer, size, len(targets), limits.pixels)
        batch, photographs = as_batch(picture, pre, signature.dtype)
        options.look.check()
    except InputError as error:
        raise unusable(str(error)) from None
    kept = picture if size is not None and options.output == "png" else None
    # A view: a waiting request holds its image only once.
    batch = np.broadcast_to(batch, (len(targets), *batch.shape[1:]))
    return Prepared(
        Work(batch, targets, options.temperature, inputs), options, photographs[0], kept, size
    )


def _size(picture: Image.Image | NDArray[Any]) -> tuple[int, int] | None:
    """Width and height of a photograph; None of a tensor as the network takes it."""
    if isinstance(picture, Image.Image):
        return picture.size
    if picture.dtype != np.uint8 or picture.ndim < 2:
        return None
    height, width = picture.shape[:2]
    return width, height


def _check_array(array: NDArray[Any], pre: Preprocessing, most: int) -> None:
    if array.ndim > 3:
        raise unusable("a request has one image: leave the batch's dimension out")
    if array.dtype == np.uint8 and array.ndim > 1:
        check_pixels(array.shape, most)
        check_resized(array.shape[:2], pre, most)


def _json(body: bytes) -> Asked:
    try:
        request = ExplainRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise malformed(sentence(error)) from None
    if request.tensor is not None:
        array = request.tensor.array()
        if array.dtype == np.int64:
            raise unusable("an image's tensor is float32 or uint8")
        return Asked(array, request, request.given())
    assert request.image is not None  # of the two, pydantic lets through exactly one
    return Asked(from_base64(request.image), request, request.given())


def _raw(body: bytes, pre: Preprocessing) -> NDArray[np.float32]:
    shape = pre.image_shape
    expected = 4 * math.prod(shape)
    if len(body) != expected:
        raise unusable(
            f"a raw tensor is the network's input, float32 {list(shape)}, little endian: "
            f"{expected} bytes, not {len(body)}"
        )
    return np.frombuffer(body, "<f4").reshape(shape)


def _multipart(body: bytes, parameters: Mapping[bytes, bytes], own: Collection[str]) -> Asked:
    fields: list[tuple[str, str]] = []
    files: dict[str, bytes] = {}

    def on_field(one: Any) -> None:
        name, value = _text(one.field_name), one.value or b""
        longest = _LONGEST_INPUT if name in own else _LONGEST_FIELD
        if len(fields) >= _MOST_FIELDS or len(value) > longest:
            raise malformed("there are too many fields, or one of them is too long")
        fields.append((name, _text(value)))

    def on_file(file: File) -> None:
        name = _text(file.field_name)
        if name not in {IMAGE, *own}:
            besides = "".join(f", or {one!r}" for one in sorted(own))
            raise malformed(f"there is one file, and its field is called 'image'{besides}")
        if name in files:
            raise malformed(f"there are two files in the field {name!r}")
        file.file_object.seek(0)
        files[name] = file.file_object.read()

    in_memory = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}
    try:
        boundary = parameters.get(b"boundary")
        parser = FormParser(MULTIPART, on_field, on_file, boundary=boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise malformed(f"this is not multipart/form-data: {error}") from None
    if IMAGE not in files:
        raise malformed("there is no file in the field 'image'")
    options, inputs = _options(fields, own)
    image = files.pop(IMAGE)
    if twice := inputs.keys() & files.keys():
        raise malformed(f"{min(twice)!r} is given twice")
    return Asked(image, options, {**inputs, **files})


def _options(
    fields: Sequence[tuple[str, str]], own: Collection[str]
) -> tuple[Options, dict[str, Given]]:
    """Options given as text, with `targets` repeated; a number is an index. And the inputs of the
    objective, whose names are `own`."""
    given: dict[str, Any] = {}
    inputs: dict[str, Given] = {}
    for name, value in fields:
        if name in own and name not in inputs:
            inputs[name] = value
        elif name in own:
            raise malformed(f"{name[:50]!r} is given twice")
        elif name == "targets":
            given.setdefault(name, []).append(_index_or_name(value))
        elif name in given:
            raise malformed(f"{name[:50]!r} is given twice")
        else:
            given[name] = value
    try:
        return Options.model_validate(given), inputs
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
