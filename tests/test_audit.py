"""The locked dependencies are those required, and an audit that did not happen is not clean."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType, SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()


def required() -> Iterator[Requirement]:
    """By the project and its extras, but for its own packages."""
    project = PROJECT["project"]
    extras = (line for lines in project["optional-dependencies"].values() for line in lines)
    for line in (*project["dependencies"], *extras):
        requirement = Requirement(line)
        if not requirement.name.startswith("onnxplain"):
            yield requirement


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    loader = SourceFileLoader("audit", str(ROOT / ".ci/audit"))
    spec = spec_from_loader("audit", loader)
    assert spec is not None
    loader.exec_module(module := module_from_spec(spec))
    return module


class TestLock:
    def test_every_requirement_is_met_by_what_is_locked(self, audit: ModuleType) -> None:
        locked: dict[str, list[str]] = {}
        for release in audit.pinned(LOCK):
            name, _, version = release.partition("==")
            locked.setdefault(canonicalize_name(name), []).append(version)
        for requirement in required():
            versions = locked.get(canonicalize_name(requirement.name), [])
            assert any(map(requirement.specifier.contains, versions)), (str(requirement), versions)

    def test_nothing_is_locked_for_the_project_that_it_does_not_require(self) -> None:
        entries = re.findall(r"^([\w.-]+)==.*\n((?: +#.*\n)+)", LOCK, re.MULTILINE)
        direct = {name for name, causes in entries if "onnxplain (pyproject.toml)" in causes}
        names = {canonicalize_name(requirement.name) for requirement in required()}
        assert direct == names

    def test_it_says_releases_alone(self, audit: ModuleType) -> None:
        lines = [line for line in LOCK.splitlines() if not line.lstrip().startswith("#")]
        assert {line.partition(" ;")[0] for line in lines if line} == {*audit.pinned(LOCK)}
        assert "://" not in LOCK


class TestAudit:
    HOLED = "jinja2==2.11.2"

    def status(self, audit: ModuleType, *answers: dict[str, list[str] | None]) -> int:
        """Where the services know these, of two releases: a 1 and b 2."""
        known = dict(zip(audit.SERVICES, answers, strict=False))
        accepted = {"CVE-1": "a.f is not called"}
        status: int = audit.audited(
            ["a==1", "b==2"],
            accepted,
            lambda service, asked: {x: y for x, y in known.get(service, {}).items() if x in asked},
        )
        return status

    def test_clean(self, audit: ModuleType) -> None:
        known: dict[str, list[str] | None] = {self.HOLED: ["X"], "a==1": ["CVE-1"], "b==2": []}
        assert self.status(audit, known) == audit.CLEAN
        assert self.status(audit, {}, known) == audit.CLEAN

    def test_a_hole(self, audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
        found: dict[str, list[str] | None] = {self.HOLED: ["X"]}
        found |= {"a==1": ["CVE-1"], "b==2": ["CVE-2"]}
        assert self.status(audit, found) == audit.HOLES
        said = capsys.readouterr().out
        assert "a==1: CVE-1 (accepted: a.f is not called)" in said
        assert "b==2: CVE-2\n" in said

    def test_a_service_that_knows_of_no_hole_is_not_one(
        self, audit: ModuleType, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A mirror of packages answers that, and pip-audit then says that all is well."""
        assert self.status(audit, {self.HOLED: [], "a==1": [], "b==2": []}) == audit.NOT_AUDITED
        assert self.status(audit, {self.HOLED: None}, {}) == audit.NOT_AUDITED
        assert "no vulnerability service reachable: not audited" in capsys.readouterr().out

    def test_a_release_that_the_service_does_not_know(self, audit: ModuleType) -> None:
        assert self.status(audit, {self.HOLED: ["X"], "a==1": []}) == audit.NOT_AUDITED

    @pytest.mark.parametrize(
        ("install", "ruff", "expected"), [(1, 1, 3), (0, 1, 1), (0, 2, 3), (0, 0, 0)]
    )
    def test_a_tool_that_does_not_run_finds_no_hole(
        self,
        audit: ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        install: int,
        ruff: int,
        expected: int,
    ) -> None:
        """Python's own exit status is 1 where a module is not installed, and so is pip's."""

        def run(command: list[object], check: bool = False, **_: object) -> CompletedProcess[str]:
            done: CompletedProcess[str] = CompletedProcess(
                command, install if "pip" in command else ruff
            )
            if check:
                done.check_returncode()
            return done

        monkeypatch.setattr(audit.venv, "create", lambda *_, **__: None)
        monkeypatch.setattr(audit, "subprocess", SimpleNamespace(run=run))
        monkeypatch.setattr(audit, "audited", lambda *_: audit.CLEAN)
        assert audit.main() == expected

    def test_two_releases_of_one_name_are_asked_apart(self, audit: ModuleType) -> None:
        parts = [*audit.one_of_a_name(["a==1", "a==2", "b==2"])]
        assert sorted(release for part in parts for release in part) == ["a==1", "a==2", "b==2"]
        assert all(len({r.partition("==")[0] for r in part}) == len(part) for part in parts)
