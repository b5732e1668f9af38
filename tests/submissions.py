"""Submissions for tests: right files of every form, and zips of them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from adjudge.submission.formats import SUITES, Form, form_of_file

PASSAGE_OPTIONS = 60
"""Answer options per passage of our MultiRC, in questions of 6."""


def right_lines(form: Form) -> list[str]:
    """Return the lines of a right file in which every label occurs."""
    if form.shape == "options":
        return [_passage(form, start) for start in range(0, form.rows, PASSAGE_OPTIONS)]
    if form.shape == "entity":
        return [json.dumps({"idx": index, "label": f"Entity {index}"}) for index in range(form.rows)]
    if form.is_json:
        return [
            json.dumps({"idx": index, "label": form.labels[index % len(form.labels)]}) for index in range(form.rows)
        ]
    labels = form.labels or ("0", "2.5", "5.000", "4e-1")
    return ["index\tprediction", *(f"{index}\t{labels[index % len(labels)]}" for index in range(form.rows))]


def _passage(form: Form, start: int) -> str:
    options = [{"idx": index, "label": index % 2} for index in range(start, min(start + PASSAGE_OPTIONS, form.rows))]
    questions = [{"idx": (start + at) // 6, "answers": options[at : at + 6]} for at in range(0, len(options), 6)]
    return json.dumps({"idx": start // PASSAGE_OPTIONS, "passage": {"questions": questions}})


def right_file(form: Form) -> bytes:
    """Return a right file."""
    return "".join(f"{line}\n" for line in right_lines(form)).encode()


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of these files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def right_files(suite: str) -> dict[str, bytes]:
    """Return all files of a suite, right."""
    return {form.file: right_file(form) for form in SUITES[suite]}


def form_of(name: str) -> Form:
    """Return the form of a known file."""
    form = form_of_file(name)
    assert form is not None
    return form


def write(path: Path, content: bytes) -> Path:
    """Write a file and its folders; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
