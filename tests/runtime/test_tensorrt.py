"""TensorRT: engines are built, kept, written, read and refused on a machine without a GPU."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.errors import BackendError, InputError
from onnxplain.gallery import write_gallery
from onnxplain.runtime import cache as kept_files
from onnxplain.runtime.cache import cache_folder
from onnxplain.runtime.sessions import cuda_driver as driver
from onnxplain.runtime.sessions.cuda_driver import Cuda
from onnxplain.runtime.sessions.tensorrt import (
    Engine,
    build_engine,
    compile_and_open,
    compiler,
    open_engine,
    read_engine,
)
from onnxplain.runtime.sessions.tensorrt import build as building
from onnxplain.runtime.sessions.tensorrt.package import Package, load_package

from .fake_gpu import FakeDriver
from .quantised import quantised

pytest.importorskip("tensorrt_rtx")

GraphFile = Callable[..., Path]

NO_GPU = "no NVIDIA GPU / driver found: "


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is one: what these tests say must hold without."""

    def absent() -> None:
        raise BackendError(NO_GPU + "libcuda.so.1 cannot be loaded")

    monkeypatch.setattr(driver, "_driver", absent)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder("engines")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A real network's explain graph with everything that excitation needs, and its engine."""
    folder = tmp_path_factory.mktemp("engine")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(3, 2, 1),
        torch.nn.Conv2d(8, 8, 3, 1, 1),
        torch.nn.ReLU6(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    ).eval()
    graph, engine = folder / "net.explain.onnx", folder / "net.engine"
    onnxplain.export(network, graph, example=torch.zeros(2, 3, 32, 32), labels=list("abcde"))
    build_engine(graph, sm=[89, 120], keep=False).write(engine)
    return graph, engine


def test_an_engine_is_built_for_two_gpus_without_one(built: tuple[Path, Path]) -> None:
    engine = read_engine(built[1])
    assert engine.sms == (89, 120)
    assert engine.version == load_package("tensorrt-rtx").version
    assert engine.profile == {
        "image": ((1, 3, 32, 32), (8, 3, 32, 32), (64, 3, 32, 32)),
        "target": ((1,), (8,), (64,)),
    }
    assert list(engine.inputs) == ["image", "target"]
    assert engine.outputs["pullback"].shape == (None, 3, 32, 32)
    assert len(engine.payload) > 10_000


def test_a_gallery_takes_an_engine_for_what_it_is(built: tuple[Path, Path], tmp_path: Path) -> None:
    photograph = tmp_path / "a.png"
    Image.new("RGB", (32, 32), "teal").save(photograph)
    with pytest.raises(BackendError, match="GPU"):  # no network to be exported
        write_gallery([built[1]], [photograph], tmp_path / "g.html")


def test_an_engine_file_needs_no_other_file(built: tuple[Path, Path]) -> None:
    from onnxplain.runtime.signature import Signature

    graph, file = built
    engine = read_engine(file)
    signature = Signature.of(engine.metadata, engine.inputs, engine.outputs)
    assert signature == onnxplain.load(graph).backend.signature
    assert signature.metadata.labels == tuple("abcde")


def test_an_engine_comes_back_from_its_file_as_it_was(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    engine = read_engine(built[1])
    engine.write(tmp_path / "again.engine")
    assert read_engine(tmp_path / "again.engine") == engine
    assert (tmp_path / "again.engine").read_bytes() == built[1].read_bytes()


def test_the_second_build_is_the_first_ones_engine(
    graph_file: GraphFile, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_file()
    first = build_engine(graph, sm=[89])
    assert len(list(cache.glob("*.engine"))) == 1
    monkeypatch.setattr(compiler, "parse", lambda *_: pytest.fail("it was built again"))
    assert build_engine(graph, sm=[89]) == first


@pytest.mark.parametrize(
    "change",
    [{"sm": [120]}, {"precision": "tf32"}, {"batches": [2]}, {"graph": {"labels": ()}}],
    ids=lambda change: next(iter(change)),
)
def test_another_gpu_precision_profile_or_graph_is_another_engine(
    graph_file: GraphFile, cache: Path, change: dict[str, object]
) -> None:
    graph = graph_file()
    build_engine(graph, sm=[89])
    options = {"sm": [89]} | change
    build_engine(graph_file(**options.pop("graph", {})), **options)
    assert len(list(cache.glob("*.engine"))) == 2


@pytest.mark.parametrize("damage", [b"", b"onnxplain engine", b"\0" * 4000])
def test_a_damaged_cached_engine_is_built_again(
    graph_file: GraphFile, cache: Path, damage: bytes
) -> None:
    graph = graph_file()
    build_engine(graph, sm=[89])
    (cached,) = cache.glob("*.engine")
    cached.write_bytes(damage)
    with pytest.warns(UserWarning, match="is not used and built anew"):
        engine = build_engine(graph, sm=[89])
    assert read_engine(cached) == engine


def test_damaged_timings_are_never_handed_to_the_compiler_and_measured_anew(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "gpu", lambda: SimpleNamespace(name="NVIDIA L4"))
    package = Package("tensorrt", SimpleNamespace(__version__="11.0.0"), None)

    class Config:
        def create_timing_cache(self, data: bytes) -> bytes:
            return data

        def set_timing_cache(self, known: bytes, ignore_mismatch: bool) -> bool:
            self.known = known
            return True

        def get_timing_cache(self) -> SimpleNamespace:
            return SimpleNamespace(serialize=lambda: self.known + b"timing ")

    for known in (b"", b"timing "):
        compiler._timings(package, config := Config())()
        assert config.known == known
    (kept,) = cache.glob("*.timings")
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="is damaged, and made anew"):
        keep = compiler._timings(package, config := Config())
    assert config.known == b""
    keep()
    assert kept_files.load(kept) == b"timing "


def test_an_engine_of_another_format_of_building_is_built_again(
    graph_file: GraphFile, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_file()
    build_engine(graph, sm=[89])
    monkeypatch.setattr(building, "_FORMAT", building._FORMAT + 1)
    build_engine(graph, sm=[89])
    assert len(list(cache.glob("*.engine"))) == 2


def test_a_cache_that_cannot_be_written_is_a_warning(graph_file: GraphFile, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cache cannot be kept"):
        assert len(build_engine(graph_file(), sm=[89]).payload)


def _with_header(data: bytes, **changed: object) -> bytes:
    (length,) = struct.unpack("<Q", data[16:24])
    header = json.loads(data[24 : 24 + length]) | changed
    text = json.dumps({k: v for k, v in header.items() if v is not None}).encode()
    return data[:16] + struct.pack("<Q", len(text)) + text + data[24 + length :]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: data[:-1], "cut short or damaged"),
        (lambda data: data[:3000], "cut short or damaged"),
        (lambda data: data[:20], "cut short or damaged"),
        (lambda data: data[:-5] + b"\0" + data[-4:], "cut short or damaged"),
        (lambda data: data[:16] + b"\xff" * 8 + data[24:], "cut short or damaged"),
        (lambda data: data[:24] + b"[]" + data[26:], "cut short or damaged"),
        (lambda data: data + b"more", "cut short or damaged"),
        (lambda data: _with_header(data, metadata=None), "cut short or damaged"),
        (lambda data: _with_header(data, inputs=[1]), "cut short or damaged"),
        (lambda data: _with_header(data, version="1.0.0"), "cut short or damaged"),
        (lambda data: _with_header(data, version="\ud800"), "cut short or damaged"),
        (lambda data: data[:16] + struct.pack("<Q", 10**5) + 10**5 * b"[", "cut short or damaged"),
        (lambda data: _with_header(data, format=99), "of format 99, this onnxplain reads"),
        (lambda data: data[data.index(b"vtrt") :], "is a raw TensorRT engine"),
        (lambda data: b"", "is not an engine file"),
        (lambda data: b"PK\3\4" + data, "is not an engine file"),
    ],
)
def test_a_file_that_is_not_a_whole_engine_is_refused(
    built: tuple[Path, Path],
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    sentence: str,
) -> None:
    file = tmp_path / "bad.engine"
    file.write_bytes(damage(built[1].read_bytes()))
    with pytest.raises(BackendError, match=sentence):
        read_engine(file)


def test_a_graph_is_not_taken_for_an_engine(built: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"is not an engine file; make one .* onnxplain build"):
        open_engine(built[0])
    with pytest.raises(BackendError, match="no such file"):
        open_engine(tmp_path / "absent.engine")


def package_of_version(version: str) -> Package:
    real = load_package("tensorrt-rtx")
    fake = type("trt", (), {"__version__": version, "ComputeCapability": None})
    return Package("tensorrt-rtx", fake, real.logger)


def test_an_engine_of_another_version_is_refused(built: tuple[Path, Path]) -> None:
    engine = read_engine(built[1])
    with pytest.raises(BackendError, match=r"only that version .* 1\.2\.3 is installed"):
        engine.check(package_of_version("1.2.3"))


@pytest.mark.parametrize(
    ("gpu", "stranger"),
    [
        (FakeDriver("NVIDIA L4", 89), False),
        (FakeDriver("NVIDIA GeForce RTX 5090", 120), False),
        (FakeDriver("NVIDIA A10", 86), True),
        (FakeDriver("NVIDIA H100", 90), True),
    ],
)
def test_an_engine_for_another_gpu_is_refused(
    built: tuple[Path, Path], gpu: FakeDriver, stranger: bool
) -> None:
    engine, package, cuda = read_engine(built[1]), load_package("tensorrt-rtx"), Cuda(gpu)
    if not stranger:
        engine.check(package, cuda)
        return
    with pytest.raises(BackendError, match=f"SM 89, 120, and the GPU here is {gpu.names[0]}"):
        engine.check(package, cuda)


def test_an_engine_for_one_model_of_gpu_or_system_is_refused_on_another(
    built: tuple[Path, Path],
) -> None:
    package, cuda = load_package("tensorrt-rtx"), Cuda(FakeDriver("NVIDIA L40S", 89))
    engine = dataclasses.replace(read_engine(built[1]), gpu="NVIDIA L4")
    with pytest.raises(BackendError, match="built for NVIDIA L4, SM 89"):
        engine.check(package, cuda)
    with pytest.raises(BackendError, match="built on win32 AMD64, and this is"):
        dataclasses.replace(engine, system="win32 AMD64").check(package)


def test_without_a_gpu_an_engine_or_a_graph_is_not_opened(built: tuple[Path, Path]) -> None:
    graph, file = built
    with pytest.raises(BackendError, match=NO_GPU):
        open_engine(file)
    with pytest.raises(BackendError, match=NO_GPU):
        compile_and_open(graph, "tensorrt-rtx")


def test_a_version_is_refused_before_a_gpu_is_looked_for(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "old.engine"
    dataclasses.replace(read_engine(built[1]), version="1.0.0").write(file)
    with pytest.raises(BackendError, match=r"only that version can run it"):
        open_engine(file)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(graph_file: GraphFile) -> None:
    if _installed("tensorrt"):
        pytest.skip("tensorrt is installed")
    with pytest.raises(BackendError, match=r'pip install "onnxplain\[tensorrt\]"'):
        build_engine(graph_file(), provider="tensorrt")


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sm": [90]}, r"does not build for SM 90 \(Hopper\); it builds for 75, 80, 86, 89, 120"),
        ({"sm": [70]}, "does not build for SM 70; it builds for 75"),
        ({"precision": "float8"}, "unknown precision 'float8'"),
        ({"precision": "int8"}, "is not quantised"),
        ({"batches": [8, 4, 64]}, "smallest, usual and largest in rising order"),
        ({"batches": [0]}, "from 1; not 0"),
        ({"batches": [1, 8]}, "not 1, 8"),
        ({"batches": []}, "one number"),
        ({"refittable": True}, f"a refittable engine is built on the GPU .* {NO_GPU}"),
        ({"portable": True}, "name them instead"),
    ],
)
def test_what_cannot_be_built_is_said(
    graph_file: GraphFile, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(BackendError, match=sentence):
        build_engine(graph_file(), **options)


def test_one_batch_size_is_fixed_in_the_engine(graph_file: GraphFile) -> None:
    engine = build_engine(graph_file(), sm=[89], batches=[4])
    assert engine.profile["target"] == ((4,), (4,), (4,))
    assert engine.inputs["image"].shape[0] == 4


def test_a_graph_of_a_fixed_batch_needs_no_profile(graph_file: GraphFile) -> None:
    engine = build_engine(graph_file(batch=2), sm=[89])
    assert engine.profile == {}
    assert engine.inputs["target"].shape == (2,)


def test_the_profile_has_the_targets_of_a_multi_target_graph(graph_file: GraphFile) -> None:
    engine = build_engine(graph_file(multi_target=True), sm=[89], targets=[1, 3, 5])
    assert engine.profile["target"] == ((1, 1), (8, 3), (64, 5))
    assert engine.inputs["target"].shape == (None, None)


def test_a_live_temperature_stays_an_input(graph_file: GraphFile) -> None:
    engine = build_engine(graph_file(live_temperature=True), sm=[89])
    assert engine.inputs["temperature"].shape == ()


def test_an_operator_that_the_parser_does_not_know_is_named(
    graph_file: GraphFile, tmp_path: Path
) -> None:
    model = onnx.load(graph_file())
    for node in model.graph.node:
        if node.name == "" and node.output[0] == "square":
            node.CopyFrom(helper.make_node("DFT", ["x"], ["square"], name="a_transform"))
    path = tmp_path / "dft.onnx"
    onnx.save(model, path)
    with pytest.raises(BackendError, match=r"cannot read the graph: .*DFT.*'a_transform'.*: \S"):
        build_engine(path, sm=[89])


def test_turing_is_told_what_it_lacks(built: tuple[Path, Path]) -> None:
    with pytest.raises(BackendError, match=r"cannot compile .* Leave out SM 75"):
        build_engine(built[0], sm=[75])


def test_half_precision_compiles(built: tuple[Path, Path]) -> None:
    engine = build_engine(built[0], sm=[89], precision="float16")
    assert engine.precision == "float16"
    assert engine.inputs["image"].dtype == "float32"


@pytest.mark.parametrize("activation", [torch.nn.Hardswish(), torch.nn.Mish()], ids=repr)
def test_bfloat16_compiles_with_what_the_compiler_has_in_float32_alone(
    tmp_path: Path, activation: torch.nn.Module
) -> None:
    """A stride of 2, whose backward is a transposed convolution, one of the forward, and pools."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1),
        activation,
        torch.nn.ConvTranspose2d(8, 8, 2, 2),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.AvgPool2d(2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    )
    path = tmp_path / "network.explain.onnx"
    onnxplain.export(network.eval(), path, example=torch.zeros(2, 3, 16, 16))
    assert build_engine(path, sm=[89], precision="bfloat16").precision == "bfloat16"


@pytest.mark.parametrize("bias", [True, False])
def test_a_quantised_network_compiles_with_its_biases_in_floats(tmp_path: Path, bias: bool) -> None:
    graph = quantised(tmp_path, ActivationSymmetric=True, QuantizeBias=bias)
    assert build_engine(graph, sm=[89], precision="int8").precision == "int8"


def test_a_quantiser_with_a_zero_point_is_refused_with_the_options_to_quantise_by(
    tmp_path: Path,
) -> None:
    with pytest.raises(BackendError, match=r"operator QuantizeLinear.*'ActivationSymmetric': True"):
        build_engine(quantised(tmp_path), sm=[89], precision="int8")


def test_progress_rises_to_one(graph_file: GraphFile) -> None:
    seen: list[float] = []
    build_engine(graph_file(), sm=[89], progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] < 0.1
    assert seen[-1] == 1
    assert len(seen) > 20


def test_ctrl_c_ends_a_build(graph_file: GraphFile, cache: Path) -> None:
    def interrupt(done: float) -> None:
        raise KeyboardInterrupt

    graph = graph_file()
    with pytest.raises(KeyboardInterrupt):
        build_engine(graph, sm=[89], progress=interrupt)
    assert not list(cache.glob("*"))
    assert len(build_engine(graph, sm=[89]).payload)


def test_external_weights_are_part_of_what_an_engine_is_cached_by(
    graph_file: GraphFile, cache: Path, tmp_path: Path
) -> None:
    model, path = onnx.load(graph_file()), tmp_path / "outside.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    build_engine(path, sm=[89])
    weights = bytearray((tmp_path / "w.bin").read_bytes())
    start = bytes(weights).index(np.float32(3).tobytes())
    weights[start : start + 4] = np.float32(4).tobytes()
    (tmp_path / "w.bin").write_bytes(weights)
    build_engine(path, sm=[89])
    assert len(list(cache.glob("*.engine"))) == 2
    (tmp_path / "w.bin").unlink()
    with pytest.raises(BackendError, match=r"weights in 'w.bin' beside it"):
        build_engine(path, sm=[89])


@pytest.mark.parametrize("content", [b"", b"no protocol buffer", b"\x3a\xff\xff\xff\x7f"])
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(BackendError, match="not an ONNX file"):
        build_engine(path)


def test_a_network_without_a_pullback_is_refused(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["logits"])],
        "forward",
        [info("image", TensorProto.FLOAT, ["N", 3])],
        [info("logits", TensorProto.FLOAT, ["N", 3])],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "forward.onnx")
    with pytest.raises(BackendError, match=r"not an explain graph .* onnxplain export"):
        build_engine(tmp_path / "forward.onnx")


@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param("mobilenet_v3_small", "semantic", marks=pytest.mark.sweep),
        pytest.param("shufflenet_v2_x0_5", "excitation", marks=pytest.mark.sweep),
        pytest.param("squeezenet1_1", "gradient", marks=pytest.mark.sweep),
        ("squeezenet1_1", "excitation"),
    ],
)
def test_torchvision_networks_compile(tmp_path: Path, name: str, method: str) -> None:
    network = torchvision.models.get_model(name, weights=None).eval()
    path = tmp_path / "network.explain.onnx"
    onnxplain.export(network, path, example=torch.zeros(2, 3, 96, 96), method=method)
    engine = build_engine(path, sm=[89, 120], keep=False)
    assert engine.outputs["pullback"].shape == (None, 3, 96, 96)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def test_the_command_build_writes_an_engine(graph_file: GraphFile) -> None:
    graph = graph_file()
    code, text = run("build", graph, "--sm", "89,120", "--batch", "1,2,4")
    assert code == 0, text
    file = graph.with_suffix(".engine")
    assert f"{file}: " in text
    assert "KiB, float32, for SM 89, 120, by tensorrt-rtx " in text
    assert read_engine(file).profile["target"] == ((1,), (2,), (4,))


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--sm", "90"], 5, "does not build for SM 90 (Hopper)"),
        (
            ["--sm", "eighty"],
            4,
            "--sm takes numbers from 1 up, separated by commas, not 'eighty'",
        ),
        (["--batch", "4,2,1"], 5, "in rising order"),
        (["--provider", "cuda"], 4, "no provider 'cuda' to build for; known: tensorrt, tensorrt-"),
        (["-o", "/nowhere/x.engine"], 4, "there is no folder '/nowhere'"),
    ],
)
def test_the_command_build_says_what_is_wrong(
    graph_file: GraphFile, arguments: list[str], status: int, sentence: str
) -> None:
    code, text = run("build", graph_file(), *arguments)
    assert code == status
    assert sentence in text


def test_the_command_build_of_a_missing_graph_is_a_sentence(tmp_path: Path) -> None:
    code, text = run("build", tmp_path / "absent.onnx")
    assert code == 5
    assert "no such file" in text


def test_the_command_run_engine_without_a_gpu_is_a_sentence(
    built: tuple[Path, Path], photo_folder: Path, tmp_path: Path
) -> None:
    code, text = run("run-engine", built[1], photo_folder, "-o", tmp_path / "out")
    assert code == 5
    assert NO_GPU in text
    assert not (tmp_path / "out").exists()


def test_the_commands_say_how_they_are_used() -> None:
    for command in ("build", "run-engine"):
        code, text = run(command, "--help")
        assert code == 0
        assert f"onnxplain {command}" in text


@pytest.mark.skipif(os.name == "nt", reason="another name there")
def test_the_driver_is_named_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    driver._driver.cache_clear()

    def absent(name: str) -> None:
        raise OSError(f"{name}: no such file")

    monkeypatch.setattr(driver.ctypes, "CDLL", absent)
    with pytest.raises(BackendError, match=r"no NVIDIA GPU / driver found: libcuda\.so\.1, which"):
        driver.gpu()


def test_a_driver_without_a_gpu_is_said() -> None:
    library = FakeDriver()
    library.failing["cuInit"] = 100
    with pytest.raises(BackendError, match=f"{NO_GPU}CUDA's cuInit failed: no CUDA-capable device"):
        Cuda(library)


def test_each_gpu_is_called_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeDriver("NVIDIA L4")
    library.names.append("NVIDIA A10")
    monkeypatch.setattr(driver, "_driver", lambda: library)
    assert [found.name for found in driver.gpus()] == ["NVIDIA L4", "NVIDIA A10"]
    assert driver.gpu(1).name == "NVIDIA A10"
    with pytest.raises(BackendError, match=f"{NO_GPU}CUDA's cuDeviceGet failed: invalid device"):
        driver.gpu(2)
    code, text = run("doctor")
    assert code == 0
    assert "GPU 0: NVIDIA L4, SM 89 GPU 1: NVIDIA A10, SM 89" in text


def test_an_engine_is_not_written_into_a_folder_that_is_not_there(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    engine: Engine = read_engine(built[1])
    with pytest.raises(InputError, match="there is no folder"):
        engine.write(tmp_path / "absent" / "x.engine")
