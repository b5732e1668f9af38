"""A fine-tuned encoder as a judge."""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.config import Config
from adjudge.models.encoder import Encoder, texts_of
from adjudge.system.console import progress
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

        See `adjudge.evaluation.predict.Judge`. Numbers are not rounded; ``text`` shows them with the task's decimals.
        """
        rows = [texts_of(example.fields) for example in examples]
        with progress(title, len(rows)) as bar:
            logits_NL = self.encoder.score(rows, self.config.evaluation.batch_size, bar.advance)
        if self.task.number is not None:
            low, high = self.task.number.low, self.task.number.high
            values = (low + (high - low) * logits_NL.squeeze(-1).double().clamp(0, 1)).tolist()
            decimals = self.task.number.decimals
            return [
                Prediction.of(row, f"{value:.{decimals}f}", value) for row, value in zip(examples, values, strict=True)
            ]
        words = self.task.words
        predictions = []
        for example, row, best in zip(
            examples, logits_NL.softmax(-1).tolist(), logits_NL.argmax(-1).tolist(), strict=True
        ):
            shares = dict(zip(words, row, strict=True)) if probabilities else {}
            predictions.append(Prediction.of(example, words[best], words[best], shares))
        return predictions
