"""A fine-tuned encoder: the baseline a language model has to beat.

Sequence classification as in BERT. A number task has one output, trained with the squared error on the gold number
scaled to 0..1. Differs from BERT's fine-tuning:

1. The learning rate and the number of epochs are settings, not a grid search.
2. Evaluation takes the last epoch's weights, unless ``checkpoint.use=best``.
3. Every parameter is trained in float32.

Source: arXiv 1810.04805, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adjudge.errors import DataError, RunError
from adjudge.evaluation.encoder import EncoderJudge
from adjudge.evaluation.validation import hold_out
from adjudge.methods.base import Method, Trained
from adjudge.methods.base_loop import Loop
from adjudge.models.encoder import load_encoder
from adjudge.runs.base import with_model
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.labelled import LabelledRow, class_weights, head_loss, labelled_rows, target_of, weight_of
from adjudge.training.mixture import TaskRows, sampling_labels
from adjudge.training.optim import decay_matrices
from adjudge.training.updates import accumulate, apply_gradients

FOLDER = "encoder"


def train_encoder(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Fine-tune the encoder on the rows of one task, and save it to the run folder.

    Seeded by ``config.seed``: the new head, dropout, and the order of the rows. Raises DataError for a row without a
    gold answer or with an unknown one, ModelError when the encoder cannot be loaded, NotFiniteError before a harmful
    update.
    """
    config, settings = run.config, run.config.encoder
    (part,), held_out = hold_out(parts, config.checkpoint, config.seed)
    task = part.spec
    if not part.rows:
        raise DataError(f"{task.name}: there are no training rows.")
    # Before the encoder is loaded, so that a mistake in the data is reported at once.
    targets = [target_of(row, task) for row in part.rows]
    torch.manual_seed(config.seed)
    encoder = load_encoder(settings.model, config.runtime, settings.max_tokens, task.words)
    rows = labelled_rows(encoder, part.rows, targets)
    groups, judges = decay_matrices(encoder.model), [EncoderJudge(encoder, task, config)]

    def save() -> None:
        encoder.model.eval()
        encoder.save(run.folder / FOLDER)

    weight_L = class_weights(part.rows, task) if settings.class_weight else None
    labels = sampling_labels([part], config.data)
    loop = Loop(run, settings, encoder.model, groups, [task], [rows], judges, [task], held_out, save, labels=labels)
    with loop:
        for step in loop:
            weight = weight_of([row.target for row in step.rows], weight_L)

            def loss_of(rows: list[LabelledRow], weight: float = weight) -> tuple[Tensor, dict[str, Tensor]]:
                targets = [row.target for row in rows]
                logits_BL = encoder.logits([row.texts for row in rows])
                return head_loss(logits_BL, targets, weight_L, weight_of(targets, weight_L) / weight)

            figures = accumulate(step.rows, None, loss_of)
            max_norm = settings.optimizer.max_grad_norm
            norm = apply_gradients(loop.optimizer, max_norm, encoder.model.parameters())
            right = {"right": figures["right"] / len(step.rows)} if "right" in figures else {}
            loop.log(step, {"loss": figures["loss"], **right, "lr": loop.lr, "grad_norm": norm})
    return loop.finish()


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[EncoderJudge]:
    """Return a finished run's judges. Raises RunError when it has no encoder, or one with other labels."""
    folder = run.part(FOLDER)
    if not (folder / "config.json").is_file():
        raise RunError(f"{run.folder} holds no trained encoder: {FOLDER}/config.json is missing. Was the run finished?")
    name = str(folder.resolve())
    config = with_model(run.config, "encoder.model", name)  # the trained encoder carries the code of the original
    encoder = load_encoder(name, config.runtime, config.encoder.max_tokens, None)
    for task in specs:
        if encoder.words != task.words:
            raise RunError(
                f"{folder}: the encoder answers {', '.join(encoder.words) or 'with a number'}, "
                f"but the task {task.name} wants {', '.join(task.words) or 'a number'}."
            )
    return [EncoderJudge(encoder, task, run.config) for task in specs]


METHOD = Method(train_encoder, load_judges)
