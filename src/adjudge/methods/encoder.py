"""A fine-tuned encoder: the baseline that a language model has to overtake.

Sequence classification as in BERT (arXiv 1810.04805, section 4.1), for a number task one output trained with the squared error
on the gold number scaled to 0..1. Differences: the learning rate and the number of epochs are settings and not a grid search,
evaluation takes the last epoch's weights, every parameter is trained in float32.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adjudge.config import Config
from adjudge.errors import DataError, RunError
from adjudge.evaluation.validation import hold_out, validator
from adjudge.methods.base import Method
from adjudge.models.encoder import Encoder, Texts, load_encoder, texts_of
from adjudge.runs.folder import Run
from adjudge.system.console import note, progress
from adjudge.tasks.spec import TaskSpec
from adjudge.training.batches import Batches
from adjudge.training.guards import check_finite, check_weights, clip_gradients
from adjudge.training.mixture import TaskRows
from adjudge.training.optim import build_optimizer
from adjudge.training.session import Session, Stateful, drawn, trained
from adjudge.types import Example, Prediction

FOLDER = "encoder"


@dataclass(frozen=True, slots=True)
class _Labelled:
    texts: Texts
    target: float
    tokens: int
    id: str


class EncoderJudge:
    """A fine-tuned encoder as a judge. Its answers are label words or numbers by construction, so none is unreadable."""

    def __init__(self, encoder: Encoder, task: TaskSpec, config: Config) -> None:
        self.encoder, self.task, self.config = encoder, task, config

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row (see `adjudge.evaluation.predict.Judge`): the likeliest word, or the number clipped to the task's range.

        Numbers are not rounded; ``text`` shows them with the task's decimals.
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


def train_encoder(run: Run, task: TaskSpec, rows: Sequence[Example]) -> EncoderJudge:
    """Fine-tune the encoder on `rows`, log every update, save it to the run folder, and return the judge.

    Seeded by ``config.seed``: the new head, dropout, and the order of the rows. Raises DataError for a row without a gold answer or
    with an unknown one, ModelError when the encoder cannot be loaded, NotFiniteError before an update that would do harm.
    """
    config, settings = run.config, run.config.encoder
    if not rows:
        raise DataError(f"{task.name}: there are no training rows.")
    (part,), held = hold_out([TaskRows(task, rows)], config.checkpoint, config.seed)
    rows = part.rows
    targets = [target_of(row, task) for row in rows]
    torch.manual_seed(config.seed)
    encoder = load_encoder(settings.model, config.runtime, settings.max_tokens, task.words)
    labelled = _measure(encoder, rows, targets)
    order = torch.Generator().manual_seed(config.seed)
    batches = Batches([labelled], settings.batch_size, settings.epochs, order, lambda row: row.tokens)
    optimizer, scheduler = build_optimizer(parameter_groups(encoder.model), settings.optimizer, len(batches))
    carried: dict[str, Stateful] = {
        "trained": trained(encoder.model),
        "optimizer": optimizer,
        "scheduler": scheduler,
        "batches": batches,
        "order": drawn(order),
    }
    judge = EncoderJudge(encoder, task, config)
    session = Session(run, carried, validate=validator([task], [judge], held))
    with session, progress("training the encoder", len(batches)) as bar:
        bar.advance(session.step)
        for _, batch in session.steps(batches):
            began, step = time.perf_counter(), session.step
            encoder.model.train()
            loss = _loss(encoder, batch, task)
            check_finite("the loss", loss.detach(), step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = clip_gradients(encoder.model.parameters(), settings.optimizer.max_grad_norm, step)
            rate = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            record = {"step": step, "rows": session.rows, "loss": loss.item(), "lr": rate, "grad_norm": norm}
            run.log(record, seconds=time.perf_counter() - began)
            bar.advance(loss=loss.item())
    check_weights(encoder.model, "the encoder")
    encoder.model.eval()
    encoder.save(run.folder / FOLDER)
    return judge


def load_judge(run: Run, task: TaskSpec) -> EncoderJudge:
    """The judge of a finished run. Raises RunError when the folder holds no encoder, or one with other labels."""
    folder = run.folder / FOLDER
    if not (folder / "config.json").is_file():
        raise RunError(
            f"{run.folder} holds no trained encoder: there is no {FOLDER}/config.json. Was the run finished?"
        )
    name, runtime = str(folder.resolve()), run.config.runtime
    if runtime.trust_remote_code == run.config.encoder.model:  # what was trained carries the code of what it began with
        runtime = runtime.model_copy(update={"trust_remote_code": name})
    encoder = load_encoder(name, runtime, run.config.encoder.max_tokens, None)
    if encoder.words != task.words:
        raise RunError(
            f"{folder}: the encoder answers {', '.join(encoder.words) or 'with a number'}, "
            f"but the task {task.name} wants {', '.join(task.words) or 'a number'}."
        )
    return EncoderJudge(encoder, task, run.config)


def target_of(row: Example, task: TaskSpec) -> float:
    """What the head is trained towards: the index of the gold word, or the gold number scaled to 0..1. Raises DataError."""
    if task.number is not None:
        if not isinstance(row.gold, (int, float)):
            raise DataError(
                f"{row.id}: the gold answer {row.gold!r} is not a number, but {task.name} is a number task."
            )
        return (row.gold - task.number.low) / (task.number.high - task.number.low)
    if row.gold not in task.words:
        raise DataError(f"{row.id}: the gold answer {row.gold!r} is none of {', '.join(task.words)}.")
    return task.words.index(str(row.gold))


def parameter_groups(model: nn.Module) -> list[dict[str, object]]:
    """Two groups for the optimizer: weight decay is for matrices, not for biases and normalisation weights (all vectors)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1]},
        {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]


def _loss(encoder: Encoder, batch: Sequence[_Labelled], task: TaskSpec) -> Tensor:
    logits_BL = encoder.logits([row.texts for row in batch])
    targets = [row.target for row in batch]
    if task.is_number:
        return F.mse_loss(logits_BL.squeeze(-1), torch.tensor(targets, device=logits_BL.device))
    return F.cross_entropy(logits_BL, torch.tensor(targets, dtype=torch.long, device=logits_BL.device))


def _measure(encoder: Encoder, rows: Sequence[Example], targets: Sequence[float]) -> list[_Labelled]:
    texts = [texts_of(row.fields) for row in rows]
    lengths = encoder.lengths(texts)
    shortened = sum(length > encoder.max_tokens for length in lengths)
    if shortened:
        note(
            f"{shortened} of {len(rows)} training rows are longer than {encoder.max_tokens} tokens and were shortened."
        )
    return [
        _Labelled(text, target, min(length, encoder.max_tokens), row.id)
        for text, target, length, row in zip(texts, targets, lengths, rows, strict=True)
    ]


ENCODER = Method(
    name="encoder",
    build=train_encoder,
    load=load_judge,
)
