"""Which operators ONNX Runtime's CUDA provider has kernels for: a node of each, placed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from onnxplain.export.check import Case
from onnxplain.export.operators import OPERATORS
from onnxplain.export.subgraphs import CONTROL_FLOW
from onnxplain.runtime.fake_cuda.ask import Claims, claims

from ..export.vjps.test_table import KINDS

pytestmark = pytest.mark.xdist_group("claims")

X = np.zeros([2, 3, 4, 4])

ONE = (
    "ArgMax ArgMin Ceil Celu EyeLike Floor Hardmax IsInf IsNaN MeanVarianceNormalization Not Round "
    "Sign Unique"
)
TWO = "And Equal Greater GreaterOrEqual Less LessOrEqual Or Xor"
WITHOUT_CASES = {
    **{name: Case(name, [X[0, 0] if name == "EyeLike" else X]) for name in ONE.split()},
    **{name: Case(name, [X, X], active=(0, 1)) for name in TWO.split()},
    "DequantizeLinear": Case("DequantizeLinear", [X, np.array(1.0, np.float32)]),
    "MaxRoiPool": Case("MaxRoiPool", [X, np.zeros([1, 5])], {"pooled_shape": [2, 2]}),
    "OneHot": Case("OneHot", [X, np.array(3), np.array([0, 1])]),
    "QuantizeLinear": Case("QuantizeLinear", [X, np.array(1.0)]),
    "Range": Case("Range", [np.zeros([])] * 3, active=(0, 1, 2), dynamic=()),
}
"""Of the rows that no test of rules draws calls of."""

OTHER_TYPES = {
    **dict.fromkeys(["And", "Not", "Or", "Xor"], ir.DataType.BOOL),
    "DequantizeLinear": ir.DataType.UINT8,
    "OneHot": ir.DataType.INT64,
}
"""What these read, where others read float32."""


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    """The simplest call of each standard operator, of those that the tests of rules draw."""
    drawn = [getattr(kind, "CASES", {}) for kind in KINDS]
    found = dict(WITHOUT_CASES)

    @settings(
        max_examples=1,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.fixed_dictionaries({name: case for part in drawn for name, case in part.items()}))
    def draw(calls: dict[str, Case]) -> None:
        found.update({name: call for name, call in calls.items() if call.opset == 20})

    draw()
    return {name: case for name, case in found.items() if name in OPERATORS and "::" not in name}


def test_the_table_says_what_the_provider_has_no_kernel_for(
    environment: dict[str, str], tmp_path: Path, cases: dict[str, Case]
) -> None:
    missing = {name for name in OPERATORS if "::" not in name} - {*cases}
    # Swish is of a later opset; of control flow, the operators of its bodies are what is claimed.
    assert missing <= {"Swish", *CONTROL_FLOW}
    graphs = []
    for name, case in cases.items():
        path = tmp_path / f"{name}.onnx"
        ir.save(case.forward_model(OTHER_TYPES.get(name, ir.DataType.FLOAT)), path)
        graphs.append((path, "float32"))
    leaves = set()
    for name, claim in zip(cases, claims(graphs, environment), strict=True):
        assert isinstance(claim, Claims), claim
        if claim.on_processor:
            leaves.add(name)
    assert leaves == {name for name, row in OPERATORS.items() if not row.on_cuda}
