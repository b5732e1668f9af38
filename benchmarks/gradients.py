"""Measure how noisy the gradient of each sampled method is, beside the exact policy gradient, on one fixed batch.

    python -m benchmarks.gradients --task glue/sst2 --data-dir DIR [--init RUN]

The gradient of each label's log-probability is computed once per prompt. Every estimator is a linear combination of
these, so thousands of repeats cost nothing: only their inner products are needed. All answers that are no label count
as one action. At the start (without `--init`) the adapter is fresh.

`noise` is the variance of an estimator divided by the squared norm of its mean, and does not depend on its scale.
`cosine` is the mean cosine of the angle to the exact gradient.

`drift` tells what a small step along the exact gradient, or along SFT's, does to the answers. `shared` is the change of
the labels' log-probabilities that is the same in all rows: the policy drifts towards one label. `toward_gold` is the
mean change of the right label's log-probability beyond that: what tells rows apart. Both are per unit length of step.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adjudge.config import RewardConfig, load_config
from adjudge.models.policy import load_policy
from adjudge.prompts.answers import every_answer
from adjudge.rewards.rewarder import build_rewarder
from adjudge.rl.advantages import group_relative, leave_one_out, whiten
from adjudge.rollout.label_scoring import label_logps
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows
from adjudge.system.files import write_json, write_text
from adjudge.tasks import load_split, load_task, take_rows
from benchmarks.pictures import Panel, picture

SAMPLES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Gradients:
    """The labels' log-probabilities per prompt, and the inner products of their gradients.

    Shapes: ``B`` prompts, ``L`` labels, ``A`` = L + 1 actions (the last: all other answers).
    """

    logp_BL: Tensor
    product_KK: Tensor
    """K = B · L, prompt by prompt."""
    reward_BA: Tensor

    @property
    def probability_BA(self) -> Tensor:
        """Return the probability of each action."""
        label_BL = self.logp_BL.exp()
        return torch.cat([label_BL, (1 - label_BL.sum(1, keepdim=True)).clamp(min=1e-6)], dim=1)

    def coefficients(self, weight_BA: Tensor) -> Tensor:
        """Return Σ_a weight_a ∇ log π(a) as coefficients of the labels' gradients: ``[…, B, A] → […, K]``."""
        probability_BA = self.probability_BA
        # ∇ log u = −Σ p_l ∇ log p_l / u for the mass u of all other answers.
        other_BL = -probability_BA[:, :-1] / probability_BA[:, -1:]
        return (weight_BA[..., :-1] + weight_BA[..., -1:] * other_BL).flatten(-2)

    def exact(self) -> Tensor:
        """Return the exact policy gradient as coefficients, ``[K]``."""
        return self.coefficients(self.probability_BA * self.reward_BA) / len(self.logp_BL)


def measure(task: PromptedTask, rows: Sequence[PromptRow], rewards: RewardConfig) -> Gradients:
    """Compute the gradients of all labels after each prompt: one backward pass per label and row."""
    policy, parameters = task.policy, task.policy.adapter_parameters()
    label_ids = [task.end.taught_ids(word, task.spec) for word in task.spec.words]
    logps, gradients = [], []
    for row in rows:
        logp_L = label_logps(policy, policy.prefill([row.ids], grad=True), label_ids)[0]
        logps.append(logp_L.detach())
        for label in range(len(label_ids)):
            parts = torch.autograd.grad(logp_L[label], parameters, retain_graph=label + 1 < len(label_ids))
            gradients.append(torch.cat([part.flatten() for part in parts]))
    gradient_KP = torch.stack(gradients)
    rewarder, examples = build_rewarder(rewards, task.spec), [row.example for row in rows]
    reward_BL = torch.tensor(rewarder.of_each(examples, [row.ids for row in rows], every_answer(task.spec)))
    other_B = torch.tensor(rewarder.of_unreadable(examples))
    reward_BA = torch.cat([reward_BL, other_B[:, None]], dim=1)
    return Gradients(torch.stack(logps), gradient_KP @ gradient_KP.T, reward_BA)


def estimators() -> dict[str, Callable[[Tensor, Tensor, int], Tensor]]:
    """Return, per name, the function (scores ``[N]``, values ``[N]``, samples) → advantages ``[N]``."""

    def whitened(score_N: Tensor, _value_N: Tensor, _samples: int) -> Tensor:
        return whiten(score_N[:, None], torch.ones(len(score_N), 1, dtype=torch.bool))[:, 0]

    return {
        "REINFORCE, no baseline": lambda score_N, _value_N, _samples: score_N,
        "REINFORCE++ (whitened batch)": whitened,
        "RLOO": lambda score_N, _value_N, samples: leave_one_out(score_N, samples),
        "GRPO": lambda score_N, _value_N, samples: group_relative(score_N, samples),
        "PPO, exact values": lambda score_N, value_N, _samples: score_N - value_N,
    }


def noise(gradients: Gradients, advantage_of: Callable[..., Tensor], samples: int, repeats: int) -> dict[str, float]:
    """Draw `samples` answers per prompt `repeats` times, and return the estimator's noise and cosine."""
    generator = torch.Generator().manual_seed(0)
    probability_BA, reward_BA = gradients.probability_BA, gradients.reward_BA
    rows, actions = probability_BA.shape
    value_N = (probability_BA * reward_BA).sum(1).repeat_interleave(samples)
    weights = []
    for _ in range(repeats):
        action_BG = torch.multinomial(probability_BA, samples, replacement=True, generator=generator)
        advantage_N = advantage_of(reward_BA.gather(1, action_BG).flatten(), value_N, samples)
        weight_BA = torch.zeros(rows, actions).scatter_add(1, action_BG, advantage_N.reshape(rows, samples))
        weights.append(weight_BA / (rows * samples))
    estimate_RK, exact_K = gradients.coefficients(torch.stack(weights)).double(), gradients.exact().double()
    product_KK = gradients.product_KK.double()
    mean_K = estimate_RK.mean(0)
    square_R = ((estimate_RK @ product_KK) * estimate_RK).sum(1)
    mean_square = float(mean_K @ product_KK @ mean_K)
    dot_R, exact_norm = estimate_RK @ product_KK @ exact_K, float(exact_K @ product_KK @ exact_K) ** 0.5
    moving = square_R > 0
    cosine = (dot_R[moving] / (square_R[moving].sqrt() * exact_norm)).mean() if bool(moving.any()) else torch.tensor(0)
    return {"noise": (float(square_R.mean()) - mean_square) / mean_square, "cosine": float(cosine)}


def drift(gradients: Gradients, step_K: Tensor, gold_B: Tensor) -> dict[str, float]:
    """Return the first-order effect of a step of length 1: shared by all rows, and toward each row's right label."""
    length = (step_K @ gradients.product_KK @ step_K).sqrt()
    change_BL = (gradients.product_KK @ step_K / length).reshape(gradients.logp_BL.shape)
    change_BL = change_BL - change_BL.mean(1, keepdim=True)
    shared_L = change_BL.mean(0)
    toward_B = (change_BL - shared_L).gather(1, gold_B[:, None])
    return {"shared": float(shared_L.norm()), "toward_gold": float(toward_B.mean())}


def plot(curves: dict[str, dict[int, float]]) -> str:
    """Draw noise by samples per prompt, both axes logarithmic, as SVG."""
    lines = {name: [(float(samples), value) for samples, value in curve.items()] for name, curve in curves.items()}
    return picture([Panel("variance / |mean|²", lines, "answers per prompt", log=True)])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="vader/movies")
    parser.add_argument("--data-dir")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--init", help="folder of a finished run whose adapter is taken")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("runs/gradients"))
    given = parser.parse_args()
    values: dict[str, Any] = {"model": given.model, "data.data_dir": given.data_dir}
    config = load_config(values=values)
    spec = load_task(given.task)
    policy = load_policy(config, adapter=given.init is None)
    if given.init is not None:
        policy.load_adapter(Path(given.init) / "adapter", train=True)
    policy.eval()
    task = PromptedTask(policy, spec, config)
    rows = prompt_rows(task, take_rows(load_split(spec, "train", config.data.data_dir), given.rows, seed=0))
    gradients = measure(task, rows, RewardConfig())
    record: dict[str, Any] = {"task": given.task, "init": given.init, "rows": given.rows, "repeats": given.repeats}
    record["label_mass"] = float(gradients.logp_BL.exp().sum(1).mean())
    gold_B = torch.tensor([spec.words.index(str(row.example.gold)) for row in rows])
    right_BA = torch.nn.functional.one_hot(gold_B, len(spec.words) + 1).float()
    record["drift"] = {
        "exact": drift(gradients, gradients.exact(), gold_B),
        "sft": drift(gradients, gradients.coefficients(right_BA), gold_B),
    }
    print(f"mass of the labels {record['label_mass']:.3f}; drift {record['drift']}")
    curves: dict[str, dict[int, float]] = {}
    for name, advantage_of in estimators().items():
        grouped = name in ("RLOO", "GRPO")
        by_samples = {n: noise(gradients, advantage_of, n, given.repeats) for n in SAMPLES if n > 1 or not grouped}
        record[name] = by_samples
        curves[name] = {samples: figures["noise"] for samples, figures in by_samples.items()}
        cells = "  ".join(f"{n}: {figures['noise']:.2f} ({figures['cosine']:.2f})" for n, figures in by_samples.items())
        print(f"{name:30s} {cells}", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "gradients.json", json.loads(json.dumps(record)))
    write_text(given.out / "gradients.svg", plot(curves))
    print(f"noise (cosine) by answers per prompt → {given.out}/gradients.json, gradients.svg")


if __name__ == "__main__":
    main()
