"""A fine-tuned encoder for onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adjudge.errors import ConfigError, RunError
from adjudge.evaluation.logits import predictions_of
from adjudge.methods.registry import get_entry
from adjudge.models.encoder import texts_of
from adjudge.models.sources.quiet import quiet
from adjudge.runs.folder import Run
from adjudge.runs.portable import FILE, judge_record
from adjudge.system.console import progress
from adjudge.system.files import write_json
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

DTYPES = ("float32",)
MODEL = "model.onnx"
OPSET = 18


def write(run: Run, specs: Sequence[TaskSpec], folder: Path, dtype: str) -> Any:
    """Write model.onnx, the tokenizer and judge.json into `folder`; return the judge of what was written.

    Raises RunError for a run without a fine-tuned encoder, and ConfigError without the packages.
    """
    if not (run.part("encoder") / "config.json").is_file():
        raise RunError(f"{run.folder} has no fine-tuned encoder; the format onnx is for those. Take merged or gguf.")
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError("The format onnx needs more packages: pip install 'adjudge[onnx]'.") from None
    (judge,) = get_entry(run.config.method).load().load(run, specs)
    encoder = judge.encoder
    example = encoder.encoded([texts_of(dict.fromkeys(specs[0].fields, text)) for text in ("a text", "a second text")])
    names = list(example)
    shapes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("tokens", min=1)}
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about torch: nothing to do for a user
        torch.onnx.export(
            _Logits(encoder.model.cpu(), names).eval(),
            tuple(example[name].cpu() for name in names),
            str(folder / MODEL),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple(shapes for _ in names),),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    encoder.model.config.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    write_json(folder / FILE, judge_record(run, specs) | {"format": "onnx"})
    return _judging(folder, encoder, run.config.evaluation.batch_size)


class _Logits(nn.Module):
    """The classifier as a function of its tensors, in the order of `names`."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, list(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, tensors, strict=True))).logits
        return logits


def _judging(folder: Path, encoder: Any, batch_size: int) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / MODEL), providers=["CPUExecutionProvider"])

    def judge(spec: TaskSpec, rows: Sequence[Example]) -> list[Prediction]:
        logits = []
        with progress("judging again", len(rows)) as bar:
            for start in range(0, len(rows), batch_size):
                part = rows[start : start + batch_size]
                encoded = encoder.encoded([texts_of(row.fields) for row in part])
                tensors = {name: np.asarray(tensor.cpu()) for name, tensor in encoded.items()}
                logits.append(session.run(["logits"], tensors)[0])
                bar.advance(len(part))
        return predictions_of(rows, torch.from_numpy(np.concatenate(logits)), spec, probabilities=False)

    return judge
