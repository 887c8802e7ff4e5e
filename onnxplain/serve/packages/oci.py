"""A container image: the runtime, the service and a model; no training framework, no root.

FOLDER/Dockerfile         docker build FOLDER
FOLDER/requirements.txt   everything it installs
FOLDER/app/onnxplain/     the part of this package that serves
FOLDER/models/            the explain graph
"""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

from onnxplain.contract.explain import Metadata
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.serve.packages import new_folder

REQUIREMENTS = (
    "numpy>=1.26",
    "pillow>=10.3",
    "typer>=0.16",
    "onnxruntime>=1.21",
    "fastapi>=0.115",
    "uvicorn>=0.32",
    "python-multipart>=0.0.12",
    "prometheus-client>=0.21",
)
"""What the project declares for serving, with ONNX Runtime's build for CPUs, which is a fraction of
the size of the one for GPUs."""

PORT = 8000

_DOCKERFILE = """\
# docker build -t {name} . && docker run --read-only --tmpfs /tmp -p {port}:{port} {name}
FROM python:3.12-slim AS packages
COPY requirements.txt .
RUN pip install --no-cache-dir --no-compile --target /packages -r requirements.txt

FROM python:3.12-slim
COPY --from=packages /packages /packages
COPY app /app
COPY models /models
ENV PYTHONPATH=/app:/packages PYTHONDONTWRITEBYTECODE=1 XDG_CACHE_HOME=/tmp
USER 65532:65532
EXPOSE {port}
HEALTHCHECK CMD ["python", "-c", \
"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/ready', timeout=3)"]
ENTRYPOINT ["python", "-m", "onnxplain.cli", "serve", {model}, \
"--provider", "cpu", "--host", "0.0.0.0", "--preload"]
CMD ["--port", "{port}"]
"""

_PARTS = tuple(
    f"onnxplain.{part}" for part in ("cli", "contract", "runtime", "serve", "signal", "vital")
)
"""The service, and what the command line imports before it knows which command was given."""

_NO_CACHES = shutil.ignore_patterns("__pycache__", "*.pyc")


def write_context(model: Path, folder: Path, name: str) -> None:
    """Write the folder that `docker build` takes.

    Args:
        model: an explain graph.
        folder: new or empty.
        name: the model's, and the image's in the Dockerfile's example.

    Raises:
        BackendError: not an explain graph.
        InputError: the folder is not empty, or cannot be written.
    """
    Metadata.from_props(read_metadata(model))
    with new_folder(folder) as new:
        (new / "Dockerfile").write_text(
            _DOCKERFILE.format(
                name=name, model=json.dumps(f"{name}=/models/{model.name}"), port=PORT
            ),
            encoding="utf-8",
        )
        (new / "requirements.txt").write_text("".join(f"{r}\n" for r in REQUIREMENTS))
        (new / ".dockerignore").write_text("**/__pycache__\n")
        (new / "models").mkdir()
        for file in (model, model.with_name(f"{model.name}.data")):
            if file.is_file():
                shutil.copyfile(file, new / "models" / file.name)
        _copy_package(new / "app" / "onnxplain")


def _copy_package(to: Path) -> None:
    """Copy the package's top-level modules, and the parts that serving needs."""
    to.mkdir(parents=True)
    for module in _folder("onnxplain").glob("*.py"):
        shutil.copyfile(module, to / module.name)
    for part in _PARTS:
        shutil.copytree(_folder(part), to / part.rpartition(".")[2], ignore=_NO_CACHES)


def _folder(package: str) -> Path:
    file = import_module(package).__file__
    assert file is not None  # not a namespace package
    return Path(file).parent
