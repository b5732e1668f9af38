"""SetFit by its library: trained, saved, loaded, repeated to the byte, and refused where it cannot learn."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from running import load_one, logged, train_one
from specs import label_task

import adjudge
from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, ModelError
from adjudge.runs.folder import Run
from adjudge.runs.portable import write_portable
from adjudge.types import Example

pytestmark = pytest.mark.skipif(importlib.util.find_spec("setfit") is None, reason="the extra setfit is not installed")
LABELS = label_task("Bad", "Good", "Mixed")
ROWS = [
    Example(f"t:{row}", {"text": f"{word} film {'the ' * (row % 3)}[SEP]"}, label)
    for row, (word, label) in enumerate([("bad", "Bad"), ("good", "Good")] * 6)
]


def new_run(folder: Path, bert: Path, **more: Any) -> Run:
    values = {"method": "setfit", "setfit.model": str(bert), "runtime.device": "cpu", "setfit.iterations": 2}
    return Run.create(folder, load_config(values={**values, "setfit.batch_size": 8, "setfit.lr": 1e-3, **more}))


def test_it_learns_and_judges_the_same_again_and_elsewhere(tiny_bert: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", tiny_bert)
    judged = train_one("setfit", run, LABELS, ROWS).judge(ROWS, probabilities=True)
    assert [row.value for row in judged] == [row.gold for row in ROWS]
    assert all(row.probabilities["Mixed"] < 1e-9 for row in judged)  # no row of it was seen
    (record,) = logged(run)
    assert record["pairs"] == 48 and record["loss"] < record["first_loss"]
    assert load_one("setfit", Run.open(run.folder), LABELS).judge(ROWS, probabilities=True) == judged
    assert not [path for path in run.folder.rglob("*") if path.suffix in (".pkl", ".bin", ".pt")]
    write_portable(run, [LABELS], [])
    shutil.copytree(run.folder / "regression", tmp_path / "moved")
    moved = adjudge.open_judge(tmp_path / "moved").predict([row.fields for row in ROWS])
    assert [row.value for row in moved] == [row.value for row in judged]
    short = new_run(tmp_path / "short", tiny_bert, **{"setfit.max_steps": 1})
    train_one("setfit", short, LABELS, ROWS)
    assert logged(short)[0]["pairs"] == 8
    again = new_run(tmp_path / "again", tiny_bert)
    train_one("setfit", again, LABELS, ROWS)
    for name in ("regression/weights.safetensors", "regression/model.safetensors", "metrics.jsonl"):
        assert (again.folder / name).read_bytes() == (run.folder / name).read_bytes(), name


def test_the_library_trains_where_the_run_computes(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone, it takes the first graphics card, or all of them."""
    from setfit import trainer

    arguments, asked = trainer.SentenceTransformerTrainingArguments, []
    monkeypatch.setattr(
        trainer, "SentenceTransformerTrainingArguments", lambda **given: asked.append(given) or arguments(**given)
    )
    train_one("setfit", new_run(tmp_path / "run", tiny_bert), LABELS, ROWS)
    assert [given["use_cpu"] for given in asked] == [True]


def test_what_it_cannot_learn_from_is_named(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(tmp_path / "run", tiny_bert)
    with pytest.raises(DataError, match="all 6 training rows have one label, and setfit pairs rows of two"):
        train_one("setfit", run, LABELS, ROWS[::2])
    with pytest.raises(DataError, match=r"the gold answer None is none of Bad, Good, Mixed"):
        train_one("setfit", run, LABELS, [*ROWS, Example("t:99", {"text": "film"})])
    monkeypatch.setattr("adjudge.methods.setfit.MOST_ROWS", 10)
    with pytest.raises(DataError, match=r"12 are more than 10. Give it some of them: --shots 64"):
        train_one("setfit", run, LABELS, ROWS)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "setfit", None)
    with pytest.raises(ConfigError, match=r"pip install 'adjudge\[setfit\]'"):
        train_one("setfit", run, LABELS, ROWS)


OWN_CODE = """
from transformers import BertConfig, BertForSequenceClassification, BertModel

class OwnConfig(BertConfig):
    model_type = "brand-new"

class OwnModel(BertModel):
    config_class = OwnConfig

class OwnClassifier(BertForSequenceClassification):
    config_class = OwnConfig
"""


def test_an_encoder_with_code_of_its_own_is_trained_and_judges_where_it_is_trusted(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    (folder / "own.py").write_text(OWN_CODE, encoding="utf-8")
    names = {"AutoConfig": "OwnConfig", "AutoModel": "OwnModel", "AutoModelForSequenceClassification": "OwnClassifier"}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "brand-new", "auto_map": {auto: f"own.{name}" for auto, name in names.items()}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        train_one("setfit", new_run(tmp_path / "refused", folder), LABELS, ROWS)
    run = new_run(tmp_path / "run", folder, **{"runtime.trust_remote_code": str(folder)})
    judged = train_one("setfit", run, LABELS, ROWS).judge(ROWS, probabilities=True)
    assert [row.value for row in judged] == [row.gold for row in ROWS]
    assert load_one("setfit", Run.open(run.folder), LABELS).judge(ROWS, probabilities=True) == judged
