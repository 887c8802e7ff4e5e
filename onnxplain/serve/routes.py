"""`/v1`, health and metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse

from onnxplain.contract.explain import TARGET, Metadata
from onnxplain.serve.access import access, named
from onnxplain.serve.answer import MEDIA_TYPES, render
from onnxplain.serve.decode import decode
from onnxplain.serve.gate import Place
from onnxplain.serve.openapi import EXPLAIN, PROBLEMS
from onnxplain.serve.ports import image_sizes
from onnxplain.serve.schemas import Health, ModelDescription, ModelList, ObjectiveInput
from onnxplain.serve.service import Service


def routes(service: Service) -> APIRouter:
    """What this service offers in its own protocol."""
    router = APIRouter()
    allowed = [Depends(access(service.settings.token))]
    _add_models(router, service, allowed)
    _add_operation(router, service, allowed)
    return router


def _add_models(router: APIRouter, service: Service, allowed: list[Any]) -> None:

    @router.post("/v1/models/{name}:explain", tags=["explain"], dependencies=allowed, **EXPLAIN)
    async def explain(
        request: Request,
        name: str = Path(description="A model's name.", json_schema_extra=named(service.settings)),
    ) -> Response:
        """Explain an image: which change of its pixels would the network read as more of a class?

        The image is a file (multipart/form-data, or base64 in JSON) or a tensor (in JSON, or raw).
        An image file is resized, cropped and normalised as the network expects. Options may also be
        given in the URL; those in the body take precedence. A raw body may also be a camera's
        frame, whose width, height and order of pixels are given in the URL.

        A model that is no classifier explains an object, a region, a similarity, a number or text.
        What that takes besides (`/v1/models` says it) is given by name: in `inputs` of JSON, or as
        fields of a form and in the URL, numbers with commas between; a region as a file, a picture
        that is bright inside. A box is left, top, right, bottom in pixels of the image sent.
        """
        service.models.check(name)

        async def work(body: bytes, place: Place) -> Response:
            async with service.models.use(name) as model:
                kind, query = request.headers.get("content-type", ""), request.url.query
                with service.metrics.stage("decode"):
                    asked = await service.pool.run(
                        decode, kind, query, body, model.explainer, service.settings.limits
                    )
                place.hold(asked.held_bytes)
                explained = await model.batcher.explain(asked.work)
                with service.metrics.stage("render"):
                    content = await service.pool.run(
                        render, name, model.explainer, asked, explained
                    )
            return Response(content, media_type=MEDIA_TYPES[asked.options.output])

        return await service.answer(request, work)

    @router.get(
        "/v1/models",
        tags=["models"],
        dependencies=allowed,
        response_model=ModelList,
        responses={401: PROBLEMS[401]},
    )
    async def models() -> dict[str, list[ModelDescription]]:
        """The models that can be asked, and what each of them expects."""
        return {
            "models": [
                _description(name, metadata, service.models.loaded(name) is not None)
                for name, metadata in service.models.metadata.items()
            ]
        }


def _add_operation(router: APIRouter, service: Service, allowed: list[Any]) -> None:
    @router.get("/health", tags=["operation"], response_model=Health)
    async def health() -> dict[str, str]:
        """Whether the process is alive: for a liveness probe."""
        return {"status": "draining" if service.draining else "ok"}

    @router.get(
        "/ready",
        tags=["operation"],
        response_model=Health,
        responses={503: {"model": Health, "description": "The service is shutting down."}},
    )
    async def ready() -> Response:
        """Whether new requests are accepted: for a readiness probe."""
        if service.draining:
            return JSONResponse({"status": "draining"}, 503)
        return JSONResponse({"status": "ok"})

    @router.get(
        "/metrics",
        tags=["operation"],
        dependencies=allowed,
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            401: PROBLEMS[401],
        },
    )
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _description(name: str, metadata: Metadata, loaded: bool) -> ModelDescription:
    pre = metadata.preprocessing
    return ModelDescription(
        name=name,
        loaded=loaded,
        method=metadata.described_method,
        source=metadata.source,
        input=list(image_sizes(metadata, pre.channels)),
        pixels=metadata.pixels.format,
        mean=list(pre.mean),
        std=list(pre.std),
        labels=list(metadata.labels),
        objective=metadata.objective.name,
        inputs=[
            ObjectiveInput(
                name=own,
                meaning=one.meaning,
                kind=one.kind,  # type: ignore[arg-type]
                shape=list(one.shape),
                optional=one.default is not None,
            )
            for own, one in metadata.objective.inputs.items()
            if own != TARGET
        ],
    )
