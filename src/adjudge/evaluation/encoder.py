"""A fine-tuned encoder as a judge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adjudge.config import Config
from adjudge.evaluation.logits import predictions_of
from adjudge.models.encoder import Encoder, Texts, texts_of
from adjudge.system.console import progress
from adjudge.system.parallel import of_all_rows
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction


class EncoderJudge:
    """A fine-tuned encoder as a judge.

    Its answers are label words or numbers by construction, so none is unreadable.
    """

    def __init__(self, encoder: Encoder, task: TaskSpec, config: Config) -> None:
        self.encoder, self.task, self.config = encoder, task, config

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row with the likeliest word, or the number clipped to the task's range.

        See `adjudge.evaluation.predict.Judge` and `adjudge.evaluation.logits.predictions_of`.
        """
        rows = [texts_of(example.fields) for example in examples]

        def score(own_rows: Sequence[Texts]) -> Tensor:
            with progress(title, len(own_rows)) as bar:
                return self.encoder.score(own_rows, self.config.evaluation.batch_size, bar.advance)

        logits_NL = torch.cat(of_all_rows(rows, score))
        return predictions_of(examples, logits_NL, self.task, probabilities=probabilities)
