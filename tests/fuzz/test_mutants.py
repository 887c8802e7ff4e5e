"""Whatever a file holds ends in an explanation or in an error of onnxplain's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from .mutants import campaign, explain_graph, explained, exported, network


def test_some_networks(tmp_path: Path) -> None:
    ends = campaign(exported, network(), 0, lambda done: done < 10)
    assert ends.keys() <= {"explained", "refused"}


def test_some_explain_graphs(tmp_path: Path) -> None:
    ends = campaign(explained, explain_graph(tmp_path), 0, lambda done: done < 30)
    assert ends.keys() <= {"explained", "refused"}


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(4))
def test_many(seed: int, tmp_path: Path) -> None:
    """About five minutes."""
    of_networks = campaign(exported, network(), seed, lambda done: done < 500)
    of_graphs = campaign(explained, explain_graph(tmp_path), seed, lambda done: done < 1000)
    assert (of_networks + of_graphs).keys() <= {"explained", "refused"}
