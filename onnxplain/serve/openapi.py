"""OpenAPI descriptions of the requests that FastAPI does not parse itself."""

from __future__ import annotations

from typing import Any

from onnxplain.serve.schemas import (
    ExplainRequest,
    ExplainResponse,
    ObjectiveResponse,
    Options,
    Problem,
    RawFrame,
)

_WHITE_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
)


def _problem(description: str, **more: Any) -> dict[str, Any]:
    return {"model": Problem, "description": description, **more}


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: _problem("The request is malformed."),
    401: _problem("The service requires a bearer token."),
    404: _problem("There is no such model."),
    408: _problem("The body arrived too slowly."),
    413: _problem("Too many bytes, pixels or targets."),
    415: _problem("Unsupported content type or content encoding."),
    422: _problem(
        "Not an image, or a class, temperature or input that this model does not have or take."
    ),
    500: _problem("The runtime failed."),
    503: _problem(
        "Too many requests are waiting, or this one took too long; try again.",
        headers={"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    ),
}


def inlined(model: Any) -> dict[str, Any]:
    """A model's JSON schema, with its definitions inlined."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolve(definitions[node["$ref"].rpartition("/")[2]])
        return {key: resolve(value) for key, value in node.items()}

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def _json() -> dict[str, Any]:
    """`ExplainRequest`, with exactly one of `image` and `tensor`, neither of them null."""
    schema = inlined(ExplainRequest)
    properties = schema["properties"]
    for name in ("image", "tensor"):
        alternatives = properties[name].pop("anyOf")
        properties[name] = alternatives[0] | properties[name]
        properties[name].pop("default")
    schema["oneOf"] = [{"required": ["image"]}, {"required": ["tensor"]}]
    return schema


def _form() -> dict[str, Any]:
    """`Options` as fields of a form, and the file."""
    options = inlined(Options)["properties"]
    for name, option in options.items():
        if "anyOf" in option and option["default"] is None:
            options[name] = option.pop("anyOf")[0] | option
            options[name].pop("default")
    file = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, …"}
    return {
        "type": "object",
        "properties": {"image": file, **options},
        "required": ["image"],
        "additionalProperties": False,
    }


def _query() -> list[dict[str, Any]]:
    """The options in the URL, and how a frame lies in a raw body."""
    framed = inlined(RawFrame)["properties"]
    framed["pixels"] = framed["pixels"].pop("anyOf")[0] | framed["pixels"]
    framed["pixels"].pop("default")
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.pop("description"),
            "schema": {key: value for key, value in schema.items() if key != "title"},
        }
        for name, schema in {**_form()["properties"], **framed}.items()
        if name != "image"
    ]


EXPLAIN: dict[str, Any] = {
    "responses": {
        200: {
            "model": ExplainResponse | ObjectiveResponse,
            "description": "The explanation, in the format that was asked for.",
            "content": {
                "image/png": {"schema": {"type": "string", "format": "binary"}},
                "application/x-npz": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        **PROBLEMS,
    },
    "openapi_extra": {
        "parameters": _query(),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": _form(),
                    "encoding": {"targets": {"style": "form", "explode": True}},
                },
                "application/json": {
                    "schema": _json(),
                    "examples": {
                        "predicted class": {"value": {"image": _WHITE_PIXEL}},
                        "two classes, as a picture": {
                            "value": {"image": _WHITE_PIXEL, "targets": [-1, -2], "output": "png"}
                        },
                    },
                },
                "application/octet-stream": {
                    "schema": {
                        "type": "string",
                        "format": "tensor",
                        "description": "The network's input, float32, little endian; or with "
                        "`width` and `height` in the URL a camera's frame, as it delivers it, "
                        "which a model that takes photographs is given as it is.",
                    }
                },
            },
        },
    },
}
"""The description of the route that explains."""
