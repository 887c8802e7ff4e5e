"""ONNX's node tests as a suite of gradients: some of them here, all of them by hand."""

from __future__ import annotations

import random
from itertools import count

import numpy as np
import onnx
import pytest

from onnxplain.bench.node_tests.__main__ import DOCUMENT, page, read
from onnxplain.bench.node_tests.cases import NodeTest, node_tests
from onnxplain.bench.node_tests.judge import (
    CONSTANT,
    CRASH,
    REFUSED,
    RIGHT,
    UNDECIDED,
    WRONG,
    is_constant,
    judge,
)
from onnxplain.bench.node_tests.reasons import NO_DERIVATIVE, NO_NETWORK, UNDECIDABLE

SAMPLE = {
    "compress": ["compress_1"],
    "dequantizelinear": ["dequantizelinear", "dequantizelinear_axis", "dequantizelinear_blocked"],
    "deformconv": ["deform_conv_with_mask_bias", "deform_conv_with_multiple_offset_groups"],
    "det": ["det_2d", "det_nd"],
    "dft": ["dft_inverse_opset19", "dft_irfft"],
    "stft": ["stft_with_window"],
    "layernormalization": ["layer_normalization_2d_axis0"],
    "negativeloglikelihoodloss": ["nllloss_NCd1_weight_ii"],
    "flexattention": ["flexattention_relative_positional"],
    "rangeop": ["range_bfloat16_type_positive_delta_expanded"],
    "affinegrid": ["affine_grid_2d_align_corners_expanded"],
    "cumprod": ["cumprod_1d_reverse_exclusive"],
    "reversesequence": ["reversesequence_batch"],
    "gru": ["gru_defaults"],
    "lstm": ["lstm_with_peepholes"],
    "rnn": ["rnn_seq_length"],
    "scan": ["scan9_multi_state"],
    "rotaryembedding": ["rotary_embedding_interleaved"],
    "softmax_cross_entropy_loss": ["sce_none_weights_log_prob"],
    "tensorscatter": ["tensorscatter_circular"],
}
"""Module of the node tests → tests, of what no other test has: bodies and spellings."""


def test_a_sample_is_right() -> None:
    names = {f"test_{name}" for found in SAMPLE.values() for name in found}
    verdicts = {test.name: judge(test) for test in node_tests([*SAMPLE]) if test.name in names}
    assert verdicts.keys() == names
    assert [v for v in verdicts.values() if v.verdict != RIGHT] == []


DRAWN = {
    "batch_normalization": "BatchNormalization",
    "dropout": "Dropout",
    "gridsample": "GridSample",
    "momentum": "Momentum",
    "roialign": "RoiAlign",
    "scan": "Scan",
    "scatternd": "ScatterND",
    "topk": "TopK",
}
"""Module of the node tests → operator, of which the table has rows of several kinds."""


def test_rows_of_the_table_are_judged_as_it_says() -> None:
    """All that are refused, with the whole sentence, and some of those that are right."""
    rows = [row for row in read()[1] if row.operator in DRAWN.values()]
    right = [row for row in rows if row.verdict == RIGHT]
    drawn = {row.test: row for row in random.Random(0).sample(right, 8)}
    drawn |= {row.test: row for row in rows if row.verdict == REFUSED}
    found = {test.name: judge(test) for test in node_tests([*DRAWN]) if test.name in drawn}
    assert found == drawn


def test_a_result_whose_shape_follows_the_input_is_no_constant() -> None:
    xs, sizes = {"x": np.zeros(3)}, count()
    test = NodeTest("", "", onnx.ModelProto(), None, xs, {})
    assert is_constant(test, lambda _: {"y": np.zeros(2)})
    assert not is_constant(test, lambda _: {"y": np.zeros(next(sizes))})


def test_nothing_in_the_table_is_wrong_and_the_page_is_made_from_it() -> None:
    version, verdicts = read()
    assert [v for v in verdicts if v.verdict in (WRONG, CRASH)] == []
    assert DOCUMENT.read_text() == page(version, verdicts)


def test_whatever_is_not_right_has_its_reason() -> None:
    _, verdicts = read()
    refused = {v.operator for v in verdicts if v.verdict == REFUSED}
    assert refused == NO_NETWORK.keys()
    assert {v.operator for v in verdicts if v.verdict == CONSTANT} == NO_DERIVATIVE.keys()
    assert {v.operator for v in verdicts if v.verdict == UNDECIDED} == UNDECIDABLE.keys()


@pytest.mark.sweep
def test_every_node_test_is_as_the_table_says() -> None:
    version, verdicts = read()
    assert onnx.__version__ == version, "python -m onnxplain.bench.node_tests"
    assert list(map(judge, node_tests())) == verdicts
