"""`/v2`: the KServe v2 protocol (Open Inference Protocol), as Triton and its clients speak it."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from onnxplain.contract.explain import IMAGE, PULLBACK, TARGET, TEMPERATURE
from onnxplain.contract.objective import OBJECTIVE
from onnxplain.errors import InputError
from onnxplain.runtime import Explainer, Explanation
from onnxplain.runtime.inputs.frames import size_of_frame
from onnxplain.runtime.inputs.objective import as_inputs
from onnxplain.runtime.inputs.scalars import live_inputs
from onnxplain.runtime.inputs.targets import target_input
from onnxplain.serve import tensors
from onnxplain.serve.access import access, named
from onnxplain.serve.batcher import Work
from onnxplain.serve.gate import Place
from onnxplain.serve.openapi import PROBLEMS, inlined
from onnxplain.serve.pictures import most_in_call
from onnxplain.serve.ports import Port, input_ports, output_ports
from onnxplain.serve.refusal import Refusal, malformed, too_large, unusable
from onnxplain.serve.service import Service
from onnxplain.serve.settings import Limits
from onnxplain.version import __version__

VERSION = "1"
"""The only version of each model."""

_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": inlined(tensors.InferRequest)},
        "application/octet-stream": {
            "schema": {
                "type": "string",
                "format": "inference",
                "description": "That JSON, followed by the tensors' data; the header "
                f"{tensors.HEADER_LENGTH} says how many bytes are JSON.",
            }
        },
    },
}


_Responses = dict[int | str, dict[str, Any]]


def kserve_routes(service: Service) -> APIRouter:
    """What this service offers to KServe's and Triton's clients."""
    router = APIRouter(prefix="/v2", tags=["KServe v2"])
    allowed = [Depends(access(service.settings.token))]
    called = Path(description="A model's name.", json_schema_extra=named(service.settings))
    _add_server(router, service, allowed)
    _add_models(router, service, allowed, called)
    _add_infer(router, service, allowed, called)
    _add_index(router, service, allowed)
    return router


def _add_server(router: APIRouter, service: Service, allowed: list[Any]) -> None:
    ending: _Responses = {503: {"description": "The service is shutting down."}}

    @router.get("/health/live", response_class=Response)
    async def live() -> Response:
        """Whether the process is alive."""
        return Response()

    @router.get("/health/ready", response_class=Response, responses=ending)
    async def ready() -> Response:
        """Whether new requests are accepted."""
        return Response(status_code=503 if service.draining else 200)

    @router.get("", dependencies=allowed, responses={401: PROBLEMS[401]})
    async def server() -> dict[str, Any]:
        """The server, and which of the protocol's extensions it supports."""
        return {"name": "onnxplain", "version": __version__, "extensions": ["binary_tensor_data"]}


def _add_models(router: APIRouter, service: Service, allowed: list[Any], called: Any) -> None:
    problems: _Responses = {status: PROBLEMS[status] for status in (401, 404, 500, 503)}

    @router.get(
        "/models/{name}/ready", dependencies=allowed, response_class=Response, responses=problems
    )
    @router.get(
        "/models/{name}/versions/{version}/ready", dependencies=allowed, include_in_schema=False
    )
    async def model_ready(request: Request, name: str = called) -> Response:
        """Whether the model can be asked; it may have to be loaded first."""
        _check(service, request, name)
        return Response(status_code=503 if service.draining else 200)

    @router.get("/models/{name}", dependencies=allowed, responses=problems)
    @router.get("/models/{name}/versions/{version}", dependencies=allowed, include_in_schema=False)
    async def model_metadata(request: Request, name: str = called) -> dict[str, Any]:
        """The model's inputs and outputs; loads it if necessary."""
        _check(service, request, name)
        async with service.admitted(), service.models.use(name) as model:
            return {"name": name, "versions": [VERSION], **_ports(model.explainer)}


def _add_infer(router: APIRouter, service: Service, allowed: list[Any], called: Any) -> None:
    responses: _Responses = {
        200: {"content": {"application/octet-stream": {"schema": {"type": "string"}}}},
        **{status: PROBLEMS[status] for status in (400, 401, 404, 408, 413, 415, 422, 500, 503)},
    }

    @router.post(
        "/models/{name}/infer",
        dependencies=allowed,
        responses=responses,
        openapi_extra={"requestBody": _BODY},
    )
    @router.post(
        "/models/{name}/versions/{version}/infer", dependencies=allowed, include_in_schema=False
    )
    async def infer(request: Request, name: str = called) -> Response:
        """Run the explain graph: images and targets in, logits and pullback out.

        Images are normalised; of a model that takes photographs, uint8 pixels of any size.
        """
        _check(service, request, name)
        length = request.headers.get(tensors.HEADER_LENGTH)

        async def work(body: bytes, place: Place) -> Response:
            async with service.models.use(name) as model:
                with service.metrics.stage("decode"):
                    asked, images = await service.pool.run(
                        _decode, body, length, model.explainer, service.settings.limits
                    )
                explained = await model.batcher.explain(images)
                with service.metrics.stage("render"):
                    content, json_bytes = await service.pool.run(
                        _render, name, asked, model.explainer, explained
                    )
            if json_bytes is None:
                return Response(content, media_type="application/json")
            headers = {tensors.HEADER_LENGTH: str(json_bytes)}
            return Response(content, media_type="application/octet-stream", headers=headers)

        return await service.answer(request, work)


def _add_index(router: APIRouter, service: Service, allowed: list[Any]) -> None:
    @router.post("/repository/index", dependencies=allowed, responses={401: PROBLEMS[401]})
    async def index() -> Response:
        """All models, as Triton lists them."""
        names = service.models.metadata
        return JSONResponse([{"name": n, "version": VERSION, "state": "READY"} for n in names])


def _check(service: Service, request: Request, name: str) -> None:
    service.models.check(name)
    if request.path_params.get("version", VERSION) != VERSION:
        raise Refusal(404, f"{name!r} only has the version {VERSION}", "unknown")


def _ports(explainer: Explainer) -> dict[str, Any]:
    """As Triton describes the model that `onnxplain package --triton` writes of it."""
    signature = explainer.backend.signature
    many = signature.batch or -1

    def described(port: Port, shape: list[int]) -> dict[str, Any]:
        return {"name": port.name, "datatype": tensors.NAMES[port.dtype], "shape": shape}

    inputs = [described(p, [many, *(p.sizes or [1])]) for p in input_ports(signature)]
    if signature.live_temperature:
        inputs.append(described(Port(TEMPERATURE, signature.dtype.name), [1]))
    outputs = [described(p, p.shape(many)) for p in output_ports(signature) if p.axis is not None]
    return {"platform": "onnxplain", "inputs": inputs, "outputs": outputs}


def _decode(
    body: bytes, header_length: str | None, explainer: Explainer, limits: Limits
) -> tuple[tensors.InferRequest, Work]:
    """Read a request; raises Refusal for whatever is wrong with it."""
    request, arrays = tensors.read(body, header_length)
    explained = explainer.metadata.objective
    expected = {port["name"]: port["datatype"] for port in _ports(explainer)["inputs"]}
    for name, array in arrays.items():
        if name not in expected:
            raise malformed(f"there is no input {name[:50]!r}; there are {', '.join(expected)}")
        if tensors.NAMES[array.dtype.name] != expected[name]:
            raise malformed(f"{name!r} is of {expected[name]}")
    optional = {name for name, one in explained.inputs.items() if one.default is not None}
    needed = (expected.keys() - optional - {TEMPERATURE}) | ({TARGET} & expected.keys())
    if missing := needed - arrays.keys():
        raise malformed(f"the input {min(missing)!r} is missing")
    work = _work(arrays, explainer, limits)
    if work.targets.size > limits.images:
        raise too_large(f"{limits.images} images × targets at most, not {work.targets.size}")
    return request, work


def _work(arrays: dict[str, NDArray[Any]], explainer: Explainer, limits: Limits) -> Work:
    image, target = arrays[IMAGE], arrays.get(TARGET)
    signature, temperature = explainer.backend.signature, arrays.get(TEMPERATURE)
    explained = explainer.metadata.objective
    expected = _ports(explainer)["inputs"][0]["shape"]
    fits = len(image.shape) == len(expected) and all(
        size if wanted == -1 else size == wanted
        for size, wanted in zip(image.shape[1:], expected[1:], strict=True)
    )
    if not fits or len(image) == 0:
        raise malformed(f"{IMAGE!r} has the shape {expected}, not {list(image.shape)}")
    if not np.isfinite(image).all():
        raise unusable("the images have NaN or infinite values")
    if target is not None and not signature.multi_target:
        target = _vector(target)
    if temperature is not None and temperature.size != 1:
        raise malformed(f"{TEMPERATURE!r} is one number")
    own = {
        name: array if explained.inputs[name].shape else _vector(array)
        for name, array in arrays.items()
        if name in explained.inputs and name != TARGET
    }
    pixels, pre = signature.metadata.pixels, signature.metadata.preprocessing
    if not pixels and not pre.takes(image.shape[1:]):
        raise unusable(f"the sides of {IMAGE!r} are {pre.described_sides or 'positive'}")
    try:
        size = size_of_frame(image.shape, pixels) if pixels else pre.sides(image.shape)
        warmth = None if temperature is None else float(temperature.reshape(-1)[0])
        live_inputs(signature, warmth)
        targets = target_input(signature, target, len(image))
        inputs = as_inputs(signature, own, len(image))
        most = most_in_call(size, targets[0].size, pre, limits)
    except InputError as error:
        raise unusable(str(error)) from None
    return Work(image, targets, warmth, inputs, most)


def _vector(array: NDArray[Any]) -> NDArray[Any]:
    """[N] of [N,1], as Triton has it, which knows no vectors over the batch."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _render(
    name: str, request: tensors.InferRequest, explainer: Explainer, explained: Explanation
) -> tuple[bytes, int | None]:
    if explained.nonfinite() is not None:
        raise unusable("the network's output for this input is not finite")
    pullback = explained.pullback
    if explainer.metadata.preprocessing.layout == "NHWC":
        pullback = np.moveaxis(pullback, -3, -1)  # as the graph itself has it
    head: dict[str, Any] = {"model_name": name, "model_version": VERSION}
    if request.id is not None:
        head["id"] = request.id
    outputs = {**explained.outputs, PULLBACK: pullback}
    if explained.objective is not None:
        outputs |= {OBJECTIVE: explained.objective}
    return tensors.write(head, request, outputs)
