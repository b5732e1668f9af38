"""Rows of tokens as tensors: the common prefix, masks, and the places that predict the response."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adjudge.models.engine.batch import build_batch, common_prefix

ROWS = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=5)
PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5)


@given(ROWS)
def test_the_common_prefix_is_the_longest_that_leaves_a_token_of_each_row(rows: list[list[int]]) -> None:
    shortest = min(map(len, rows))
    fits = [size for size in range(shortest) if all(row[:size] == rows[0][:size] for row in rows)]
    assert common_prefix(rows) == max(fits, default=0)


@given(PROMPTS, st.data(), st.booleans(), st.sampled_from(["left", "right"]), st.integers(0, 2))
def test_every_token_is_found_again(prompts, data, share: bool, side: str, pad_id: int) -> None:
    """Whatever the padding token is, a real one or not, lengths alone say what is real."""
    responses = [data.draw(st.lists(st.integers(0, 2), max_size=4)) for _ in prompts]
    batch = build_batch(prompts, responses, share_prefix=share, side=side, pad_id=pad_id)
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
        fed = [*prompt, *response]
        for place, answer in enumerate(batch.answer_BR[row][: max(1, len(response))].tolist()):
            assert mask[answer]
            position = batch.position_BT[row, answer].item()
            assert position == len(prompt) + place - 1  # the token before the one that is predicted
            assert batch.ids_BT[row, answer] == fed[position]


@pytest.mark.parametrize(
    ("side", "expected"),
    [("left", [[False, False, True], [True, True, True]]), ("right", [[True, False, False], [True] * 3])],
)
def test_masks_come_from_lengths(side: str, expected: list[list[bool]]) -> None:
    batch = build_batch([[9, 5], [9, 6, 5, 5]], [[], []], side=side, pad_id=5)
    assert batch.prefix_C.tolist() == [9]
    assert batch.mask_BT.tolist() == expected
    assert batch.response_mask_BR.tolist() == [[False], [False]]


def test_a_padding_token_that_is_real_elsewhere_changes_no_real_entry() -> None:
    prompts, responses = [[1, 2], [1, 3, 2, 2]], [[2, 2, 2], [2]]
    one, other = build_batch(prompts, responses, pad_id=0), build_batch(prompts, responses, pad_id=2)
    for name in ("mask_BT", "position_BT", "answer_BR", "response_mask_BR", "prefix_C"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert torch.equal(one.ids_BT[one.mask_BT], other.ids_BT[other.mask_BT])
    assert one.response_mask_BR.tolist() == [[True, True, True], [True, False, False]]


def test_prompts_and_responses_must_be_as_many() -> None:
    with pytest.raises(ValueError):
        build_batch([[1, 2], [1, 3]], [[1]])
