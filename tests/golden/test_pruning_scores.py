"""Scores of pruning against values computed by hand."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from adjudge.compress.groups import kinds_of
from adjudge.compress.importance import score_groups
from adjudge.compress.score import fluctuation, fused, keep_best, removed_per_layer, taylor_terms


def test_taylor_of_two_channels():
    # y = Σ d_c a_c with d = (1, 0.1), a = (1, 2), L = ½ y²: y = 1.2, dL/dd = y·a = (1.2, 2.4)
    weight, gradient = torch.tensor([1.0, 0.1]), torch.tensor([1.2, 2.4])
    torch.testing.assert_close(taylor_terms(weight, gradient), torch.tensor([1.2, 0.24]))
    torch.testing.assert_close(taylor_terms(weight, gradient, gradient**2), torch.tensor([0.48, 0.2112]))


def test_a_vector_cancels_and_its_elements_do_not():
    terms = taylor_terms(torch.tensor([[1.0, -1.0]]), torch.ones(1, 2))
    names = {"mlp.gate_proj": terms, "mlp.up_proj": torch.zeros(1, 2), "mlp.down_proj": torch.zeros(2, 1)}
    (mlp,) = kinds_of(tiny(intermediate_size=1), ["mlp"])
    assert mlp.fold(names, elementwise=False).item() == 0
    assert mlp.fold(names, elementwise=True).item() == 2


def test_a_group_sums_rows_of_inputs_and_columns_of_outputs():
    (mlp,) = kinds_of(tiny(intermediate_size=2), ["mlp"])
    gate, up, down = (
        torch.tensor([[1.0, 2], [3, 4]]),
        torch.tensor([[5.0, 6], [7, 8]]),
        torch.tensor([[1.0, 10], [2, 20]]),
    )
    scores = mlp.fold({"mlp.gate_proj": gate, "mlp.up_proj": up, "mlp.down_proj": down}, elementwise=True)
    assert scores.tolist() == [1 + 2 + 5 + 6 + 1 + 2, 3 + 4 + 7 + 8 + 10 + 20]


def test_query_heads_lie_beside_each_other_in_their_group():
    config = tiny(num_attention_heads=4, num_key_value_heads=2, hidden_size=8)  # heads of width 2
    (heads,) = kinds_of(config, ["heads"])
    assert heads.count == 2
    queries = torch.arange(8.0)[:, None].expand(8, 8) / 8  # row r sums to r
    zeros = torch.zeros(4, 8)
    terms = {"self_attn.q_proj": queries, "self_attn.k_proj": zeros, "self_attn.v_proj": zeros}
    terms["self_attn.o_proj"] = torch.zeros(8, 8)
    assert heads.fold(terms, elementwise=True).tolist() == [0 + 1 + 2 + 3, 4 + 5 + 6 + 7]


def test_fusion_divides_by_the_mean():
    torch.testing.assert_close(fused(torch.tensor([1.0, 3.0]), torch.tensor([10.0, 30.0])), torch.tensor([0.5, 1.5]))


def test_fluctuation_is_the_coefficient_of_variation():
    torch.testing.assert_close(fluctuation(torch.tensor([[1.0, 2.0], [3.0, 2.0]])), torch.tensor([0.5, 0.0]))


@pytest.mark.parametrize(
    ("fluctuation_N", "count", "ratio", "removed"),
    [
        ([1.0, 1.0, 1.0], 8, 0.25, [2, 2, 2]),
        ([1.0, 3.0], 8, 0.25, [1, 3]),
        ([1.0, 99.0], 8, 0.5, [1, 7]),  # the second cannot give 8: the first gives what is left
        ([0.0, 0.0], 4, 0.5, [2, 2]),
        ([1.0, 2.0], 4, 0.0, [0, 0]),
        ([5.0, 1.0], 1, 0.5, [0, 0]),  # the last group stays
        ([1.0, 1.0, 1.0, 1.0], 3, 0.25, [1, 1, 1, 0]),
    ],
)
def test_layers_lose_in_proportion_to_their_fluctuation(fluctuation_N, count, ratio, removed):
    assert removed_per_layer(torch.tensor(fluctuation_N), count, ratio) == removed


def test_equal_scores_keep_the_first():
    assert keep_best(torch.tensor([1.0, 3.0, 1.0, 2.0]), 3).tolist() == [0, 1, 3]


def test_scores_are_the_weights_times_the_gradients_of_the_loss(tiny_llama):
    """Against autograd of the whole model's loss, group by group: the derivative along the group's weights."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval().requires_grad_(False)
    rows = [[5, 6, 7, 8, 9], [10, 11, 12]]
    (mlp,) = kinds_of(model.config, ["mlp"])
    scores = score_groups(model, [mlp], rows, "taylor", elementwise=False)["mlp"].score_NG
    layer, channel, shift = model.model.layers[1].mlp, 5, 1e-2
    expected = 0.0
    for weight, index in (
        (layer.gate_proj.weight, (channel,)),
        (layer.up_proj.weight, (channel,)),
        (layer.down_proj.weight, (slice(None), channel)),
    ):
        losses = []
        for sign in (1, -1):
            before = weight[index].clone()
            weight[index] *= 1 + sign * shift
            losses.append(sum(float(model(input_ids=t, labels=t).loss) for t in (torch.tensor([r]) for r in rows)))
            weight[index] = before
        expected += abs(losses[0] - losses[1]) / (2 * shift)
    assert float(scores[1, channel]) == pytest.approx(expected, rel=0.02)


def tiny(**changes):
    return LlamaConfig(**({"hidden_size": 8, "num_attention_heads": 4, "num_key_value_heads": 4} | changes))
