"""A plan is settled once; a run that resumes must mean the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxplain.batch.commit import Folder
from onnxplain.batch.listing import Item
from onnxplain.batch.plan import Listing, Plan, Recipe, read_plan, settle
from onnxplain.errors import InputError

ITEMS = [Item(f"lake/{i}.jpg", f"/lake/{i}.jpg", 0, 10 + i, 10 + i, 1000 + i) for i in range(13)]


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "out")
    with folder.held():
        return folder


@pytest.fixture
def begun(folder, recipe):
    """A folder with one shard done."""
    settle(folder, recipe, ITEMS)
    folder.part(0).write_bytes(b"content")
    folder.commit(0, rows=5, errors=0)
    return folder


@given(st.integers(1, 2000), st.integers(1, 300))
def test_the_shards_have_every_image_once(images, shard_size):
    recipe = Recipe("", "cpu", "float32", None, -1, 5, "pullback", None, shard_size, None)
    plan = Plan(recipe, images, "")
    rows = [plan.rows(shard) for shard in range(plan.shards)]
    assert sum(rows) == images
    assert set(rows[:-1]) <= {shard_size}
    assert 1 <= rows[-1] <= shard_size


def test_a_shard_is_a_range_of_the_listing(folder, recipe):
    plan = settle(folder, recipe, ITEMS)
    listing = Listing(folder.listing)
    assert (plan.images, plan.shards) == (13, 3)
    assert [listing.shard(k) for k in range(3)] == [ITEMS[:5], ITEMS[5:10], ITEMS[10:]]
    assert read_plan(folder) == plan


def test_the_same_again_is_the_same_plan(begun, recipe):
    assert settle(begun, recipe, iter(ITEMS)) == read_plan(begun)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"top": 7}, "top 2, not 7"),
        ({"target": "cat", "store": "heatmap"}, "target -1, not 'cat', store 'pullback', not"),
        ({"shard_size": 6}, "shard_size 5, not 6"),
        ({"model": "0" * 64}, "another model file"),
        ({"onnxplain": "99"}, "onnxplain "),
    ],
)
def test_other_options_than_it_was_begun_with_are_refused(begun, recipe, changed, said):
    with pytest.raises(InputError, match=f"was begun with .*{said}"):
        settle(begun, replace(recipe, **changed), ITEMS)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([*ITEMS, Item("lake/new.jpg", "/lake/new.jpg", 0, 1, 1, 1)], r"'lake/new\.jpg' is new"),
        (ITEMS[:-1], r"'lake/12\.jpg' is no longer there"),
        (ITEMS[:4] + ITEMS[5:], r"'lake/5\.jpg' is not 'lake/4\.jpg'"),
        ([ITEMS[0]._replace(modified=7), *ITEMS[1:]], r"'lake/0\.jpg' has changed"),
        ([ITEMS[1], ITEMS[0], *ITEMS[2:]], r"'lake/1\.jpg' is not 'lake/0\.jpg'"),
    ],
)
def test_other_images_than_it_was_begun_with_are_refused(begun, recipe, items, said):
    with pytest.raises(InputError, match=said):
        settle(begun, recipe, items)


def test_a_plan_that_nothing_followed_yet_is_replaced(folder, recipe):
    settle(folder, recipe, ITEMS)
    plan = settle(folder, replace(recipe, top=9), ITEMS[:3])
    assert read_plan(folder) == plan
    assert (plan.recipe.top, plan.images) == (9, 3)


def test_what_a_plan_left_without_a_record_does_not_stay_for_the_next(folder, recipe):
    plan = settle(folder, recipe, ITEMS)
    folder.part(plan.shards - 1).write_bytes(b"killed before its record")
    settle(folder, recipe, ITEMS[:3])
    assert list(folder.table.iterdir()) == []


def test_an_unreadable_plan_is_an_error(begun, recipe):
    begun.plan.write_text("{")
    with pytest.raises(InputError, match="plan cannot be read"):
        settle(begun, recipe, ITEMS)
