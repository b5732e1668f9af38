"""What `adjudge submit --check` says of a zip: nothing of a right one, and nothing that is wrong is passed over or unpacked."""

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
def test_of_a_right_submission_nothing_is_said(suite):
    files = right_files(suite)
    assert check_zip(io.BytesIO(zipped(files)), "a.zip") == []
    assert check_zip(io.BytesIO(zipped(files, zipfile.ZIP_STORED)), "a.zip") == []


def test_one_file_alone_is_told_by_its_name(tmp_path):
    assert check_submission(write(tmp_path / "WSC.jsonl", right_file(form_of("WSC.jsonl")))) == []
    short = write(tmp_path / "WNLI.tsv", b"index\tprediction\n0\t2\n")
    assert [str(problem) for problem in check_submission(short)] == [
        f"{short}:2: prediction: '2' is not one of 0, 1",
        f"{short}: index: 145 of 146 rows are missing: 1 to 145",
    ]


def zip_said(content, name="a.zip", **options):
    return [str(problem) for problem in check_zip(io.BytesIO(content), name, **options)]


@pytest.fixture(scope="module")
def glue():
    return right_files("glue")


@pytest.fixture(scope="module")
def superglue():
    return right_files("superglue")


def test_missing_files_are_named_unless_they_may_be(superglue):
    some = {name: superglue[name] for name in ("CB.jsonl", "WSC.jsonl")}
    missing = "BoolQ.jsonl, COPA.jsonl, MultiRC.jsonl, ReCoRD.jsonl, RTE.jsonl, WiC.jsonl, AX-b.jsonl, AX-g.jsonl"
    assert zip_said(zipped(some)) == [f"a.zip: {missing} are missing; the site wants every file"]
    assert zip_said(zipped(some), partial=True) == []
    assert zip_said(zipped(superglue | {"CB.jsonl": b""}), partial=True)[0] == "CB.jsonl: the file is empty"
    assert zip_said(zipped({})) == ["a.zip: holds no file of a submission, such as CoLA.tsv or BoolQ.jsonl"]


@pytest.mark.parametrize(
    ("name", "said"),
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
def test_members_with_other_names_are_named_and_not_unpacked(name, said, superglue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = zip_said(zipped(superglue | {name: b"x"}))
    assert len(found) == 1
    assert said in found[0]
    assert list(tmp_path.iterdir()) == []


def test_files_of_both_suites_are_two_submissions(superglue):
    files = superglue | {"WNLI.tsv": right_file(form_of("WNLI.tsv"))}
    assert zip_said(zipped(files)) == ["a.zip: holds files of both GLUE and SuperGLUE; these are two submissions"]


def test_a_member_twice_a_link_and_a_folder(superglue):
    content = io.BytesIO(zipped(superglue))
    with zipfile.ZipFile(content, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("CB.jsonl", b"")
    assert zip_said(content.getvalue()) == ["a.zip: has CB.jsonl twice"]
    without = {name: data for name, data in superglue.items() if name != "CB.jsonl"}
    content = io.BytesIO(zipped(without))
    with zipfile.ZipFile(content, "a") as archive:
        link = zipfile.ZipInfo("CB.jsonl")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert zip_said(content.getvalue())[0] == "a.zip: CB.jsonl is a link, not a file"


def test_what_is_no_zip_is_said(tmp_path, superglue):
    assert zip_said(b"")[0].startswith("a.zip: cannot be read as a zip")
    assert zip_said(b"PK\x03\x04 and so on")[0].startswith("a.zip: cannot be read as a zip")
    assert zip_said(zipped(superglue)[:-30])[0].startswith("a.zip: cannot be read as a zip")
    with pytest.raises(DataError, match="is a folder"):
        check_submission(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        check_submission(tmp_path / "none.zip")
    with pytest.raises(DataError, match=r"Did you mean 'CoLA\.tsv'"):
        check_submission(write(tmp_path / "cola.tsv", b""))


def test_damaged_members_are_said(superglue):
    content = bytearray(zipped(superglue, zipfile.ZIP_STORED))
    place = content.index(b'{"idx": 17, "label": "')
    content[place + 9 : place + 10] = b"8"
    assert any("cannot be unpacked" in problem and "CRC" in problem for problem in zip_said(bytes(content)))
    encrypted = bytearray(zipped(superglue))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = encrypted.index(signature)
        encrypted[place + offset] |= 1
    assert zip_said(bytes(encrypted)) == ["BoolQ.jsonl: is encrypted"]
    assert (
        zip_said(zipped(superglue, zipfile.ZIP_LZMA))[0]
        == "BoolQ.jsonl: is compressed in a way that some programs cannot read"
    )


def test_a_zip_of_many_members_or_bytes_is_not_gone_through(superglue):
    files = superglue | {f"{number}.txt": b"" for number in range(MAX_MEMBERS)}
    found = zip_said(zipped(files))
    assert found[0] == f"a.zip: has {len(files)} members; only the first {MAX_MEMBERS} were checked"
    assert len(found) == MAX_MEMBERS - len(superglue) + 1
    assert "was not opened" in zip_said(b"\0" * (MAX_ZIP_BYTES + 1))[0]


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
    """Half a gibibyte of one line, or of short lines, in a process that may have half a gibibyte in all."""
    result = subprocess.run(
        [sys.executable, "-c", BOMB, filling], capture_output=True, text=True, check=True, timeout=120
    )
    assert problem in result.stdout
    assert "the rest was not read" in result.stdout
    assert len(result.stdout) < 4000
