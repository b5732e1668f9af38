"""The judge of a reward model: the label with the highest reward, after its own analysis, if any."""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.evaluation.predict import PromptedJudge
from adjudge.rollout.analysis import analyse
from adjudge.rollout.answering import Answer
from adjudge.rollout.label_rewards import label_rewards
from adjudge.rollout.sampler import Sampling


class RewardJudge(PromptedJudge):
    """Answers with the label that has the highest reward, whatever ``evaluation.decode`` says.

    The probabilities are the softmax of the rewards. For two labels it is what the model was trained on: how sure it is
    of one label against the other.
    """

    def _answers(self, prompts: Sequence[Sequence[int]], *, probabilities: bool) -> list[Answer]:
        words = self.task.spec.words
        before = [""] * len(prompts)
        if self.task.analysis_before is not None:
            _, opened = analyse(self.task.policy, prompts, self.task.analysis_before, Sampling())
            prompts, before = opened.prompts, opened.texts
        ids = self.task.taught_labels()
        reward_BL = label_rewards(self.task, prompts)
        best_B = reward_BL.argmax(1).tolist()
        shares = [dict(zip(words, row, strict=True)) for row in reward_BL.softmax(-1).tolist()]
        return [
            Answer(text + words[best], words[best], ids[best], share if probabilities else {})
            for text, best, share in zip(before, best_B, shares, strict=True)
        ]
