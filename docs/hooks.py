"""What the site holds besides the pages of this folder: the project's own, and what code says.

mkdocs calls the functions whose names begin with `on_`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from onnxplain.cli import app
from onnxplain.contract.derivatives import DifferentiateOptions
from onnxplain.contract.estimator import Estimated
from onnxplain.contract.explain import AscentDefaults, Metadata, Preprocessing
from onnxplain.contract.objective import Explained
from onnxplain.contract.pixels import Pixels
from onnxplain.contract.request import ExportOptions
from onnxplain.contract.values import Values
from onnxplain.export.catalogue import as_markdown, catalogue
from onnxplain.options import declared
from onnxplain.vital.settings import Settings

ROOT = Path(__file__).parents[1]
OF_THE_PROJECT = {
    "index.md": "README.md",
    "security.md": "SECURITY.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages of the site → files at the top, whose links begin there."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of this folder."""
    made = {page: from_the_top((ROOT / name).read_text()) for page, name in OF_THE_PROJECT.items()}
    made["reference/commands.md"] = commands()
    made["reference/methods.md"] = methods()
    made["reference/metadata.md"] = metadata()
    for one in (ROOT / "examples/notebooks").glob("*.py"):
        made[f"notebooks/{one.stem}.md"] = notebook(one.read_text())
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links into the repository lead to where it is read; options stand where they are asked."""
    for kind in (ExportOptions, DifferentiateOptions, Settings):
        markdown = markdown.replace(f"<!-- {kind.__name__} -->", table(options(kind)))
    if "/" in page.file.src_uri:
        return markdown

    def elsewhere(link: re.Match[str]) -> str:
        path, anchor = link[1], link[2] or ""
        inside = {name: page for page, name in OF_THE_PROJECT.items()}
        if path in inside:
            return f"]({inside[path]}{anchor})"
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"]({config.repo_url}/{kind}/main/{path}{anchor})"

    return re.sub(r"\]\((?:\.\./)+(?!\.)([^)#\s]+)(#[^)\s]*)?\)", elsewhere, markdown)


def from_the_top(text: str) -> str:
    """A page of the repository's top as one of this folder."""
    text = re.sub(r"\]\((?![a-z]+:|#|docs/)([^)\s]+)\)", r"](../\1)", text)
    return text.replace("](docs/", "](")


def notebook(text: str) -> str:
    """A notebook in jupytext's percent format: its prose, and its code in fences."""
    parts = []
    for cell in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        kind, _, body = cell.partition("\n")
        if "[markdown]" in kind:
            parts.append(re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip())
        else:
            parts.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(parts)


def methods() -> str:
    return "# Methods, rules, estimators, objectives\n\nWhat `onnxplain methods` lists.\n\n" + (
        as_markdown(catalogue())
    )


def metadata() -> str:
    """The entries of a file, from the classes that write and read them."""
    parts = [
        "# A file's metadata",
        "Each entry of `metadata_props` is called `onnxplain.` and the name below; what is no "
        "string is JSON. An entry may be missing where it has a default. "
        "[The file](../format.md) says more.",
    ]
    for kind in (Metadata, Preprocessing, Explained, Values, Estimated, Pixels, AscentDefaults):
        about = re.split(r"\n\s*Attributes:", kind.__doc__ or "")[0]
        parts += [f"## {kind.__name__}", unindented(about), table(fields(kind))]
    return "\n\n".join(parts)


def fields(kind: Any) -> Iterator[list[str]]:
    yield ["entry", "type", "default"]
    for one in dataclasses.fields(kind):
        default = "" if one.default is dataclasses.MISSING else repr(one.default)
        if one.default_factory is not dataclasses.MISSING:
            default = "empty"
        yield [f"`{one.name}`", f"`{one.type}`", f"`{default}`" if default else "required"]


def options(kind: Any) -> Iterator[list[str]]:
    """What a function takes as keywords, as its fields declare it."""
    yield ["keyword", "", "default"]
    said = declared(kind)
    for one in dataclasses.fields(kind):
        if one.name in said and one.name != "progress":
            default = said[one.name].unset or repr(one.default)
            yield [f"`{one.name}`", plain(said[one.name].help), default]


def commands() -> str:
    """The command line, from the application itself."""
    about = "What `--help` says. [Start](../start.md#exit-status) lists the exit statuses."
    return "\n\n".join(["# Command line", about, *described(typer.main.get_command(app))])


def described(command: Any, name: str = "onnxplain", level: int = 1) -> Iterator[str]:
    """A command, and those below it."""
    if level > 1:
        yield f"{'#' * level} {name}"
    yield prose(command.help or "")
    rows = [row for row in map(parameter, command.params) if row]
    if rows:
        yield table([["", "", "default"], *rows])
    for key, one in getattr(command, "commands", {}).items():
        if not one.hidden:
            yield from described(one, f"{name} {key}", level + 1)


def parameter(one: Any) -> list[str]:
    """Of an option or an argument: its names, what it says, its default."""
    if one.name == "help" or getattr(one, "hidden", False):
        return []
    names = one.opts + one.secondary_opts if one.param_type_name == "option" else [one.name.upper()]
    shown = getattr(one, "show_default", True)
    default = shown if isinstance(shown, str) else one.default if shown else None
    if callable(default) or default in (None, False, ()):
        default = "required" if one.required else ""
    return [", ".join(f"`{n}`" for n in names), plain(getattr(one, "help", "") or ""), f"{default}"]


def prose(text: str) -> str:
    """Help as Markdown: what is to be kept line by line, behind a \\b, is code."""
    parts = []
    for part in unindented(text).split("\n\n"):
        if part.startswith("\b"):
            parts.append("```bash\n" + unindented(part.removeprefix("\b").strip("\n")) + "\n```")
        else:
            parts.append(plain(part))
    return "\n\n".join(parts)


def plain(text: str) -> str:
    """Without rich's markup, and safe within a table."""
    text = re.sub(r"\[/?(?:bold|italic|dim)?\]", "", text)
    return re.sub(r"<(?=\w)", "&lt;", text)


def unindented(text: str) -> str:
    first, _, rest = text.strip("\n").partition("\n")
    lines = rest.split("\n")
    margin = min((len(s) - len(s.lstrip()) for s in lines if s.strip()), default=0)
    return "\n".join([first.strip(), *(line[margin:] for line in lines)]).rstrip()


def table(rows: Any) -> str:
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    cells = [[re.sub(r"\s*\n\s*", " ", cell).replace("|", "\\|") for cell in row] for row in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
