"""Rows of tokens as tensors: the common prefix, the masks, and the columns that predict the response."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adjudge.models.engine.batch import Branches, branch, build_batch, common_prefix, with_branches

# Token 0 pads a batch and is a real token in these rows too.
ROWS = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=5)
PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5)


@given(ROWS)
def test_common_prefix_is_the_longest_that_leaves_a_token_of_each_row(rows: list[list[int]]) -> None:
    shortest = min(map(len, rows))
    fits = [size for size in range(shortest) if all(row[:size] == rows[0][:size] for row in rows)]
    assert common_prefix(rows) == max(fits, default=0)


@given(PROMPTS, st.data(), st.booleans(), st.sampled_from(["left", "right"]))
def test_batch_holds_every_token(prompts, data, share: bool, side: str) -> None:
    """Lengths alone say which entries are real, since the padding token may be a real one."""
    responses = [data.draw(st.lists(st.integers(0, 2), max_size=4)) for _ in prompts]
    batch = build_batch(prompts, responses, share_prefix=share, side=side)
    prefix = batch.prefix_C.tolist()
    assert len(prefix) == (common_prefix(prompts) if share else 0)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        mask = batch.mask_BT[row]
        assert prefix + batch.ids_BT[row][mask].tolist() == prompt + response[:-1]
        assert batch.position_BT[row][mask].tolist() == list(
            range(len(prefix), len(prompt) + max(0, len(response) - 1))
        )
        assert batch.attention_mask[row].tolist() == [True] * len(prefix) + mask.tolist()
        assert batch.response_BR[row][batch.response_mask_BR[row]].tolist() == response
        tokens = [*prompt, *response]
        for index, column in enumerate(batch.answer_BR[row][: max(1, len(response))].tolist()):
            assert mask[column]
            position = batch.position_BT[row, column].item()
            assert position == len(prompt) + index - 1  # the token before the predicted one
            assert batch.ids_BT[row, column] == tokens[position]


@pytest.mark.parametrize(
    ("side", "expected"),
    [("left", [[False, False, True], [True, True, True]]), ("right", [[True, False, False], [True] * 3])],
)
def test_masks_come_from_lengths(side: str, expected: list[list[bool]]) -> None:
    batch = build_batch([[9, 0], [9, 6, 0, 0]], [[], []], side=side)
    assert batch.prefix_C.tolist() == [9]
    assert batch.mask_BT.tolist() == expected
    assert batch.response_mask_BR.tolist() == [[False], [False]]


def test_padding_token_that_occurs_in_rows_changes_no_real_entry() -> None:
    batch, other = (
        build_batch([[1, token], [1, 3, token, token]], [[token, token, token], [token]], side="left")
        for token in (0, 2)
    )
    for name in ("mask_BT", "position_BT", "answer_BR", "response_mask_BR", "prefix_C"):
        assert torch.equal(getattr(batch, name), getattr(other, name))
    real, expected = batch.ids_BT[batch.mask_BT], other.ids_BT[other.mask_BT]
    assert torch.equal(real.masked_fill(real == 0, 2), expected)
    assert batch.response_mask_BR.tolist() == [[True, True, True], [True, False, False]]


def test_prompts_and_responses_must_be_equally_many() -> None:
    with pytest.raises(ValueError):
        build_batch([[1, 2], [1, 3]], [[1]], side="left")


def test_a_beginning_that_answers_share_is_one_node() -> None:
    tree, places = branch([[4, 5, 6, 2], [4, 5, 2], [7, 2], [4, 8, 2], [9]])
    assert tree.ids == [4, 5, 6, 7, 8]
    assert tree.parents == [-1, 0, 1, -1, 0]
    assert places == {(): 0, (4,): 1, (4, 5): 2, (4, 5, 6): 3, (7,): 4, (4, 8): 5}
    assert branch([]) == (Branches([], []), {(): 0})


def test_nodes_see_the_prompt_and_what_is_before_them_in_the_tree() -> None:
    prompts, answers = [[1, 3, 3], [1, 4]], [[[5, 6, 2], [7, 2]], [[5, 2]]]
    trees = [branch(some)[0] for some in answers]
    batch = with_branches(build_batch(prompts, [[*tree.ids, 0] for tree in trees], side="right"), trees)
    assert batch.prefix_C.tolist() == [1]
    assert batch.ids_BT.tolist() == [[3, 3, 5, 6, 7], [4, 5, 0, 0, 0]]
    assert batch.position_BT[0].tolist() == [1, 2, 3, 4, 3]
    assert batch.position_BT[1, :2].tolist() == [1, 2]
    assert batch.sees_BTT is not None
    assert batch.sees_BTT[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert batch.sees_BTT[1, :2, :2].int().tolist() == [[1, 0], [1, 1]]
    row_M, _ = batch.response_mask_BR.nonzero(as_tuple=True)
    column_M = batch.answer_BR[batch.response_mask_BR]
    assert batch.ids_BT[row_M, column_M].tolist() == [3, 5, 6, 7, 4, 5], "each prompt's end, then its nodes"
