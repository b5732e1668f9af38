"""Checks a submission: a zip of either site, whoever wrote it, or one of its files alone. Nothing is unpacked to disk."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from adjudge.errors import DataError, nearest
from adjudge.submission.check_file import check_file
from adjudge.submission.formats import FORMS, SUITES, Form, form_of_file
from adjudge.submission.problems import Problem, are
from adjudge.system.text import quoted

MAX_ZIP_BYTES = 2**24
"""Far above a submission's size (GLUE's has about 1 MB). A zip's list of members is read at once, so its size has to be bounded."""

MAX_MEMBERS = 100
"""Members that are looked at; a submission has 10 or 11."""

_ENCRYPTED = 0x1


def check_submission(path: Path, *, partial: bool = False) -> list[Problem]:
    """Everything that is wrong with a submission, or with one file of it; empty when nothing is.

    With `partial`, files that are missing are no problem. Raises DataError when `path` cannot be read, or is no file of a submission.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a zip, or one of its files.")
    try:
        with path.open("rb") as stream:
            form = form_of_file(path.name)
            if form is not None:
                return check_file(form, stream, str(path))
            if path.suffix.lower() in (".tsv", ".jsonl"):
                raise DataError(
                    f"{path}: no submission has a file of this name, so nothing says what is right.{_nearest_file(path.name)}"
                )
            return check_zip(stream, path.name, partial=partial)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from None


def check_zip(stream: BinaryIO, name: str, *, partial: bool = False) -> list[Problem]:
    """Everything that is wrong with a zip; `name` stands in the problems that concern the whole of it."""
    size = stream.seek(0, io.SEEK_END)
    if size > MAX_ZIP_BYTES:
        return [
            Problem(
                name,
                f"has {size / 2**20:.0f} MiB and was not opened; no submission is larger than {MAX_ZIP_BYTES // 2**20} MiB",
            )
        ]
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        return [Problem(name, f"is not a zip that can be read: {error}")]
    with archive:
        members = archive.infolist()
        problems, forms = _check_names(name, members)
        for member, form in forms:
            problems += _check_member(archive, member, form)
    return problems + _check_completeness(name, [form for _, form in forms], partial=partial)


def _check_names(name: str, members: list[zipfile.ZipInfo]) -> tuple[list[Problem], list[tuple[zipfile.ZipInfo, Form]]]:
    """Problems with the members' names and kinds, and the members that are files of a submission."""
    problems: list[Problem] = []
    forms: dict[str, tuple[zipfile.ZipInfo, Form]] = {}
    if len(members) > MAX_MEMBERS:
        problems.append(Problem(name, f"has {len(members):,} members; only the first {MAX_MEMBERS} were looked at"))
    for member in members[:MAX_MEMBERS]:
        form = form_of_file(member.filename)
        if form is None:
            problems.append(Problem(name, _wrong_name(member.filename)))
        elif form.file in forms:
            problems.append(Problem(name, f"has {form.file} twice"))
        elif stat.S_ISLNK(member.external_attr >> 16):
            problems.append(Problem(name, f"{form.file} is a link and not a file"))
        else:
            forms[form.file] = member, form
    return problems, list(forms.values())


def _wrong_name(member: str) -> str:
    """Why a member is no file of a submission."""
    path = member.replace("\\", "/")
    base = path.rstrip("/").rpartition("/")[2]
    if form_of_file(base) is not None:
        if path.startswith("/") or ".." in path.split("/") or ":" in path:
            return f"{quoted(member)} points out of the zip; put {base} at its top"
        return f"{quoted(member)} is in a folder; put {base} at the top of the zip"
    hint = _nearest_file(base) if base.lower().endswith((".tsv", ".jsonl")) else " Take it out."
    return f"{quoted(member)} is no file of a submission.{hint}"


def _nearest_file(name: str) -> str:
    names = [form.file for form in FORMS]
    return nearest(next((file for file in names if file.casefold() == name.casefold()), name), names)


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, form: Form) -> list[Problem]:
    if member.flag_bits & _ENCRYPTED:
        return [Problem(form.file, "is encrypted")]
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return [Problem(form.file, "is packed in a way that not every program can unpack")]
    try:
        with archive.open(member) as stream:
            return check_file(form, io.BufferedReader(stream), form.file)  # type: ignore[type-var]  # a reader, though typed as none
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        return [Problem(form.file, f"cannot be unpacked: {str(error) or 'it ends too early'}")]


def _check_completeness(name: str, forms: list[Form], *, partial: bool) -> list[Problem]:
    """That all files of one suite are there, and none of the other."""
    suites = sorted({form.suite for form in forms})
    if not suites:
        return [Problem(name, "holds no file of a submission, such as CoLA.tsv or BoolQ.jsonl")]
    if len(suites) > 1:
        return [Problem(name, "holds files of both GLUE and SuperGLUE; these are two submissions")]
    missing = [form.file for form in SUITES[suites[0]] if form not in forms]
    if partial or not missing:
        return []
    return [Problem(name, f"{', '.join(missing)} {are(len(missing))} missing; the site wants every file")]
