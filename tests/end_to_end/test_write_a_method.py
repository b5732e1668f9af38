"""The page "Write a method in 60 lines", followed to the letter: three edits, and the method trains."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from copied_package import FOLDER
from fake_method import write_reviews
from processes import run_program

import adjudge

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "write-a-method.md"
IMPORT = "from adjudge.config.policy_gradient import RejectionConfig"
"""What the page says in words."""


def insert(path: Path, text: str, before: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1, (path, before)
    path.write_text(content.replace(before, f"{text}{before}"), encoding="utf-8")


def test_the_page_makes_a_method_that_trains(tiny_llama: Path, tmp_path: Path) -> None:
    file, settings, field, line = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(file.splitlines()) <= 60
    package = tmp_path / "src" / "adjudge"
    shutil.copytree(Path(adjudge.__file__).parent, package)  # with the compiled modules
    (package / "methods" / "rejection.py").write_text(file, encoding="utf-8")
    insert(package / "config" / "policy_gradient.py", f"{settings}\n\n", "class ReinforceConfig(")
    insert(package / "config" / "methods.py", f"{IMPORT}\n", "\n\nclass TemporalEnsemblingConfig(")
    insert(package / "config" / "methods.py", f"    {field}", "    encoder: EncoderConfig")
    before = '        encoder_entry(\n            "encoder"'
    insert(package / "methods" / "registry.py", f"        {line.strip()},\n", before)
    data = write_reviews(tmp_path / "reviews.csv", 40)
    command = [
        *("train", "rejection", "--data", data, "--text", "text", "--label", "label", "--model", tiny_llama),
        *("--train-rows", 16, "--eval-rows", 4, "--out", tmp_path / "run", "rejection.batch_size=4"),
        *("rejection.min_steps=0", "runtime.dtype=float32", "runtime.threads=1"),
    ]
    run_program("copied_package", *command, **{FOLDER: str(package.parent)})
    assert len((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 8
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
