"""Check a submission from any source, a zip or a single file. Nothing is unpacked to disk."""

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
"""Far above a submission's size (GLUE: about 1 MB). The list of members is read at once, so the size is bounded."""

MAX_MEMBERS = 100
"""How many members are checked; a submission has 10 or 11."""

_ENCRYPTED = 0x1


def check_submission(path: Path, *, partial: bool = False) -> list[Problem]:
    """Return all problems of a submission, or of one file of it.

    With `partial`, missing files are allowed. Raises DataError when `path` cannot be read or its name is unknown.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a zip, or one of its files.")
    try:
        with path.open("rb") as stream:
            form = form_of_file(path.name)
            if form is not None:
                return check_file(form, stream, str(path))
            if path.suffix.lower() in (".tsv", ".jsonl"):
                hint = _nearest_file(path.name)
                raise DataError(f"{path}: no submission has a file of this name, so its rows cannot be checked.{hint}")
            return check_zip(stream, path.name, partial=partial)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from None


def check_zip(stream: BinaryIO, name: str, *, partial: bool = False) -> list[Problem]:
    """Return all problems of a zip; those of the zip as a whole begin with `name`."""
    size = stream.seek(0, io.SEEK_END)
    if size > MAX_ZIP_BYTES:
        message = (
            f"has {size / 2**20:.0f} MiB and was not opened; no submission is larger than {MAX_ZIP_BYTES // 2**20} MiB"
        )
        return [Problem(name, message)]
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        return [Problem(name, f"cannot be read as a zip: {error}")]
    with archive:
        members = archive.infolist()
        problems, forms = _check_names(name, members)
        for member, form in forms:
            problems += _check_member(archive, member, form)
    return problems + _check_completeness(name, [form for _, form in forms], partial=partial)


def _check_names(name: str, members: list[zipfile.ZipInfo]) -> tuple[list[Problem], list[tuple[zipfile.ZipInfo, Form]]]:
    """Return the problems of the members' names and kinds, and the members that are files of a submission."""
    problems: list[Problem] = []
    forms: dict[str, tuple[zipfile.ZipInfo, Form]] = {}
    if len(members) > MAX_MEMBERS:
        problems.append(Problem(name, f"has {len(members):,} members; only the first {MAX_MEMBERS} were checked"))
    for member in members[:MAX_MEMBERS]:
        form = form_of_file(member.filename)
        if form is None:
            problems.append(Problem(name, _wrong_name(member.filename)))
        elif form.file in forms:
            problems.append(Problem(name, f"has {form.file} twice"))
        elif stat.S_ISLNK(member.external_attr >> 16):
            problems.append(Problem(name, f"{form.file} is a link, not a file"))
        else:
            forms[form.file] = member, form
    return problems, list(forms.values())


def _wrong_name(member: str) -> str:
    """Return the message for a member that is not a file of a submission."""
    path = member.replace("\\", "/")
    base = path.rstrip("/").rpartition("/")[2]
    if form_of_file(base) is not None:
        if path.startswith("/") or ".." in path.split("/") or ":" in path:
            return f"{quoted(member)} points outside the zip; put {base} at its top"
        return f"{quoted(member)} is in a folder; put {base} at the top of the zip"
    hint = _nearest_file(base) if base.lower().endswith((".tsv", ".jsonl")) else " Remove it."
    return f"{quoted(member)} is not a file of a submission.{hint}"


def _nearest_file(name: str) -> str:
    names = [form.file for form in FORMS]
    return nearest(next((file for file in names if file.casefold() == name.casefold()), name), names)


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, form: Form) -> list[Problem]:
    if member.flag_bits & _ENCRYPTED:
        return [Problem(form.file, "is encrypted")]
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return [Problem(form.file, "is compressed in a way that some programs cannot read")]
    try:
        with archive.open(member) as stream:
            reader = io.BufferedReader(stream)  # type: ignore[type-var]  # a reader, though its type does not say so
            return check_file(form, reader, form.file)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        return [Problem(form.file, f"cannot be unpacked: {str(error) or 'it ends too early'}")]


def _check_completeness(name: str, forms: list[Form], *, partial: bool) -> list[Problem]:
    """Return a problem unless the zip has all files of one suite and none of the other."""
    suites = sorted({form.suite for form in forms})
    if not suites:
        return [Problem(name, "holds no file of a submission, such as CoLA.tsv or BoolQ.jsonl")]
    if len(suites) > 1:
        return [Problem(name, "holds files of both GLUE and SuperGLUE; these are two submissions")]
    missing = [form.file for form in SUITES[suites[0]] if form not in forms]
    if partial or not missing:
        return []
    return [Problem(name, f"{', '.join(missing)} {are(len(missing))} missing; the site wants every file")]
