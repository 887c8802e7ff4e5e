"""From the bytes of a request to a model's inputs. Runs in threads, on untrusted data."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File, FormParser, parse_options_header

from onnxplain.contract.explain import IMAGE, TARGET, Metadata
from onnxplain.contract.picture import PictureOptions
from onnxplain.contract.pixels import PHOTOGRAPH, RGB, Pixels
from onnxplain.errors import InputError
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.batches import as_batch, photographs
from onnxplain.runtime.inputs.frames import frame_of, photograph_of, size_of_frame
from onnxplain.runtime.inputs.pixels import frame, view
from onnxplain.runtime.inputs.scalars import live_inputs
from onnxplain.runtime.inputs.targets import target_input
from onnxplain.runtime.pictures.figures import drawn_pixels
from onnxplain.serve.batcher import Work
from onnxplain.serve.given import Given, own_inputs
from onnxplain.serve.pictures import check_pixels, check_resized, most_in_call, open_image
from onnxplain.serve.refusal import Refusal, malformed, too_large, unusable
from onnxplain.serve.schemas import (
    LARGEST_INDEX,
    ExplainRequest,
    Options,
    RawFrame,
    from_base64,
    sentence,
)
from onnxplain.serve.settings import Limits

MULTIPART, JSON, RAW = "multipart/form-data", "application/json", "application/octet-stream"

_MOST_FIELDS = 64 + 8
_LONGEST_FIELD, _LONGEST_INPUT = 1000, 2**17  # bytes, of an option and of the objective's numbers


@dataclass(frozen=True, eq=False)
class Frame:
    """A camera's frame, as it delivers it."""

    array: NDArray[np.uint8]
    pixels: Pixels


Sent: TypeAlias = Image.Image | NDArray[Any] | Frame
"""An image as it was sent, decoded."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What a request asks for.

    Attributes:
        source: an image file's bytes, an array or a frame.
        options: what to do with it.
        inputs: what the objective takes besides.
    """

    source: bytes | NDArray[Any] | Frame
    options: Options
    inputs: Mapping[str, Given] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a model needs to answer, and the answer besides.

    Attributes:
        photograph: for the picture, what the network sees, uint8 [H,W,3]; the whole image where
            that is what the pullback is of.
        source: the image that was sent; None of a tensor as the network takes it.
        size: width and height of the image that was sent; None of a tensor as the network takes it.
    """

    work: Work
    options: Options
    photograph: NDArray[np.uint8]
    source: Image.Image | NDArray[Any] | None = None
    size: tuple[int, int] | None = None

    @property
    def held_bytes(self) -> int:
        """What it keeps while it waits; of views, what they are of, once."""
        kept = [self.work.batch, self.photograph]
        pillows = 0
        if isinstance(self.source, Image.Image):
            pillows = 4 * self.source.width * self.source.height  # an RGB pixel's bytes in memory
        elif self.source is not None:
            kept.append(self.source)
        owners = {id(owner): owner.nbytes for owner in map(_owner, kept)}
        return pillows + sum(owners.values())


def decode(
    content_type: str, query: str, body: bytes, explainer: Explainer, limits: Limits
) -> Prepared:
    """Read a request for one image's explanation.

    Args:
        content_type: the header; multipart/form-data, application/json or
            application/octet-stream.
        query: options from the URL; the body's take precedence. Of a frame its size, too.
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
    framed, fields = _framed(parse_qsl(query, keep_blank_values=True), own)
    in_url, inputs = _options(fields, own)
    if framed and kind != RAW.encode():
        raise unusable(f"{', '.join(framed)} in the URL are of a frame's bytes, {RAW}")
    match kind.decode("latin-1"):
        case "application/json":
            asked = _json(body)
        case "multipart/form-data":
            asked = _multipart(body, parameters, own)
        case "application/octet-stream":
            return Asked(_raw(body, explainer.metadata, framed), in_url, inputs)
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
        source = asked.source
        sent = open_image(source, limits.pixels) if isinstance(source, bytes) else source
        size = _size(sent)
        options.look.check()
        drawn = options.output == "png"
        _check(sent, size, len(targets), explainer.metadata, drawn, limits.pixels)
        if drawn and size is not None:
            _check_drawn(options.look, size, wanted, limits.pixels)
        pre = explainer.metadata.preprocessing
        each = targets[0].size
        most = most_in_call(size, each, pre, limits) if size else None
        inputs = own_inputs(asked.inputs, explainer, size, len(targets), limits.pixels)
        if explainer.metadata.pixels:
            image, photograph = _of_photograph(sent, explainer.metadata, drawn)
        else:
            (image,), (photograph,) = as_batch(_shown(sent), pre, signature.dtype)
        if not size:
            most = most_in_call(pre.sides(image.shape), each, pre, limits)
    except InputError as error:
        raise unusable(str(error)) from None
    # A view: a waiting request holds its image only once.
    batch = np.broadcast_to(image, (len(targets), *image.shape))
    work = Work(batch, targets, options.temperature, inputs, most)
    kept = _shown(sent) if drawn and size is not None else None
    return Prepared(work, options, photograph, kept, size)


def _of_photograph(
    sent: Sent, metadata: Metadata, drawn: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What a graph takes that does the preprocessing itself; and the photograph of `Prepared`, of
    which nothing but the shape is true where it is not drawn.

    Raises:
        InputError: the image holds floats, or is too small or too elongated.
    """
    pixels = metadata.pixels
    if isinstance(sent, Frame) and sent.pixels.format == pixels.format:
        image = sent.array
    else:
        image = frame(photographs(_shown(sent))[0], pixels)
    if not drawn:
        width, height = size_of_frame(image.shape, pixels)
        return image, np.broadcast_to(np.uint8(0), (height, width, 3))
    return image, view(image, metadata)


def _owner(array: NDArray[Any]) -> NDArray[Any]:
    """The array whose memory a view is of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _shown(sent: Sent) -> Image.Image | NDArray[Any]:
    if isinstance(sent, Frame):
        return np.ascontiguousarray(photograph_of(sent.array, sent.pixels))
    return sent


def _size(picture: Sent) -> tuple[int, int] | None:
    """Width and height of a photograph; None of a tensor as the network takes it."""
    if isinstance(picture, Image.Image):
        return picture.size
    if isinstance(picture, Frame):
        return size_of_frame(picture.array.shape, picture.pixels)
    if picture.dtype != np.uint8 or picture.ndim < 2:
        return None
    height, width = picture.shape[:2]
    return width, height


def _check(
    sent: Sent,
    size: tuple[int, int] | None,
    rows: int,
    metadata: Metadata,
    drawn: bool,
    most: int,
) -> None:
    """
    Raises:
        Refusal: more than one image, or too many pixels: of a graph that takes them as they are,
            in all the rows of its batch together.
    """
    if isinstance(sent, np.ndarray) and sent.ndim > 3:
        raise unusable("a request has one image: leave the batch's dimension out")
    if size is None:
        return
    width, height = size
    check_pixels((height, width), most)
    pixels = metadata.pixels
    if not pixels or (drawn and pixels.geometry != PHOTOGRAPH):
        check_resized((height, width), metadata.preprocessing, most)
    if pixels and rows * width * height > most:
        raise too_large(
            f"{most} pixels at most in one request, and {rows} targets of {width} × {height} are "
            f"{rows * width * height}: ask for fewer, or send a smaller image"
        )


def _check_drawn(look: PictureOptions, size: tuple[int, int], targets: int, most: int) -> None:
    """
    Raises:
        Refusal: what is drawn of a photograph of that width and height has too many pixels, in all
            its pictures together; of `longest` left out it has few.
    """
    drawn = drawn_pixels(size, targets, look)
    if look.longest is not None and drawn > most:
        raise too_large(
            f"{most} pixels at most are drawn, and with longest {look.longest} and {targets} "
            f"targets these are {drawn}: ask for fewer of either"
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
        return Asked(array, request, request.given())
    assert request.image is not None  # of the two, pydantic lets through exactly one
    return Asked(from_base64(request.image), request, request.given())


def _raw(body: bytes, metadata: Metadata, framed: Mapping[str, str]) -> NDArray[np.float32] | Frame:
    if framed or metadata.pixels:
        return _frame(body, metadata.pixels, framed)
    pre = metadata.preprocessing
    if pre.any_size:
        raise unusable(
            "of a model that takes images of any size a raw tensor does not say its own: send "
            f"JSON, float32 [{pre.described_shape}]; a frame says its width and height in the URL"
        )
    shape = pre.image_shape
    expected = 4 * math.prod(shape)
    if len(body) != expected:
        raise unusable(
            f"a raw tensor is the network's input, float32 {list(shape)}, little endian: "
            f"{expected} bytes, not {len(body)}; a frame says its width and height in the URL"
        )
    return np.frombuffer(body, "<f4").reshape(shape)


def _frame(body: bytes, own: Pixels, framed: Mapping[str, str]) -> Frame:
    if not framed.keys() >= {"width", "height"}:
        order = f" of {own.format}" if own else ""
        raise unusable(
            f"a frame{order} is a raw body that says in the URL how large it is: "
            "?width=640&height=480"
        )
    try:
        said = RawFrame.model_validate(framed)
        pixels = Pixels(said.pixels or own.format or RGB)
        return Frame(frame_of(body, pixels, said.width, said.height), pixels)
    except ValidationError as error:
        raise malformed(sentence(error)) from None
    except InputError as error:
        raise unusable(str(error)) from None


def _framed(
    fields: Sequence[tuple[str, str]], own: Collection[str]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """What a URL says of a frame's bytes, and the other fields, among which are the objective's
    inputs, whose names are `own`."""
    names = RawFrame.model_fields.keys() - own
    framed = [field for field in fields if field[0] in names]
    if len(framed) != len(dict(framed)):
        raise malformed("width, height and pixels are given once")
    return dict(framed), [field for field in fields if field[0] not in names]


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
        raise malformed("there is no file in the field 'image': with curl, -F image=@cat.jpg")
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
