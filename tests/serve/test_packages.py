"""Model repositories of Triton, services of KServe, containers: what is written, and what not."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import onnx
import pytest
import yaml
from click.testing import Result
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb
from typer.testing import CliRunner

from onnxplain.cli import app
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.runtime.sessions import open_backend
from onnxplain.runtime.sessions.tensorrt.engine import Engine
from onnxplain.runtime.signature import Port
from onnxplain.serve.packages import model_name
from onnxplain.serve.packages.kserve import with_image, with_triton
from onnxplain.serve.packages.oci import REQUIREMENTS, write_context
from onnxplain.serve.packages.triton import Options, write_repository
from onnxplain.serve.service import Service
from onnxplain.serve.settings import Limits, Settings

from ..runtime.conftest import LABELS, explain_graph

ROOT = Path(__file__).parents[2]


def parsed(folder: Path) -> pb.ModelConfig:
    """A `config.pbtxt`, by Triton's own schema: an unknown field or constant is an error."""
    return text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())


def engine_file(graph: Path, path: Path, **changed) -> Path:
    """An engine of TensorRT's, as `onnxplain build` would write it on a machine with a GPU."""
    sizes = ((1, 3, 6, 8), (4, 3, 6, 8), (16, 3, 6, 8))
    engine = Engine(
        provider="tensorrt",
        version="10.9",
        sms=(89,),
        gpu="",
        system="",
        precision="float16",
        profile={"image": sizes, "target": ((1,), (4,), (16,))},
        refittable=False,
        graph="0",
        metadata=read_metadata(graph),
        inputs={"image": Port("float32", (None, 3, 6, 8)), "target": Port("int64", (None,))},
        outputs={
            "logits": Port("float32", (None, 5)),
            "pullback": Port("float32", (None, 3, 6, 8)),
        },
        payload=memoryview(b"ftrt, so to speak"),
    )
    dataclasses.replace(engine, **changed).write(path)
    return path


def shapes(config: pb.ModelConfig) -> dict[str, list[int]]:
    return {port.name: list(port.dims) for port in [*config.input, *config.output]}


def test_a_repository_has_the_layout_that_triton_reads(graphs, tmp_path):
    folder = write_repository(graphs["tiny"], tmp_path / "models", "tiny", Options())
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "models/tiny/config.pbtxt",
        "models/tiny/labels.txt",
        "models/tiny/1/model.onnx",
    }
    assert (folder / "labels.txt").read_text().splitlines() == list(LABELS)
    onnx.checker.check_model(folder / "1" / "model.onnx")


def test_the_config_says_what_the_graph_is(graphs, tmp_path):
    folder = write_repository(graphs["tiny"], tmp_path, "tiny", Options())
    config = parsed(folder)
    assert config.name == folder.name == "tiny"
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == 8
    assert shapes(config) == {
        "image": [3, 6, 8],
        "target": [1],
        "logits": [5],
        "pullback": [3, 6, 8],
    }
    image, target = config.input
    assert (image.data_type, target.data_type) == (pb.TYPE_FP32, pb.TYPE_INT64)
    assert target.HasField("reshape")
    assert list(target.reshape.shape) == []
    assert not image.HasField("reshape")
    assert config.output[0].label_filename == "labels.txt"
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    queue = config.dynamic_batching.default_queue_policy
    assert queue.timeout_action == pb.ModelQueuePolicy.REJECT
    assert (queue.max_queue_size, queue.default_timeout_microseconds) == (256, 30_000_000)
    assert [warm.batch_size for warm in config.model_warmup] == [1, 8]
    assert set(config.model_warmup[0].inputs) == {"image", "target"}
    assert config.optimization.input_pinned_memory.enable


@pytest.mark.parametrize(
    ("name", "expected", "most"),
    [
        ("multi", {"target": [-1], "pullback": [-1, 3, 6, 8]}, 8),
        ("nhwc", {"image": [6, 8, 3], "pullback": [6, 8, 3]}, 8),
        ("single", {"image": [1, 3, 6, 8], "target": [1], "logits": [1, 5]}, 0),
        ("four", {"image": [4, 3, 6, 8], "target": [4], "logits": [4, 5]}, 0),
        ("double", {"image": [3, 6, 8]}, 8),
    ],
)
def test_graphs_of_every_kind_have_their_shapes(graphs, tmp_path, name, expected, most):
    config = parsed(write_repository(graphs[name], tmp_path, name, Options()))
    assert shapes(config).items() >= expected.items()
    assert config.max_batch_size == most
    assert config.HasField("dynamic_batching") == (most > 0)
    for warm in config.model_warmup:
        assert all(dim > 0 for given in warm.inputs.values() for dim in given.dims)
        assert 1 <= warm.batch_size <= max(most, 1)
    if name == "double":
        assert config.input[0].data_type == config.output[1].data_type == pb.TYPE_FP64
    if most == 0:
        assert not config.input[1].HasField("reshape")
        (warm,) = config.model_warmup
        assert list(warm.inputs["image"].dims) == expected["image"]


OPTIONS = [
    Options(*values)
    for values in itertools.product(
        (1, 8, 64),
        (0.0, 0.01),
        (1, 1000),
        (0.001, 30.0),
        (1, 3),
        ("auto", "gpu", "cpu"),
        ("none", "tensorrt", "openvino"),
        ("float32", "float16"),
        (None, 4),
        (False, True),
    )
]


def fits(options: Options) -> bool:
    """The combinations that make sense; the others are refused."""
    gpu_only = options.accelerator == "tensorrt" and options.kind == "cpu"
    cpu_only = options.accelerator == "openvino" and options.kind != "cpu"
    return not (
        gpu_only
        or cpu_only
        or (options.precision != "float32" and options.accelerator != "tensorrt")
    )


def test_every_combination_of_options_parses_by_tritons_schema(graphs, tmp_path):
    from onnxplain.serve.packages.prototext import prototext
    from onnxplain.serve.packages.triton import model_config

    signature = open_backend(graphs["tiny"], "cpu").signature
    written = 0
    for options in OPTIONS:
        if not fits(options):
            with pytest.raises(InputError):
                model_config(signature, "tiny", options)
            continue
        text = prototext(model_config(signature, "tiny", options))
        config = text_format.Parse(text, pb.ModelConfig())
        written += 1
        assert config.max_batch_size == options.batch
        (group,) = config.instance_group
        assert group.count == options.instances
        assert pb.ModelInstanceGroup.Kind.Name(group.kind) == f"KIND_{options.kind}".upper()
        assert config.optimization.cuda.graphs == options.cuda_graphs
        accelerators = config.optimization.execution_accelerators
        gpu, cpu = accelerators.gpu_execution_accelerator, accelerators.cpu_execution_accelerator
        assert [one.name for one in [*gpu, *cpu]] == [options.accelerator] * (
            options.accelerator != "none"
        )
        if options.accelerator == "tensorrt":
            assert gpu[0].parameters["precision_mode"] == (
                "FP16" if options.precision == "float16" else "FP32"
            )
        delay = config.dynamic_batching.max_queue_delay_microseconds
        assert delay == round(1e6 * options.delay)
        if options.threads:
            assert config.parameters["intra_op_thread_count"].string_value == "4"
    assert written > len(OPTIONS) / 4


def test_an_engine_is_a_plan_within_its_profile(graphs, tmp_path):
    engine = engine_file(graphs["tiny"], tmp_path / "tiny.engine")
    folder = write_repository(engine, tmp_path / "models", "tiny", Options(batch=64))
    assert (folder / "1" / "model.plan").read_bytes() == b"ftrt, so to speak"
    config = parsed(folder)
    assert config.backend == "tensorrt"
    assert config.max_batch_size == 16
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 16]
    assert [warm.batch_size for warm in config.model_warmup] == [1, 16]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"provider": "tensorrt-rtx"}, "tensorrt-rtx"),
        ({"profile": {"image": ((2, 3, 6, 8),) * 3}}, "2 images at least"),
    ],
)
def test_an_engine_that_triton_cannot_run_is_refused(graphs, tmp_path, changed, words):
    engine = engine_file(graphs["tiny"], tmp_path / "tiny.engine", **changed)
    with pytest.raises(BackendError, match=words):
        write_repository(engine, tmp_path / "models", "tiny", Options())
    assert not (tmp_path / "models" / "tiny").exists()


def test_scalar_inputs_are_refused_since_triton_has_none(graphs, tmp_path):
    with pytest.raises(BackendError, match="live_temperature=True"):
        write_repository(graphs["live"], tmp_path, "live", Options())


@pytest.mark.parametrize("several", [False, True])
def test_an_estimators_images_are_refused(graphs, tmp_path, several):
    """By the service too: a request has one image alone."""
    made = onnx.load(graphs["tiny"])
    own = {"name": "expected-gradients", "inputs": {"given": {"meaning": "m", "several": several}}}
    made.metadata_props.add(key="onnxplain.estimator", value=json.dumps(own))
    batch = made.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    given = onnx.helper.make_tensor_value_info("given", onnx.TensorProto.FLOAT, [batch, 3, 6, 8])
    made.graph.input.append(given)
    path = tmp_path / "estimated.onnx"
    onnx.save(made, path)
    with pytest.raises(BackendError, match="one image alone, not the estimator's 'given'"):
        write_repository(path, tmp_path / "models", "tiny", Options())
    with pytest.raises(BackendError, match="its estimator takes 'given', and a request gives one"):
        Service(Settings({"tiny": path}))


def test_a_model_that_is_there_already_is_not_overwritten(graphs, tmp_path):
    write_repository(graphs["tiny"], tmp_path, "tiny", Options())
    with pytest.raises(InputError, match="there already"):
        write_repository(graphs["multi"], tmp_path, "tiny", Options())
    write_repository(graphs["multi"], tmp_path, "multi", Options())
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "multi"}


def test_a_graph_without_names_has_no_labels(tmp_path):
    onnx.save(explain_graph(labels=()), tmp_path / "bare.explain.onnx")
    folder = write_repository(tmp_path / "bare.explain.onnx", tmp_path / "m", "bare", Options())
    assert not (folder / "labels.txt").exists()
    assert parsed(folder).output[0].label_filename == ""


def test_names_are_what_kubernetes_takes():
    assert model_name(Path("ResNet_50.explain.onnx"), None) == "resnet-50"
    assert model_name(Path("x"), "vit-b-16") == "vit-b-16"
    for wrong in ("Caps", "a_b", "-a", "a/b", "", "a" * 64):
        with pytest.raises(InputError, match="name="):
            model_name(Path("x"), wrong)


def test_an_inference_service_runs_our_container(tmp_path):
    with_image("tiny", 'registry.example/tiny:1"', tmp_path / "service.yaml")
    service = yaml.safe_load((tmp_path / "service.yaml").read_text())
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["kind"] == "InferenceService"
    assert service["metadata"]["name"] == "tiny"
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["name"] == "kserve-container"
    assert container["image"] == 'registry.example/tiny:1"'
    port = container["ports"][0]["containerPort"]
    assert container["args"] == ["--port", str(port)]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": port}
    assert container["securityContext"]["runAsNonRoot"] is True
    limits = Limits()  # what SIGTERM waits for at most
    grace = service["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert grace > limits.seconds + limits.read_seconds + 10


def test_an_inference_service_has_triton_serve_a_repository(tmp_path):
    with_triton("tiny", "s3://bucket/models", tmp_path / "service.yaml", gpus=1)
    model = yaml.safe_load((tmp_path / "service.yaml").read_text())["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "triton", "version": "2"}
    assert model["protocolVersion"] == "v2"
    assert model["storageUri"] == "s3://bucket/models"
    assert model["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_container_installs_what_the_project_declares_for_serving():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    plain = [entry.partition(";")[0].strip() for entry in declared]
    assert set(REQUIREMENTS) == {
        entry for entry in plain if not entry.startswith("onnxruntime-gpu")
    }


def test_the_container_is_small_and_not_roots(graphs, tmp_path):
    write_context(graphs["tiny"], tmp_path / "image", "tiny")
    lines = (tmp_path / "image" / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == [
        "FROM python:3.12-slim AS packages",
        "FROM python:3.12-slim",
    ]
    (user,) = [line for line in lines if line.startswith("USER")]
    assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", user)
    copied = [line.split()[-2] for line in lines if re.match(r"COPY \w", line)]
    assert all((tmp_path / "image" / name).exists() for name in copied)
    package = tmp_path / "image" / "app" / "onnxplain"
    assert {path.name for path in package.iterdir() if path.is_dir()} == {
        "cli",
        "contract",
        "runtime",
        "serve",
        "signal",
        "vital",
    }
    assert sum(path.stat().st_size for path in package.rglob("*")) < 2_000_000
    assert not list(package.rglob("__pycache__"))


def test_a_files_name_is_no_line_of_the_dockerfile(graphs, tmp_path):
    model = tmp_path / '"]\nRUN touch evil\n#.onnx'
    shutil.copy(graphs["tiny"], model)
    write_context(model, tmp_path / "image", "tiny")
    lines = (tmp_path / "image" / "Dockerfile").read_text().splitlines()
    assert not any(line.startswith("RUN touch") for line in lines)
    (command,) = [json.loads(line[11:]) for line in lines if line.startswith("ENTRYPOINT ")]
    assert f"tiny=/models/{model.name}" in command


def test_the_container_has_all_that_its_command_imports(graphs, tmp_path):
    write_context(graphs["tiny"], tmp_path / "image", "tiny")
    installed = [folder for folder in sys.path if folder.endswith("site-packages")]
    only = os.pathsep.join([str(tmp_path / "image" / "app"), *installed])
    program = "import onnxplain.cli, onnxplain.serve.server as s; print(s.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],  # -S: nothing of this checkout by a .pth file
        env={"PYTHONPATH": only},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "image"))


def package(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["package", *map(str, arguments)])


def test_the_command_writes_all_three(graphs, tmp_path):
    done = package(
        graphs["tiny"],
        *("--triton", tmp_path / "models", "--oci", tmp_path / "image", "--name", "mine"),
        *("--kserve", tmp_path / "service.yaml", "--image", "registry.example/mine"),
    )
    assert done.exit_code == 0, done.output
    assert parsed(tmp_path / "models" / "mine").name == "mine"
    assert (tmp_path / "image" / "Dockerfile").is_file()
    assert (tmp_path / "service.yaml").is_file()
    assert "tritonserver --model-repository" in done.output


@pytest.mark.parametrize(("kind", "gpus"), [("cpu", "0"), ("gpu", "1"), ("auto", "1")])
def test_what_runs_on_processors_asks_for_no_gpu(graphs, tmp_path, kind, gpus):
    path = tmp_path / "service.yaml"
    done = package(
        *(graphs["tiny"], "--kserve", path, "--storage-uri", "s3://b/models", "--kind", kind)
    )
    assert done.exit_code == 0, done.output
    limits = yaml.safe_load(path.read_text())["spec"]["predictor"]["model"]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == gpus


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 4, "--triton DIR"),
        (["--kserve", "x.yaml"], 4, "--image"),
        (["--triton", "x", "--kind", "tpu"], 4, "--kind"),
        (["--triton", "x", "--accelerator", "openvino"], 4, "--kind cpu"),
        (["--triton", "x", "--name", "A B"], 4, "--name"),
    ],
)
def test_the_command_says_what_is_missing(graphs, tmp_path, arguments, status, words):
    done = package(graphs["tiny"], *arguments)
    assert done.exit_code == status
    assert words in " ".join(done.output.split())


def test_an_objectives_ports_are_described(kinds, tmp_path):
    described = {
        name: parsed(write_repository(explainer.path, tmp_path, name, Options()))
        for name, explainer in kinds.items()
    }
    assert shapes(described["map"]) == {
        **{"image": [3, 16, 16], "target": [1], "region": [8, 8], "output": [4, 8, 8]},
        **{"explained_class": [1], "objective": [1], "pullback": [3, 16, 16]},
    }
    assert shapes(described["detector"]).items() >= {"box": [4], "explained_box": [4]}.items()
    vector = described["vector"]
    assert [port.name for port in vector.input] == ["image", "query"]
    assert shapes(vector)["query"] == [5]
    number = {port.name: port for port in [*described["number"].input, *described["number"].output]}
    assert number["direction"].HasField("reshape")
    assert number["objective"].HasField("reshape")
    assert number["direction"].data_type in (pb.TYPE_INT64, pb.TYPE_FP32)
