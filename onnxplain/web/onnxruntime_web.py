"""ONNX Runtime for browsers, from npm: one pinned version, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from onnxplain.errors import BackendError
from onnxplain.files import scratch

VERSION = "1.30.0"
_PACKAGE = f"onnxruntime-web@{VERSION}"
_SHA512 = (  # of the package's archive
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)

# With WebGPU, and without: half the size.
_FILES = (
    "ort.webgpu.bundle.min.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
    "ort.wasm.bundle.min.mjs",
    "ort-wasm-simd-threaded.wasm",
)


def copy_runtime(folder: Path) -> list[Path]:
    """Put the files of onnxruntime-web that a page needs into a new folder, and return them.

    Raises:
        BackendError: the package is not in the cache, and npm cannot download it.
    """
    archive = _cached()
    folder.mkdir()
    with tarfile.open(archive, "r|gz") as package:  # read once, from beginning to end
        for member in package:
            name = member.name.removeprefix("package/dist/")
            content = package.extractfile(member) if name in _FILES else None
            if content is not None:
                with content, open(folder / name, "wb") as file:
                    shutil.copyfileobj(content, file)
    return [folder / name for name in _FILES]


def installed() -> bool:
    """Whether the package is in the cache, so that nothing needs to be downloaded."""
    return _archive().is_file()


def _archive() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onnxplain"
    return cache / f"onnxruntime-web-{VERSION}.tgz"


def _cached() -> Path:
    archive = _archive()
    if not archive.is_file() or _sha512(archive) != _SHA512:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with scratch(archive.parent) as folder:
            _download(folder).replace(archive)
    return archive


def _download(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise BackendError(
            f"the site needs {_PACKAGE}, which npm downloads, and there is no npm here; "
            "install Node.js (https://nodejs.org) and try again"
        )
    done = subprocess.run(
        [npm, "pack", _PACKAGE, "--silent", "--pack-destination", folder],
        capture_output=True,
        text=True,
        cwd=folder,  # the current project's npm settings do not concern us
    )
    archives = list(folder.glob("*.tgz"))
    if done.returncode or not archives:
        cause = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise BackendError(
            f"npm could not download {_PACKAGE}: {cause[-1]}; with a connection to the npm "
            "registry, once, it is kept for the next site"
        )
    if _sha512(archives[0]) != _SHA512:
        raise BackendError(f"what npm downloaded is not {_PACKAGE} as published; try again")
    return archives[0]


def _sha512(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha512").hexdigest()
