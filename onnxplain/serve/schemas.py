"""What clients send and receive, as OpenAPI describes it."""

from __future__ import annotations

import base64
import math
from typing import Annotated, Any, Literal, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator
from pydantic.config import JsonDict

from onnxplain.contract.picture import OVERLAY, PictureOptions
from onnxplain.contract.pixels import FORMATS
from onnxplain.options import declared
from onnxplain.serve.refusal import malformed, unusable

Output = Literal["json", "png", "npz"]

LARGEST_INDEX = 2**31
_BASE64: JsonDict = {
    "contentEncoding": "base64",
    "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
}


def _whole(number: Any) -> Any:
    """JSON Schema counts 3.0 as an integer."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Index = Annotated[int, Field(gt=-LARGEST_INDEX, lt=LARGEST_INDEX), BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=1, le=100_000), BeforeValidator(_whole)]
Size = Annotated[int, Field(ge=1, le=LARGEST_INDEX), BeforeValidator(_whole)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


def _picture_fields() -> dict[str, Any]:
    """Those of `PictureOptions`, as pydantic declares them."""
    hints = get_type_hints(PictureOptions)
    usual = PictureOptions(style=OVERLAY)
    fields: dict[str, Any] = {}
    for name, one in declared(PictureOptions).items():
        type_ = hints[name]
        if one.choices:
            optional = type(None) in get_args(type_)
            type_ = Literal[one.choices] | None if optional else Literal[one.choices]
        told = f" Unless given, {one.unset}." if one.unset else ""
        limits: Any = {"ge": one.least, "le": one.most}
        description = f"Of a png: {one.help}{told}"
        fields[name] = (type_, Field(getattr(usual, name), description=description, **limits))
    return fields


_Look: Any = create_model("Look", **_picture_fields())


class Options(_Look):  # type: ignore[misc]
    """Options for explaining an image, and for the picture of it."""

    model_config = ConfigDict(extra="forbid")

    targets: list[Index | Name] = Field(
        default=[-1],
        min_length=1,
        max_length=64,
        description="Classes to explain: an index; a name, or a part of one that no other class "
        "has; or counted from the top of the ranking, -1 the predicted class, -2 the runner-up. Of "
        "a detector -1 is the best object. What the model explains by itself, if left out.",
    )
    top_k: Count = Field(default=5, description="How many of the likeliest classes to name.")
    temperature: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="Only for a graph exported with --live-temperature; otherwise leave it out.",
    )
    output: Output = Field(
        default="json",
        description="json; png, a picture with a column for each target; or npz, arrays for "
        "`numpy.load`.",
    )

    @property
    def look(self) -> PictureOptions:
        """How a picture is drawn."""
        return PictureOptions(**{name: getattr(self, name) for name in declared(PictureOptions)})

    @classmethod
    def fields(cls) -> set[str]:
        """The names of the options that every request may have."""
        return set(Options.model_fields)


class RawFrame(BaseModel):
    """How a camera's frame lies in a raw body, without padding between its rows."""

    model_config = ConfigDict(extra="forbid")

    width: Size = Field(description="Of a raw body that is a camera's frame: in pixels.")
    height: Size = Field(description="Of a raw body that is a camera's frame: in pixels.")
    pixels: Literal[FORMATS] | None = Field(  # type: ignore[valid-type]
        default=None,
        description="Of a raw body that is a camera's frame: how its bytes lie. rgb and bgr "
        "[h,w,3], each also planar [3,h,w]; gray [h,w]; nv12 [h · 3/2,w]. Unless given, as the "
        "model takes them, and rgb for one that takes no frames.",
    )


class Tensor(BaseModel):
    """An array; `data` is its bytes in C order, little endian, in base64."""

    model_config = ConfigDict(extra="forbid")

    shape: list[Size] = Field(min_length=1, max_length=8)
    dtype: Literal["float32", "uint8", "int64"] = "float32"
    data: str = Field(description="Base64.", json_schema_extra=_BASE64)

    @classmethod
    def of(cls, array: NDArray[Any]) -> dict[str, Any]:
        """An array, ready to become JSON."""
        dtype = array.dtype.newbyteorder("<")
        data = base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode("ascii")
        return {"shape": list(array.shape), "dtype": array.dtype.name, "data": data}

    def array(self) -> NDArray[Any]:
        """Raises Refusal if the data is not base64, or not of that shape."""
        data, dtype = from_base64(self.data), np.dtype(self.dtype).newbyteorder("<")
        expected = math.prod(self.shape) * dtype.itemsize
        if len(data) != expected:
            raise unusable(
                f"a {self.dtype} tensor of shape {self.shape} has {expected} bytes, not {len(data)}"
            )
        return np.frombuffer(data, dtype).reshape(self.shape)


class Picture(BaseModel):
    """A picture of a region, of the image's proportions: bright inside, dark outside."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(description="An image file in base64.", json_schema_extra=_BASE64)


Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]
Input = Number | list[Number] | list[list[Number]] | Tensor | Picture


class ExplainRequest(Options):
    """An image to explain, in JSON. Give one of `image` and `tensor`."""

    image: str | None = Field(
        default=None,
        description="An image file (JPEG, PNG, WebP, …) in base64.",
        json_schema_extra=_BASE64,
    )
    tensor: Tensor | None = Field(
        default=None,
        description="float32 [C,H,W], normalised, of the network's size, unless the model takes "
        "photographs; or uint8 [H,W,3], pixels of any size.",
    )
    inputs: dict[Name, Input] = Field(
        default={},
        max_length=16,
        description="What the model's objective takes besides, by name: numbers, a tensor, or of a "
        "region a picture. `/v1/models` says what there is.",
    )

    def given(self) -> dict[str, Any]:
        """The inputs: pictures as bytes, tensors as arrays.

        Raises:
            Refusal: one whose data is not what it says.
        """
        return {name: _plain(value) for name, value in self.inputs.items()}

    @model_validator(mode="after")
    def _one_of_them(self) -> ExplainRequest:
        if (self.image is None) == (self.tensor is None):
            raise ValueError("give one of 'image' and 'tensor'")
        return self


def _plain(value: Any) -> Any:
    if isinstance(value, Picture):
        return from_base64(value.image)
    return value.array() if isinstance(value, Tensor) else value


class Prediction(BaseModel):
    index: int
    name: str = Field(description="The index as text where the model has no class names.")
    probability: float


class Target(Prediction):
    logit: float


class ExplainResponse(BaseModel):
    """An explanation of a classifier's classes."""

    model: str
    method: str = Field(description="And its parameters.")
    predictions: list[Prediction] = Field(description="The likeliest classes, likeliest first.")
    targets: list[Target] = Field(description="The K classes explained, in the order asked for.")
    logits: Tensor = Field(description="float32 [classes].")
    pullback: Tensor = Field(description="float32 [K,C,H,W]: the explanation of each target.")
    convergence_delta: Tensor | None = Field(
        default=None,
        description="float32 [K], where the model's estimator tells it: by how much the "
        "attributions' sum misses the difference between image and baseline.",
    )


class Explained(BaseModel):
    """What is explained once."""

    name: str = Field(description="The class; where none is chosen, the objective, or why none is.")
    value: float = Field(description="The objective there.")
    index: int | None = Field(default=None, description="The class's, where one is chosen.")
    box: list[float] | None = Field(
        default=None,
        description="Of a detector: left, top, right, bottom in pixels of the image sent.",
    )


class ObjectiveResponse(BaseModel):
    """An explanation of what is no class: an object, a region, a vector, a number, text."""

    model: str
    method: str = Field(description="And its parameters.")
    objective: str = Field(description="What is explained.")
    targets: list[Explained] = Field(description="The K explained, in the order asked for.")
    outputs: dict[str, Tensor] = Field(
        description="What the network puts out for the image, by name, without the largest, which "
        "npz has."
    )
    pullback: Tensor = Field(description="float32 [K,C,H,W]: the explanation of each target.")


class ObjectiveInput(BaseModel):
    """What an objective takes besides image and targets."""

    name: str
    meaning: str
    kind: Literal["index", "numbers", "mask", "box"]
    shape: list[int] = Field(description="Of one image's; [] for one number.")
    optional: bool


class ModelDescription(BaseModel):
    name: str
    loaded: bool = Field(
        description="Whether it is in memory; otherwise the next request loads it."
    )
    method: str
    source: str
    input: list[int] = Field(
        description="What the network's input is: [C,H,W], or [H,W,C], -1 for a side that may be "
        "any. A normalised tensor, unless the model takes photographs."
    )
    pixels: str = Field(
        description="How a photograph lies in the model's input, where the model resizes and "
        "normalises it itself: rgb, bgr, nv12, …; else empty."
    )
    mean: list[float]
    std: list[float]
    labels: list[str] = Field(description="The class names; empty if the model has none.")
    objective: str = Field(description="What is explained: class, segment, detection, …")
    inputs: list[ObjectiveInput] = Field(description="What the objective takes besides.")


class ModelList(BaseModel):
    models: list[ModelDescription]


class Health(BaseModel):
    status: Literal["ok", "draining"]


class Problem(BaseModel):
    error: str = Field(description="The cause, and what to do about it.")


def from_base64(text: str) -> bytes:
    """Raises Refusal if it is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise malformed(f"this is not base64: {error}") from None


def sentence(error: Any) -> str:
    """The first complaint of a pydantic ValidationError, without the input."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
