"""SetFit: an encoder tuned on pairs of texts, and a logistic regression on its vectors.

The library ``setfit`` trains both.

1. Pair the training texts: of the same label, whose vectors should have the cosine 1, and of different ones, 0.
2. Tune the whole encoder on the pairs (`setfit.Trainer.train_embeddings`).
3. Fit scikit-learn's logistic regression on the vectors of the training texts (`setfit.Trainer.train_classifier`).

Differs from arXiv 2209.11055, and from the library's defaults:

1. The encoder is the bundled MiniLM-L6, with its mean pooling and length 1. The paper's is a larger MPNet.
2. `iterations` pairs of each kind per row, as in the paper (R = 20). The library's default is every pair, the rarer
   kind repeated: with K rows per class and C classes, more than (KC)² pairs.
3. The texts of a row are one text here, joined by line ends.
4. Weights are stored as safetensors and JSON. The library pickles its regression.

Nothing is carried from step to step: a killed run begins again.
Source: arXiv 2209.11055; the library setfit 1.2.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adjudge.config import SetfitConfig
from adjudge.errors import ConfigError, DataError
from adjudge.methods.base import Method, Trained
from adjudge.methods.floors.regression import (
    FOLDER,
    NEVER,
    Features,
    Fitted,
    RegressionJudge,
    load_floor,
    save_regression,
)
from adjudge.models.encoder import Encoder, load_encoder
from adjudge.models.sources.quiet import no_future_warnings, quiet
from adjudge.runs.base import with_model
from adjudge.runs.folder import Run
from adjudge.system.console import progress
from adjudge.tasks.spec import TaskSpec
from adjudge.training.labelled import target_of
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

MOST_ROWS = 10_000
"""The library lists all pairs of rows, from which it draws."""


def train_setfit(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Tune the encoder on pairs, fit, and save.

    Raises DataError for rows it cannot learn from, and ConfigError.
    """
    (part,) = parts
    task, settings = part.spec, run.config.setfit
    targets = [int(target_of(row, task)) for row in part.rows]
    if len(set(targets)) < 2:
        raise DataError(f"{task.name}: all {len(targets)} training rows have one label, and setfit pairs rows of two.")
    if len(targets) > MOST_ROWS:
        raise DataError(
            f"{task.name}: setfit is for few rows, and lists all pairs of them: {len(targets):,} are more than "
            f"{MOST_ROWS:,}. Give it some of them: --shots 64, or --train-rows 1000."
        )
    run.rewind({})  # a killed run begins again
    torch.manual_seed(run.config.seed)  # the weights that the encoder lacks, though nothing reads them
    encoder = load_encoder(settings.model, run.config.runtime, settings.max_tokens, ())
    figures, model_head = _tune(run, encoder, _texts(part.rows), targets)
    fitted = _fitted(model_head, len(task.words))
    save_regression(run, fitted, task, {}, {}, also=lambda folder: _save_beside(encoder, folder))
    run.log({"step": 1, "rows": len(targets), **figures})
    return Trained([RegressionJudge(_features(run, encoder), fitted, task)], len(targets))


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> Sequence[Any]:
    """Return the judges of a finished run. Raises RunError and ModelError."""
    encoder = None

    def features_of(_stored: dict[str, Any], _arrays: dict[str, Any], _task: TaskSpec) -> Features:
        nonlocal encoder
        if encoder is None:
            name = str(run.part(FOLDER).resolve())
            config = with_model(run.config, "setfit.model", name)  # the trained encoder carries the original's code
            encoder = load_encoder(name, config.runtime, config.setfit.max_tokens, None)
        return _features(run, encoder)

    return load_floor(run, specs, features_of)


def _tune(run: Run, encoder: Encoder, texts: Sequence[str], targets: Sequence[int]) -> tuple[dict[str, Any], Any]:
    """Train the encoder's weights with the library; return the figures to log, and its fitted regression."""
    try:
        from datasets import Dataset, disable_progress_bars
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
        from setfit import SetFitModel, Trainer
        from setfit import logging as library_logging
    except ImportError as error:
        raise ConfigError(f"setfit needs more packages ({error}): pip install 'adjudge[setfit]'.") from None
    from sklearn.linear_model import LogisticRegression
    from transformers import ProgressCallback
    from transformers.trainer_callback import PrinterCallback

    # The library reads a copy of the encoder, which carries the code of the original.
    trust = {"trust_remote_code": run.config.runtime.trust_remote_code == run.config.setfit.model}
    library_logging.set_verbosity_error()
    disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="adjudge-") as folder, quiet(), no_future_warnings():
        encoder.save(Path(folder) / "encoder")  # whatever it was loaded from
        reader = Transformer(
            str(Path(folder) / "encoder"),
            max_seq_length=encoder.max_tokens,
            model_kwargs=trust,
            processor_kwargs=dict(trust),  # it writes into it
            config_kwargs=trust,
        )
        reader.tokenizer.split_special_tokens = True  # [SEP] in a text is text
        pooling = Pooling(reader.get_embedding_dimension(), "mean")
        body = SentenceTransformer(modules=[reader, pooling, Normalize()], device=str(encoder.model.device))
        model = SetFitModel(model_body=body, model_head=LogisticRegression())
        arguments = _arguments(run.config.setfit, len(texts), run.config.seed, folder)
        rows = Dataset.from_dict({"text": list(texts), "label": list(targets)})
        with _trains_on(encoder.model.device):
            trainer = Trainer(model=model, args=arguments, train_dataset=rows)
        trainer.st_trainer.args._n_gpu = min(1, trainer.st_trainer.args.n_gpu)  # else it takes all cards at once
        trainer.st_trainer.args.dataloader_pin_memory = False
        for callback in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(callback)
        with progress(run.config.method, arguments.max_steps) as bar:
            trainer.add_callback(_steps_to(bar.advance))
            trainer.train()
        _take_weights(encoder, reader.auto_model)
        history = trainer.st_trainer.state.log_history
        losses = [record["embedding_loss"] for record in history if "embedding_loss" in record]
    pairs = arguments.max_steps * arguments.embedding_batch_size
    return {"pairs": pairs, "first_loss": float(losses[0]), "loss": float(losses[-1])}, model.model_head


@contextmanager
def _trains_on(device: Any) -> Iterator[None]:
    """Let the library train where the encoder is: left alone, it takes the first graphics card.

    Raises ConfigError for another card than the first.
    """
    from setfit import trainer as library

    if device.index:
        raise ConfigError(
            f"setfit trains on the first graphics card that it sees, and runtime.device is {device}. Show it this one "
            f"alone: CUDA_VISIBLE_DEVICES={device.index} before the command, and runtime.device=cuda."
        )
    arguments = library.SentenceTransformerTrainingArguments
    library.SentenceTransformerTrainingArguments = partial(arguments, use_cpu=device.type == "cpu")
    try:
        yield
    finally:
        library.SentenceTransformerTrainingArguments = arguments


def _arguments(settings: SetfitConfig, rows: int, seed: int, folder: str) -> Any:
    from setfit import TrainingArguments

    steps = max(1, round(settings.epochs * 2 * settings.iterations * rows / settings.batch_size))
    return TrainingArguments(
        output_dir=str(Path(folder) / "out"),
        batch_size=settings.batch_size,
        # As many pairs as with `num_iterations`, of which the library would first list every one of all rows.
        max_steps=min(steps, settings.max_steps or steps),
        num_epochs=settings.epochs,
        num_iterations=settings.iterations,
        body_learning_rate=settings.lr,
        max_length=settings.max_tokens,
        seed=seed,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        show_progress_bar=False,
    )


def _steps_to(advance: Callable[[int], None]) -> Any:
    from transformers import TrainerCallback

    class Steps(TrainerCallback):
        """Moves our progress bar."""

        def on_step_end(self, *_given: Any, **_named: Any) -> None:
            advance(1)

    return Steps()


def _take_weights(encoder: Encoder, trained: Any) -> None:
    """Copy trained weights into the encoder's body.

    A pooler, which reads none of our vectors, may be missing.
    """
    body = getattr(encoder.model, encoder.model.base_model_prefix)
    left = body.load_state_dict(trained.state_dict(), strict=False)
    odd = [name for name in (*left.missing_keys, *left.unexpected_keys) if "pooler" not in name]
    assert not odd, f"setfit trained another network: {odd[:3]}"


def _fitted(model_head: Any, labels: int) -> Fitted:
    """Return scikit-learn's regression with a row per label.

    A label without a training row is never the likeliest.
    """
    seen = np.asarray(model_head.classes_).astype(int)
    coef_LF, intercept_L = np.zeros((labels, model_head.coef_.shape[1])), np.full(labels, NEVER)
    intercept_L[seen] = 0.0
    fitted_rows = seen[1:] if len(seen) == 2 else seen  # of two labels: the second against the first
    coef_LF[fitted_rows], intercept_L[fitted_rows] = model_head.coef_, model_head.intercept_
    return Fitted(coef_LF, intercept_L)


def _save_beside(encoder: Encoder, folder: Path) -> None:
    encoder.model.eval()
    with quiet():
        encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)


def _features(run: Run, encoder: Encoder) -> Features:
    def features(rows: Sequence[Example], done: Callable[[int], None]) -> Any:
        return encoder.vectors(_texts(rows), run.config.evaluation.batch_size, done).numpy().astype(np.float64)

    return features


def _texts(rows: Sequence[Example]) -> list[str]:
    return ["\n".join(row.fields.values()) for row in rows]


METHOD = Method(train_setfit, load_judges)
