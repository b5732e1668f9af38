"""Train tiny random models with SFT and PPO: they learn, and stop before harm."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from running import EPOCHS_ALONE, PLAIN_PPO, load_one, logged, train_one
from safetensors.torch import load_file, save_file
from specs import label_task, number_task
from transformers import AutoModelForCausalLM

from adjudge.config import load_config
from adjudge.errors import DataError, NotFiniteError, RunError
from adjudge.evaluation.predict import PromptedJudge
from adjudge.models.policy import Policy
from adjudge.runs.folder import Run, read_jsonl
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

GOOD = (
    "a warm and funny film",
    "the charming surprise",
    "a film that is warm and charming",
    "funny from the first scene",
)
BAD = ("a dull and slow film", "the plot is tired", "badly acted and dull", "nobody should pay for this")

SFT_KEYS = "step rows loss right grad_norm lr"
PPO_KEYS = (
    "step prompts reward kl policy_loss value_loss clip_fraction approx_kl entropy grad_norm explained_variance "
    "updates stopped beta lr sampled_tokens unreadable right"
)
PPO_LABEL_KEYS = f"{PPO_KEYS} sft_loss sft_rows recall label_entropy"


LABELS = label_task("Negative", "Positive")
NUMBERS = number_task(0, 9, decimals=0)


def rows(count: int) -> list[Example]:
    """Separable: the text says which label it has; every eighth is the same text."""
    return [
        Example(f"r:{place}", {"text": (GOOD if place % 2 else BAD)[place // 2 % 4]}, LABELS.words[place % 2])
        for place in range(count)
    ]


def number_rows(count: int) -> list[Example]:
    return [Example(row.id, row.fields, 8.0 if row.gold == "Positive" else 1.0) for row in rows(count)]


def train(
    method: str,
    folder: Path,
    model: Path,
    data: Sequence[Example],
    spec: TaskSpec = LABELS,
    preset: str = "default",
    **values: Any,
) -> tuple[Run, PromptedJudge]:
    settings = {"model": str(model), "runtime.dtype": "float32", "runtime.device": "cpu", "method": method}
    plain = {**EPOCHS_ALONE, **PLAIN_PPO} if preset == "default" else {}
    config = load_config(
        preset=preset, values={**plain, **settings, **{key.replace("__", "."): value for key, value in values.items()}}
    )
    with Run.create(folder, config) as run:
        judge = train_one(method, run, spec, data)
    return run, judge


@pytest.fixture(scope="module")
def warm(able: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An SFT run that was taught both labels for every text: its answers are readable, and a coin toss."""
    data = [Example(f"{row.id}{word}", row.fields, word) for row in rows(8) for word in LABELS.words] * 4
    folder = tmp_path_factory.mktemp("warm") / "run"
    return train("sft", folder, able, data, sft__epochs=6, sft__optimizer__lr=3e-3)[0]


def accuracy(judge: PromptedJudge, data: Sequence[Example]) -> float:
    found = judge.judge(data)
    return sum(prediction.value == prediction.gold for prediction in found) / len(found)


def test_sft_learns_separable_rows_by_heart(able: Path, tmp_path: Path) -> None:
    run, judge = train("sft", tmp_path / "run", able, rows(16), sft__epochs=30, sft__optimizer__lr=3e-3)
    found = judge.judge(rows(16))
    assert all(prediction.value == prediction.gold for prediction in found)
    losses = [record["loss"] for record in logged(run)]
    assert losses[0] > 3
    assert losses[-1] < 0.05
    assert logged(run)[-1]["right"] == 1.0
    assert load_one("sft", run, LABELS).judge(rows(16), probabilities=True) == judge.judge(rows(16), probabilities=True)


def test_ppo_raises_the_reward(warm: Run, able: Path, tmp_path: Path) -> None:
    run, judge = train(
        "ppo",
        tmp_path / "run",
        able,
        rows(16),
        init=str(warm.folder),
        ppo__epochs=20,
        ppo__optimizer__lr=1e-3,
        ppo__value_lr=1e-3,
    )
    reward = [record["reward"] for record in logged(run)]
    assert len(reward) == 20
    first, last = sum(reward[:5]) / 5, sum(reward[-5:]) / 5
    assert first < 0.4
    assert last > first + 0.3  # with four seeds it rose by 0.44 to 0.90
    assert accuracy(judge, rows(16)) >= 0.85
    assert load_one("ppo", run, LABELS).judge(rows(16), probabilities=True) == judge.judge(rows(16), probabilities=True)


def test_ppo_learns_through_an_analysis(warm: Run, able: Path, tmp_path: Path) -> None:
    """Two tokens of analysis come first; the reward of the judgement after them rises."""
    values = {"prompt__analysis": "before", "answer__analysis_tokens": 2, "init": str(warm.folder)}
    learning = {"ppo__epochs": 24, "ppo__optimizer__lr": 2e-3, "ppo__value_lr": 1e-3}
    run, judge = train("ppo", tmp_path / "run", able, rows(16), **values, **learning)
    reward = [record["reward"] for record in logged(run)]
    first, last = sum(reward[:5]) / 5, sum(reward[-5:]) / 5
    assert first < -2  # the SFT run was taught to answer at once
    assert last > first + 0.5  # with four seeds it rose by 0.66 to 1.9
    assert all(prediction.text.count("</Analysis>\n<Judgement>") == 1 for prediction in judge.judge(rows(4)))
    assert load_one("ppo", run, LABELS).judge(rows(8), probabilities=True) == judge.judge(rows(8), probabilities=True)


def test_sft_teaches_the_judgement_that_an_analysis_follows(able: Path, tmp_path: Path) -> None:
    values = {"prompt__analysis": True, "answer__analysis_tokens": 4, "sft__epochs": 30, "sft__optimizer__lr": 3e-3}
    run, judge = train("sft", tmp_path / "run", able, rows(16), **values)
    found = judge.judge(rows(16))
    assert all(prediction.value == prediction.gold for prediction in found)
    assert all(prediction.text.startswith(f"{prediction.gold}</Judgement>\n<Analysis>") for prediction in found)
    assert load_one("sft", run, LABELS).judge(rows(16)) == found


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_ppo_from_an_sft_run_starts_at_its_reference(warm: Run, able: Path, tmp_path: Path) -> None:
    before = (warm.folder / "adapter" / "adapter_model.safetensors").read_bytes()
    run, judge = train(
        "ppo", tmp_path / "run", able, rows(16), init=str(warm.folder), ppo__optimizer__lr=1e-3, ppo__epochs=3
    )
    kl = [record["kl"] for record in logged(run)]
    assert abs(kl[0]) < 1e-4
    assert abs(kl[1]) > 1e-3  # then it moves away
    assert (warm.folder / "adapter" / "adapter_model.safetensors").read_bytes() == before
    saved = load_file(run.folder / "adapter" / "adapter_model.safetensors")
    assert saved.keys() == load_file(warm.folder / "adapter" / "adapter_model.safetensors").keys()
    assert not equal(saved, load_file(warm.folder / "adapter" / "adapter_model.safetensors"))
    assert_plain_peft_gives_the_same(able, run, judge)


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2", "tiny_mpt"])
@pytest.mark.parametrize("method", ["sft", "ppo"])
def test_only_adapters_are_trained_and_plain_peft_loads_them(
    method: str, family: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Biases too stay as they were: the reference is the network without adapters (qwen2 has biases)."""
    model = request.getfixturevalue(family)
    merge = Policy.merge
    monkeypatch.setattr(
        Policy, "merge", lambda policy: None
    )  # training ends with it; first the network that was trained
    run, judge = train(
        method, tmp_path / "run", model, rows(8), ppo__optimizer__lr=1e-2, sft__optimizer__lr=1e-2, ppo__kl_init=1.0
    )
    fresh = dict(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).named_parameters())
    kept = {
        name.replace(".base_layer", ""): parameter
        for name, parameter in judge.task.policy.lm.get_base_model().named_parameters()
        if "lora_" not in name
    }
    assert kept.keys() == fresh.keys()
    assert any("bias" in name for name in kept) == (family == "tiny_qwen2")
    assert all(torch.equal(kept[name], fresh[name]) for name in fresh)
    saved = load_file(run.folder / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name for name in saved)
    assert any((tensor != 0).any() for name, tensor in saved.items() if "lora_B" in name)
    assert_plain_peft_gives_the_same(model, run, judge)
    merge(judge.task.policy)
    assert not any("lora_" in name for name, _ in judge.task.policy.lm.named_parameters())
    assert_plain_peft_gives_the_same(model, run, judge)


def assert_plain_peft_gives_the_same(model: Path, run: Run, judge: PromptedJudge) -> None:
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, str(run.folder / "adapter")).eval()
    prompts = [prompt.ids for prompt in judge.task.renderer.prompts(rows(3))]
    ours = judge.task.policy.eval().logits(judge.task.policy.prefill(prompts).hidden_BD)
    with torch.no_grad():
        theirs = torch.stack([plain(input_ids=torch.tensor([ids])).logits[0, -1] for ids in prompts])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_an_adapter_of_another_model_is_refused(warm: Run, tiny_llama: Path, tiny_mpt: Path, tmp_path: Path) -> None:
    for model in (tiny_llama, tiny_mpt):
        with pytest.raises(RunError, match="does not fit"):
            train("ppo", tmp_path / model.name, model, rows(4), init=str(warm.folder))


def test_a_run_without_an_adapter_is_no_start(able: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no adapter"):
        train("ppo", tmp_path / "run", able, rows(4), init=str(tmp_path / "nothing"))


def plain_nll(model: Path, judge: PromptedJudge, data: Sequence[Example], whole: bool) -> float:
    """Mean negative log-likelihood per taught token of the untrained network, one plain forward a row."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    losses: list[float] = []
    for row, prompt in zip(data, judge.task.renderer.prompts(data), strict=True):
        taught = judge.task.end.taught_ids(row.gold, judge.task.spec)
        ids = torch.tensor([[*prompt.ids, *taught]])
        with torch.no_grad():
            logp = network(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        losses += (-logp if whole else -logp[-len(taught) :]).tolist()
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("preset", "micro"), [("default", None), ("default", 3), ("paper", None), ("paper", 3)])
def test_the_first_sft_loss_is_that_of_a_plain_forward(
    preset: str, micro: int | None, tiny_qwen2: Path, tmp_path: Path
) -> None:
    """The default counts the answer's tokens, the paper's preset those of prompt and answer."""
    data = [Example(str(place), {"text": "x " * place}, row.gold) for place, row in enumerate(rows(8), 1)]
    run, judge = train(
        "sft", tmp_path / "run", tiny_qwen2, data, preset=preset, sft__micro_batch_size=micro, sft__batch_size=8
    )
    expected = plain_nll(tiny_qwen2, judge, data, whole=preset == "paper")
    assert logged(run)[0]["loss"] == pytest.approx(expected, abs=1e-4)


def test_sft_micro_batches_make_the_same_steps(able: Path, tmp_path: Path) -> None:
    whole, parts = (
        logged(train("sft", tmp_path / str(micro), able, rows(20), sft__micro_batch_size=micro)[0])
        for micro in (None, 3)
    )
    assert len(whole) == len(parts) == 4
    for one, other in zip(whole, parts, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-2)
        assert (one["rows"], one["lr"]) == (other["rows"], other["lr"])


def test_the_papers_ppo(able: Path, tmp_path: Path) -> None:
    run, judge = train("ppo", tmp_path / "run", able, rows(20), preset="paper")
    assert (judge.task.end.stop, judge.task.end.min_tokens, judge.task.end.max_tokens) == ("tag", 12, 32)
    first, second = logged(run)
    # A batch of 16 and one of 4, in any order: 4 epochs of two mini-batches of 8, 4 epochs of one of 4.
    assert sorted([(first["prompts"], first["updates"]), (20 - first["prompts"], second["updates"])]) == [
        (4, 4),
        (16, 8),
    ]
    assert first["lr"] == second["lr"] == 9e-6
    assert first["beta"] == 0.2
    assert second["beta"] != 0.2
    assert abs(first["kl"]) < 1e-3
    assert (first["reward"], first["unreadable"]) == (-3.0, 1.0)  # random tokens, without a closing tag


def test_the_papers_sft(able: Path, tmp_path: Path) -> None:
    run, judge = train("sft", tmp_path / "run", able, rows(20), preset="paper")
    assert [record["lr"] for record in logged(run)] == [9e-6, 9e-6]
    assert judge.task.renderer.text(rows(1)[0]).startswith("System_prompt:\n")
    assert judge.task.end.text(judge.task.end.taught_ids("Positive", LABELS)) == "Positive</Judgement>"


def test_ppo_with_mini_and_micro_batches(warm: Run, able: Path, tmp_path: Path) -> None:
    values = {"init": str(warm.folder), "ppo__batch_size": 8, "ppo__update_epochs": 3, "ppo__stop_kl": 1e9}
    run, _ = train("ppo", tmp_path / "a", able, rows(13), **values, ppo__mini_batch_size=4, ppo__micro_batch_size=3)
    assert [record["updates"] for record in logged(run)] in ([6, 6], [3, 6], [6, 3])
    assert logged(run)[-1]["prompts"] == 13
    sizes = {"ppo__mini_batch_size": 8}
    whole, micro = (
        logged(train("ppo", tmp_path / str(size), able, rows(8), **values, **sizes, ppo__micro_batch_size=size)[0])[0]
        for size in (None, 3)
    )
    for name in ("reward", "kl", "policy_loss", "value_loss", "entropy", "grad_norm"):
        assert whole[name] == pytest.approx(micro[name], rel=2e-2, abs=1e-3), name


def test_ppo_stops_a_batch_that_moved_too_far(warm: Run, able: Path, tmp_path: Path) -> None:
    values = {
        "init": str(warm.folder),
        "ppo__optimizer__lr": 3e-2,
        "ppo__optimizer__warmup_share": 0.0,
        "ppo__update_epochs": 6,
    }
    free, bound = (
        logged(train("ppo", tmp_path / str(limit), able, rows(16), **values, ppo__stop_kl=limit)[0])[0]
        for limit in (1e9, 1e-3)
    )
    assert (free["updates"], free["stopped"]) == (6, False)
    assert bound["stopped"] is True
    assert 1 <= bound["updates"] < 6
    assert bound["approx_kl"] <= 1e-3


@pytest.mark.parametrize("method", ["sft", "ppo"])
def test_numbers(method: str, able: Path, tmp_path: Path) -> None:
    run, judge = train(
        method, tmp_path / "run", able, number_rows(16), NUMBERS, sft__epochs=30, sft__optimizer__lr=3e-3
    )
    found = judge.judge(number_rows(16), probabilities=True)
    assert all(prediction.value is None or 0 <= prediction.value <= 9 for prediction in found)
    if method == "sft":
        assert [prediction.value for prediction in found] == [row.gold for row in number_rows(16)]
    else:
        (record,) = logged(run)
        assert list(record) == f"{PPO_KEYS} mean_error".split()
        assert -4.5 <= record["reward"] <= 4.5


@pytest.mark.parametrize(("method", "keys"), [("sft", SFT_KEYS), ("ppo", PPO_LABEL_KEYS)])
def test_the_record_of_a_step(method: str, keys: str, able: Path, warm: Run, tmp_path: Path) -> None:
    """A contract: the report and scripts read these."""
    values = {"init": str(warm.folder)} if method == "ppo" else {}
    run, _ = train(method, tmp_path / "run", able, rows(20), **values)
    records = logged(run)
    assert run.state == "complete"
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    assert records[-1]["prompts" if method == "ppo" else "rows"] == 20 * (1 if method == "ppo" else 2)
    for record in records:
        assert sorted(record) == sorted(keys.split())
        json.dumps(record, allow_nan=False)
        numbers = [value for value in record.values() if isinstance(value, float)]
        assert all(math.isfinite(value) for value in numbers)
        assert record["grad_norm"] > 0
    if method == "ppo":
        assert sorted(next(read_jsonl(run.folder / "timings.jsonl"))["seconds"]) == ["reference", "sample", "update"]
        assert sorted(records[0]["recall"]) == ["Negative", "Positive"]
        assert 0 <= records[0]["label_entropy"] <= math.log(2) + 1e-9
        assert records[0]["clip_fraction"] < 1


def broken(model: Path, folder: Path) -> Path:
    """A copy of a model with one NaN among its weights."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("method", ["sft", "ppo"])
def test_a_nan_in_the_weights_stops_the_run(method: str, able: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match="Step 1: "):
        train(method, tmp_path / "run", broken(able, tmp_path / "model"), rows(8))
    assert_failed(tmp_path / "run", steps=0)


@pytest.mark.parametrize("method", ["sft", "ppo"])
def test_weights_that_explode_stop_the_run(method: str, able: Path, tmp_path: Path) -> None:
    values = {"optimizer__lr": 1e30, "optimizer__warmup_share": 0.0, "batch_size": 4}
    with pytest.raises(NotFiniteError, match=r"Step \d: "):
        train(method, tmp_path / "run", able, rows(12), **{f"{method}__{key}": value for key, value in values.items()})
    assert_failed(tmp_path / "run", steps=2)


def assert_failed(folder: Path, steps: int) -> None:
    state, reason = Run.open(folder).status()
    assert state == "failed"
    assert reason.startswith("NotFiniteError: Step ")
    assert len(logged(Run.open(folder))) <= steps
    assert not (folder / "adapter").exists()


@pytest.mark.parametrize("method", ["sft", "ppo"])
def test_a_row_without_a_gold_answer_is_refused(method: str, able: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gold"):
        train(method, tmp_path / "run", able, [*rows(3), Example("train.tsv:9", {"text": "x"}, None)])
    assert Run.open(tmp_path / "run").state == "failed"
