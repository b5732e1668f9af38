"""Pairs of answers: which are made, what the reference says of them, and one pass over several answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from policies import trained_looking

from adjudge.config import DpoConfig, load_config
from adjudge.errors import DataError
from adjudge.methods.tdpo import sequential_kls
from adjudge.models.policy import Policy
from adjudge.rl.kl import full_kl
from adjudge.rl.preference import dpo
from adjudge.rollout import pairs as pairs_module
from adjudge.rollout.collect import Rollout
from adjudge.rollout.forward import token_figures
from adjudge.rollout.label_scoring import labels_of
from adjudge.rollout.pairs import Pairs, run_answers
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows
from adjudge.tasks import load_task
from adjudge.training.checkpoint import pack, unpack
from adjudge.training.preference import PairLoss, PairPass, learn_pairs, run_pairs
from adjudge.types import Example, Judgement

TEXTS = ("a warm, funny film", "dull", "a film that is slow and long and dull", "charming")
FAMILIES = ["tiny_llama", "tiny_qwen2", "tiny_mpt"]


@pytest.fixture(params=FAMILIES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return trained_looking(request.getfixturevalue(request.param))


@pytest.fixture
def llama(tiny_llama: Path) -> Policy:
    return trained_looking(tiny_llama)


def task_of(policy: Policy, name: str = "glue/mnli") -> PromptedTask:
    return PromptedTask(policy, load_task(name), load_config())


def rows_of(task: PromptedTask) -> list[PromptRow]:
    words, fields = task.spec.words, task.spec.fields
    return prompt_rows(
        task,
        [
            Example(f"t:{index}", dict.fromkeys(fields, text), words[index % len(words)])
            for index, text in enumerate(TEXTS)
        ],
    )


def built(kind: str, task: PromptedTask, rows: Sequence[PromptRow], **more: bool) -> Pairs:
    pairs = Pairs(kind, otherwise="x=y", **more)  # type: ignore[arg-type]
    pairs.build([task], [rows], torch.Generator().manual_seed(0))
    return pairs


def test_several_answers_have_the_probabilities_that_they_have_alone(policy: Policy) -> None:
    task = task_of(policy)
    rows = rows_of(task)
    some = [[5, 6, 7], [8], [5, 6, 9]]
    answers = [some, some[:1], some[1:], some]
    passed = run_answers(policy, [row.ids for row in rows], answers)
    for index, row in enumerate(rows):
        alone = token_figures(policy, [row.ids] * len(answers[index]), answers[index], 1.0).logp_BR.sum(1)
        torch.testing.assert_close(passed.logp_BA[index, : len(alone)], alone, atol=2e-4, rtol=1e-4)
    assert passed.logp_BA.shape == (4, 3)


def test_the_likeliest_wrong_label_is_the_rival(llama: Policy) -> None:
    task = task_of(llama)
    rows = rows_of(task)
    with llama.reference():
        expected = labels_of(task, rows, 1.0)
    for row, ref_logp_L, golden in zip(
        built("hardest", task, rows).of(0, task, rows), expected, (0, 1, 2, 0), strict=True
    ):
        assert row.gold == golden and len(row.answers) == 3
        wrong = ref_logp_L.clone()
        wrong[golden] = -torch.inf
        assert row.rejected == [(int(wrong.argmax()), 1.0)]
        torch.testing.assert_close(torch.tensor(row.ref_logp), ref_logp_L)


def test_every_wrong_label_is_a_rival(llama: Policy) -> None:
    task = task_of(llama)
    rows = rows_of(task)
    (first, *_) = built("all", task, rows).of(0, task, rows)
    assert first.rejected == [(1, 0.5), (2, 0.5)]
    (weighted, *_) = built("labels", task, rows).of(0, task, rows)
    assert weighted.rejected == [(label, pytest.approx(math.exp(weighted.ref_logp[label]))) for label in (1, 2)]


def let_be_right(monkeypatch: pytest.MonkeyPatch, right: Callable[[str], bool]) -> None:
    """Let sampled answers be read as right for the rows with these ids, and as wrong for all others."""
    real = pairs_module.sample

    def read(*given: Any, **named: Any) -> Rollout:
        rollout = real(*given, **named)
        values = [row.gold if right(row.id) else None for row in rollout.examples]
        return replace(rollout, judgements=[Judgement("", value) for value in values])

    monkeypatch.setattr(pairs_module, "sample", read)


def test_a_sampled_answer_is_a_rival_unless_it_is_right(
    llama: Policy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = task_of(llama)
    rows = rows_of(task)
    let_be_right(monkeypatch, lambda row: row in ("t:0", "t:1"))
    paired = built("sampled", task, rows).of(0, task, rows)
    assert [row.rejected for row in paired] == [[], [], [(3, 1.0)], [(3, 1.0)]]
    assert "2 pairs from 2 of 4 rows; in the others the model's own answer is right" in " ".join(
        capsys.readouterr().err.split()
    )
    with llama.reference():
        for row in paired:
            alone = token_figures(llama, [row.row.ids] * 4, row.answers, 1.0).logp_BR.sum(1)
            torch.testing.assert_close(torch.tensor(row.ref_logp), alone, atol=1e-3, rtol=1e-4)


def test_every_answer_right_is_an_error_which_says_what_to_do(llama: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(llama)
    let_be_right(monkeypatch, lambda _: True)
    with pytest.raises(DataError, match=r"None of the 4 training rows has a pair: .*, or x=y\."):
        built("sampled", task, rows_of(task))


def test_a_row_without_gold_is_named(llama: Policy) -> None:
    task = task_of(llama)
    rows = prompt_rows(task, [Example("file.csv:7", dict.fromkeys(task.spec.fields, "a text"))])
    with pytest.raises(DataError, match=r"file\.csv:7: has no gold answer"):
        built("hardest", task, rows)


def test_the_answers_of_the_iteration_before_stay_with_the_reference_of_now(
    llama: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(llama)
    rows = rows_of(task)
    let_be_right(monkeypatch, lambda row: row == "t:0")
    pairs = built("sampled", task, rows, mix_previous=True)
    before = pairs.of(0, task, rows)
    llama.freeze_reference()  # the adapter is not at zero, so this is another policy
    pairs.build([task], [rows], torch.Generator().manual_seed(1))
    after = pairs.of(0, task, rows)
    assert [row.rejected for row in after] == [[], *[[(3, 0.5), (4, 0.5)]] * 3]
    assert [row.answers[4] for row in after] == [row.answers[3] for row in before]
    with llama.reference():
        for row in after[1:]:
            alone = token_figures(llama, [row.row.ids] * 5, row.answers, 1.0).logp_BR.sum(1)
            torch.testing.assert_close(torch.tensor(row.ref_logp), alone, atol=1e-3, rtol=1e-4)
    assert any(abs(one.ref_logp[3] - other.ref_logp[4]) > 1e-3 for one, other in zip(before, after, strict=True))


def test_without_pairs_a_later_iteration_goes_on(llama: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(llama)
    rows = rows_of(task)
    pairs = built("sampled", task, rows)
    let_be_right(monkeypatch, lambda _: True)
    pairs.build([task], [rows], torch.Generator().manual_seed(1))
    assert [row.rejected for row in pairs.of(0, task, rows)] == [[]] * 4


def test_what_the_reference_said_survives(llama: Policy) -> None:
    task = task_of(llama)
    rows = rows_of(task)
    pairs = built("sampled", task, rows)
    other = Pairs("sampled", otherwise="")
    tensors: dict[str, torch.Tensor] = {}
    packed = json.loads(json.dumps(pack(pairs.state_dict(), tensors)))
    other.load_state_dict(unpack(packed, tensors))
    assert other.is_built and other.of(0, task, rows) == pairs.of(0, task, rows)


def update(
    policy: Policy, kind: str, loss_of: PairLoss, monkeypatch: pytest.MonkeyPatch | None = None, **values: Any
) -> Any:
    """Make one update from four rows; return its figures and how far the weights moved."""
    task = task_of(policy)
    rows = rows_of(task)
    paired = built(kind, task, rows).of(0, task, rows)
    if monkeypatch is not None:
        paired = [row._replace(rejected=[]) for row in paired]
    optimizer = torch.optim.SGD(policy.adapter_parameters(), lr=1.0)
    before = [parameter.detach().clone() for parameter in policy.adapter_parameters()]
    figures, answers = learn_pairs(task, paired, optimizer, DpoConfig(**values), loss_of)
    moved = sum(
        float((new - old).detach().norm()) for new, old in zip(policy.adapter_parameters(), before, strict=True)
    )
    assert len(answers.judgements) == 4
    return figures, moved


def plain(batch: PairPass) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return dpo(batch.chosen_P, batch.rejected_P, 0.1), {}


def test_at_the_reference_the_loss_is_log_two(llama: Policy) -> None:
    llama.freeze_reference()
    figures, moved = update(llama, "hardest", plain)
    assert figures["loss"] == pytest.approx(math.log(2), abs=1e-5) and moved > 0
    assert figures["chosen"] == pytest.approx(0, abs=1e-4) and figures["kl"] == pytest.approx(0, abs=1e-4)
    assert (figures["pairs"], figures["ties"]) == (4, 0)


def test_a_batch_of_ties_is_counted_and_changes_nothing(llama: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, moved = update(llama, "hardest", plain, monkeypatch)
    assert figures["loss"] == pytest.approx(math.log(2)) and moved == 0
    assert (figures["pairs"], figures["ties"]) == (0, 4)
    assert "chosen" not in figures and all(math.isfinite(value) for value in figures.values())


def test_micro_batches_give_the_same_update(tiny_llama: Path) -> None:
    (one, moved), (other, also_moved) = (
        update(trained_looking(tiny_llama), "all", plain, micro_batch_size=size) for size in (None, 1)
    )
    assert one.keys() == other.keys() and moved == pytest.approx(also_moved, rel=1e-4)
    for name, value in one.items():
        assert other[name] == pytest.approx(value, abs=1e-4), name


def test_the_sequential_kl_is_that_of_each_answer_alone(policy: Policy) -> None:
    check_sequential_kl(policy)


def test_the_reference_has_an_output_head_of_its_own(able: Path) -> None:
    check_sequential_kl(trained_looking(able, targets=("q_proj", "lm_head")))


def check_sequential_kl(policy: Policy) -> None:
    task = task_of(policy)
    rows = rows_of(task)
    batch, _ = run_pairs(task, built("hardest", task, rows).of(0, task, rows))
    chosen, rejected = sequential_kls(policy, batch)
    for index, row in enumerate(batch.rows):
        for answer, kl_P in ((row.gold, chosen), (row.rejected[0][0], rejected)):
            alone = policy.batch([row.row.ids], [row.answers[answer]])
            logits = policy.logits(policy.hidden(alone))
            with torch.no_grad(), policy.reference():
                ref_logits = policy.logits(policy.hidden(alone))
            assert float(kl_P[index].detach()) == pytest.approx(
                float(full_kl(ref_logits, logits).sum().detach()), abs=1e-3
            )
    assert bool((chosen > 0).all()) and chosen.requires_grad
