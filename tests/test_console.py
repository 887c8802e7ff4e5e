"""What the command line prints, whatever stands in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from rich.console import Console

import onnxplain
from onnxplain.cli import app, console, progress
from onnxplain.cli.app import commands, guarded
from onnxplain.cli.progress import ImageBar
from onnxplain.cli.records import json_line
from onnxplain.cli.verify import table_of
from onnxplain.errors import InputError, SourceError
from onnxplain.reference.checks import Check, Verification

AWKWARD = "a [red]folder[/] :cat: [1/2] " + 30 * "with a long name " + ".png"


@pytest.mark.parametrize(
    ("speak", "stream"), [(console.say, 0), (console.note, 1), (console.complain, 1)]
)
def test_a_line_is_printed_as_it_is(capsys, speak, stream) -> None:
    speak(AWKWARD)
    printed = capsys.readouterr()
    assert printed[stream] == AWKWARD + "\n"
    assert printed[1 - stream] == ""


def test_a_size_counts_the_weights_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(bytes(1 << 20))
    (tmp_path / "a.onnx.data").write_bytes(bytes(1 << 19))
    assert console.file_size(tmp_path / "a.onnx") == "1.5 MiB"


def test_a_small_file_has_a_size_too(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(bytes(1536))
    assert console.file_size(tmp_path / "a.onnx") == "1.5 KiB"


def test_what_verify_found_fits_80_columns() -> None:
    found = Verification(
        "against PyTorch in float64",
        1,
        tuple(
            Check(what, 0.999999999, 1.23e-5, 1.2e-3, bound, False)
            for what, bound in (
                ("logits", "relative error ≤ 0.0001"),
                ("pullback, the file in float64", "cosine ≥ 0.999"),
                ("along the pullback", "median error ≤ 0.01"),
            )
        ),
    )
    console80 = Console(width=80)
    with console80.capture() as capture:
        console80.print(table_of("resnet50.explain.onnx", found))
    text = capture.get()
    assert "…" not in text
    for kept in ("1.20e-03", "1.23e-05", "0.999999999", "WRONG"):
        assert text.count(kept) == 3


def test_a_rate_is_of_the_images_since_the_first_report(monkeypatch) -> None:
    clock = iter([10.0, 12.0])
    monkeypatch.setattr("onnxplain.cli.progress.time.monotonic", lambda: next(clock))
    bar = ImageBar("ranking")
    bar.listed(100)
    bar.done(40, 100)
    assert bar.rate == 0
    bar.done(60, 100)
    assert bar.rate == 10


def test_no_help_text_is_taken_for_markup() -> None:
    """`[default: so much]` would be: what depends on other things belongs into `show_default`."""
    for command in commands(typer.main.get_command(app)):
        for parameter in command.params:
            assert "[default" not in (getattr(parameter, "help", None) or ""), parameter.name


def test_no_line_moves_the_cursor(capsys) -> None:
    console.say("a\x1b[2Jb\u202e")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\u202e\n"


def test_no_name_looks_like_a_line_of_its_own(capsys) -> None:
    @guarded
    def fail() -> None:
        raise InputError("no layer 'a\nnote: all is well'")

    console.note("layers: a\nnote: all is well")
    with pytest.raises(typer.Exit):
        fail()
    lines = capsys.readouterr().err.splitlines()
    assert lines[1::2] == ["  note: all is well", "  note: all is well'"]


def test_a_line_of_json_moves_no_cursor_either() -> None:
    assert json_line({"image": "猫.png"}) == '{"image": "猫.png"}\n'
    evil = {"image": "\x9b31m\u202e\udc80.png"}
    assert json_line(evil).isascii()
    assert json.loads(json_line(evil)) == evil


def test_a_title_is_no_markup() -> None:
    console80 = Console(width=80)
    with console80.capture() as capture:
        console80.print(table_of("a[/blue]\x1b[2J.onnx", Verification("itself", 1, ())))
    assert "a[/blue]\\x1b[2J.onnx" in capture.get()


def test_an_error_is_no_markup(capsys) -> None:
    @guarded
    def fail() -> None:
        raise InputError("no such file: a[/blue]\x1b[2J.png")

    with pytest.raises(typer.Exit):
        fail()
    assert "a[/blue]\\x1b[2J.png" in capsys.readouterr().err


def test_a_line_of_json_is_always_valid() -> None:
    record = {"targets": [{"probability": float("nan")}, {"probability": 0.5}], "n": float("inf")}
    valid = {"targets": [{"probability": None}, {"probability": 0.5}], "n": None}
    assert json.loads(json_line(record)) == valid


def test_a_bar_is_lines_where_no_terminal_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with progress.progress_bar() as bar:
        task = bar.add_task("explaining", total=3)
        bar.advance(task)
        bar.update(task, completed=2, description="drawing")
    with progress.ImageBar("ranking") as images:
        images.listed(7)
        images.done(4, 8)
    lines = ["explaining: 1 of 3", "drawing: 2 of 3", "listing: 7", "ranking: 4 of 8"]
    assert capsys.readouterr().err.split("\n") == [*lines, ""]
    monkeypatch.setattr(progress, "SECONDS", 1000.0)
    with progress.progress_bar() as bar:
        bar.advance(bar.add_task("quick", total=3))
    assert capsys.readouterr().err == ""


def test_the_notes_of_an_export_are_logged_and_returned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    metadata = onnxplain.export(network, tmp_path / "x.onnx", size=2)
    assert any("assumed ImageNet's mean" in note for note in metadata.notes)
    heard = [one.getMessage() for one in caplog.records if one.name == "onnxplain"]
    assert heard == [*metadata.notes]


def test_a_network_that_cannot_be_traced_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As torchvision's SSD: PyTorch prints the graph so far, in thousands of lines."""

    class ByData(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n = x.sum().to(torch.int64).item()
            return x.flatten(1)[:, :3] if n > 3 else x.flatten(1)[:, :2]

    with pytest.raises(SourceError, match="what an image shows decides how large"):
        onnxplain.export(ByData(), tmp_path / "x.onnx", size=4)
    assert capfd.readouterr() == ("", "")
