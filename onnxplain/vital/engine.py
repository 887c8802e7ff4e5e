"""Which provider runs the graphs of a visualisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onnxplain.contract.precision import precision_named
from onnxplain.runtime.sessions import PROVIDERS, Session, check_provider, open_session


@dataclass(frozen=True)
class Engine:
    """What runs the graphs, as for `onnxplain.runtime.sessions.open_session`.

    In "float32" a provider computes as exactly as it can: ort-tensorrt in TF32.
    """

    provider: str
    threads: int | None
    precision: str

    def checked(self) -> Engine:
        """The same, the precision by its own name.

        Raises:
            BackendError: there is no such provider, or no such precision.
        """
        check_provider(self.provider)
        return replace(self, precision=precision_named(self.precision))

    def open(self, path: Path, sizes: Mapping[str, int]) -> Session:
        precision = None if self.precision == "float32" else self.precision
        return open_session(path, self.provider, self.threads, precision, sizes)

    def fastest(self) -> Engine | None:
        """What "auto" should try before `open_session`'s own choice, provided that both agree."""
        here = [name for name in ("cuda", "openvino") if PROVIDERS[name].missing() is None]
        auto = self.provider == "auto" and here[:1] == ["openvino"]
        return replace(self, provider="openvino") if auto else None

    def going_on(self, provider: str) -> Engine:
        """What resumes an optimisation begun by `provider`: "auto" is that again, if it is here."""
        known = self.provider == "auto" and provider in PROVIDERS
        here = known and PROVIDERS[provider].missing() is None
        return replace(self, provider=provider) if here else self
