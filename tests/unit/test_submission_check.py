"""`adjudge submit --check` on zips: a right one passes, problems are reported, nothing is unpacked."""

import io
import resource
import stat
import subprocess
import sys
import zipfile

import pytest
from submissions import form_of, right_file, right_files, write, zipped

from adjudge.errors import DataError
from adjudge.submission.check import MAX_MEMBERS, MAX_ZIP_BYTES, check_submission, check_zip
from adjudge.submission.formats import SUITES


@pytest.mark.parametrize("suite", SUITES)
def test_a_right_submission_has_no_problems(suite):
    files = right_files(suite)
    assert check_zip(io.BytesIO(zipped(files)), "a.zip") == []
    assert check_zip(io.BytesIO(zipped(files, zipfile.ZIP_STORED)), "a.zip") == []


def test_a_single_file_is_recognised_by_its_name(tmp_path):
    assert check_submission(write(tmp_path / "WSC.jsonl", right_file(form_of("WSC.jsonl")))) == []
    short = write(tmp_path / "WNLI.tsv", b"index\tprediction\n0\t2\n")
    assert [str(problem) for problem in check_submission(short)] == [
        f"{short}:2: prediction: '2' is not one of 0, 1",
        f"{short}: index: 145 of 146 rows are missing: 1 to 145",
    ]


def problems_of(content, name="a.zip", **options):
    return [str(problem) for problem in check_zip(io.BytesIO(content), name, **options)]


@pytest.fixture(scope="module")
def glue():
    return right_files("glue")


@pytest.fixture(scope="module")
def superglue():
    return right_files("superglue")


def test_missing_files_are_named_unless_partial(superglue):
    some = {name: superglue[name] for name in ("CB.jsonl", "WSC.jsonl")}
    missing = "BoolQ.jsonl, COPA.jsonl, MultiRC.jsonl, ReCoRD.jsonl, RTE.jsonl, WiC.jsonl, AX-b.jsonl, AX-g.jsonl"
    assert problems_of(zipped(some)) == [f"a.zip: {missing} are missing; the site wants every file"]
    assert problems_of(zipped(some), partial=True) == []
    assert problems_of(zipped(superglue | {"CB.jsonl": b""}), partial=True)[0] == "CB.jsonl: the file is empty"
    assert problems_of(zipped({})) == ["a.zip: holds no file of a submission, such as CoLA.tsv or BoolQ.jsonl"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("superglue/CB.jsonl", "'superglue/CB.jsonl' is in a folder; put CB.jsonl at the top of the zip"),
        ("../CB.jsonl", "'../CB.jsonl' points outside the zip; put CB.jsonl at its top"),
        ("/etc/CB.jsonl", "'/etc/CB.jsonl' points outside the zip; put CB.jsonl at its top"),
        ("a\\..\\CB.jsonl", "points outside the zip; put CB.jsonl at its top"),
        ("C:\\CB.jsonl", "points outside the zip; put CB.jsonl at its top"),
        ("cb.jsonl", "'cb.jsonl' is not a file of a submission. Did you mean 'CB.jsonl'?"),
        ("../../etc/passwd", "'../../etc/passwd' is not a file of a submission. Remove it."),
        ("__MACOSX/._CB.jsonl", "'__MACOSX/._CB.jsonl' is not a file of a submission."),
        ("\x1b[2J.txt", "'\\x1b[2J.txt' is not a file of a submission. Remove it."),
    ],
)
def test_members_with_unknown_names_are_reported_and_not_unpacked(name, message, superglue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problems = problems_of(zipped(superglue | {name: b"x"}))
    assert len(problems) == 1
    assert message in problems[0]
    assert list(tmp_path.iterdir()) == []


def test_files_of_both_suites_are_two_submissions(superglue):
    files = superglue | {"WNLI.tsv": right_file(form_of("WNLI.tsv"))}
    assert problems_of(zipped(files)) == ["a.zip: holds files of both GLUE and SuperGLUE; these are two submissions"]


def test_repeated_members_and_links_are_reported(superglue):
    content = io.BytesIO(zipped(superglue))
    with zipfile.ZipFile(content, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("CB.jsonl", b"")
    assert problems_of(content.getvalue()) == ["a.zip: has CB.jsonl twice"]
    without = {name: data for name, data in superglue.items() if name != "CB.jsonl"}
    content = io.BytesIO(zipped(without))
    with zipfile.ZipFile(content, "a") as archive:
        link = zipfile.ZipInfo("CB.jsonl")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert problems_of(content.getvalue())[0] == "a.zip: CB.jsonl is a link, not a file"


def test_a_file_that_is_not_a_zip_is_reported(tmp_path, superglue):
    assert problems_of(b"")[0].startswith("a.zip: cannot be read as a zip")
    assert problems_of(b"PK\x03\x04 and so on")[0].startswith("a.zip: cannot be read as a zip")
    assert problems_of(zipped(superglue)[:-30])[0].startswith("a.zip: cannot be read as a zip")
    with pytest.raises(DataError, match="is a folder"):
        check_submission(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        check_submission(tmp_path / "none.zip")
    with pytest.raises(DataError, match=r"Did you mean 'CoLA\.tsv'"):
        check_submission(write(tmp_path / "cola.tsv", b""))


def test_damaged_members_are_reported(superglue):
    content = bytearray(zipped(superglue, zipfile.ZIP_STORED))
    start = content.index(b'{"idx": 17, "label": "')
    content[start + 9 : start + 10] = b"8"
    assert any("cannot be unpacked" in problem and "CRC" in problem for problem in problems_of(bytes(content)))
    encrypted = bytearray(zipped(superglue))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = encrypted.index(signature)
        encrypted[start + offset] |= 1
    assert problems_of(bytes(encrypted)) == ["BoolQ.jsonl: is encrypted"]
    assert (
        problems_of(zipped(superglue, zipfile.ZIP_LZMA))[0]
        == "BoolQ.jsonl: is compressed in a way that some programs cannot read"
    )


def test_a_zip_with_many_members_or_bytes_is_not_read_through(superglue):
    files = superglue | {f"{number}.txt": b"" for number in range(MAX_MEMBERS)}
    problems = problems_of(zipped(files))
    assert problems[0] == f"a.zip: has {len(files)} members; only the first {MAX_MEMBERS} were checked"
    assert len(problems) == MAX_MEMBERS - len(superglue) + 1
    assert "was not opened" in problems_of(b"\0" * (MAX_ZIP_BYTES + 1))[0]


BOMB = """
import io, resource, sys, zipfile
sys.path.insert(0, "tests")
from adjudge.submission.check import check_zip
content = io.BytesIO()
with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("CoLA.tsv", "w") as member:
    for _ in range(512):
        member.write(sys.argv[1].encode().decode("unicode_escape").encode() * (2**20 // 2))
limit = 2**29
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for problem in check_zip(content, "a.zip"):
    print(problem)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="the system cannot limit a process's memory")
@pytest.mark.parametrize(("filling", "problem"), [("xy", "larger than 64 MiB"), (r"x\n", "more than 3,126 lines")])
def test_a_huge_member_is_read_within_bounds(filling, problem):
    """Half a gibibyte of one line, or of short lines, in a process with half a gibibyte of memory."""
    result = subprocess.run(
        [sys.executable, "-c", BOMB, filling], capture_output=True, text=True, check=True, timeout=120
    )
    assert problem in result.stdout
    assert "the rest was not read" in result.stdout
    assert len(result.stdout) < 4000
