"""The sentences rated by people: unpacking them safely, and their rows."""

import io
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from adjudge.errors import DataError
from adjudge.system.download import DownloadError
from adjudge.system.files import cache_dir, write_bytes
from adjudge.tasks import load_split, load_task
from adjudge.tasks.reading import vader
from adjudge.tasks.reading.vader import FILES, extract, is_fetched, vader_folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADJUDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def packed(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


def sdist(folder: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    path = folder / "vaderSentiment.tar.gz"
    path.write_bytes(packed({"vaderSentiment/additional_resources/hutto_ICWSM_2014.tar.gz": packed(members, links)}))
    return path


def rows(count: int, rating: str = "2.5") -> bytes:
    return "".join(f"{number}\t{rating}\ttext number {number}\r\n" for number in range(count)).encode()


def whole() -> dict[str, bytes]:
    return {f"hutto_ICWSM_2014/{name}": rows(4) for name in FILES.values()}


def test_only_the_four_files_are_written(tmp_path, cache):
    evil = whole() | {"../outside.txt": b"x", "/absolute.txt": b"x", "hutto_ICWSM_2014/_README_.txt": b"x"}
    assert not is_fetched()
    extract(sdist(tmp_path, evil), vader_folder())
    assert is_fetched()
    assert sorted(path.name for path in cache.rglob("*") if path.is_file()) == sorted(FILES.values())
    assert not (tmp_path / "outside.txt").exists()
    assert (vader_folder() / FILES["movies"]).read_bytes() == rows(4)


def test_links_in_the_archive_are_not_followed(tmp_path, cache):
    secret = tmp_path / "secret"
    secret.write_text("1\t1\tsecret\r\n")
    members = whole()
    del members[f"hutto_ICWSM_2014/{FILES['news']}"]
    with pytest.raises(DataError, match=f"it does not hold {FILES['news']}"):
        extract(sdist(tmp_path, members, {f"hutto_ICWSM_2014/{FILES['news']}": str(secret)}), vader_folder())
    assert not is_fetched()


@pytest.mark.parametrize("damage", ["truncated", "no archive", "no inner", "not utf-8", "absent"])
def test_damaged_archives_leave_nothing_behind(tmp_path, cache, damage):
    path = sdist(tmp_path, whole())
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "no archive":
        path.write_bytes(b"hello")
    elif damage == "no inner":
        path.write_bytes(packed({"setup.py": b""}))
    elif damage == "not utf-8":
        path = sdist(tmp_path, whole() | {f"hutto_ICWSM_2014/{FILES['tweets']}": b"1\t2\tcaf\xe9\r\n"})
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"vaderSentiment\.tar\.gz"):
        extract(path, vader_folder())
    assert not any(path.is_file() for path in cache.rglob("*"))


def test_rows_are_fetched_on_first_use(cache, tmp_path, monkeypatch):
    members = whole()
    monkeypatch.setattr(vader, "download", lambda package, folder: sdist(tmp_path, members))
    examples = [example for split in ("train", "dev") for example in load_split(load_task("vader/movies"), split)]
    assert is_fetched()
    assert examples


def test_missing_rows_without_a_network_are_reported(cache, monkeypatch):
    def download(package, folder):
        raise DownloadError("no route")

    monkeypatch.setattr(vader, "download", download)
    with pytest.raises(DataError, match="no route"):
        load_split(load_task("vader/movies"), "dev")


def fill(name: str, content: bytes) -> None:
    write_bytes(vader_folder() / FILES[name], content)


def test_threshold_labels_and_numbers(cache):
    ratings = ["1", "-1", "0.99", "-0.99", "3.94117647059", "-3.875", "0"]
    fill(
        "movies",
        "".join(f"{n}\t{rating}\tText number {n}, caf\u00e9\u2019s.\r\n" for n, rating in enumerate(ratings)).encode(),
    )
    labelled = [e for split in ("train", "dev") for e in load_split(load_task("vader/movies"), split)]
    assert {e.id.rsplit(":", 1)[1]: e.gold for e in labelled} == {
        "1": "Positive",
        "2": "Negative",
        "5": "Positive",
        "6": "Negative",
    }
    rated = [e for split in ("train", "dev") for e in load_split(load_task("vader/movies-rating"), split)]
    assert sorted(e.gold for e in rated) == sorted(float(rating) for rating in ratings)
    assert labelled[0].fields["text"].endswith("caf\u00e9\u2019s.")


def test_dev_share_is_near_the_setting_and_stable(cache):
    fill("movies", rows(4000))
    spec = load_task("vader/movies")
    dev = load_split(spec, "dev")
    assert len(dev) == pytest.approx(4000 * spec.source.vader.dev_share, rel=0.1)
    expected = [
        n for n in range(4000) if int(sha256(f"text number {n}".encode()).hexdigest()[:14], 16) < 0.105 * 16**14
    ]
    assert [e.fields["text"] for e in dev] == [f"text number {n}" for n in expected], (
        "the same split on every machine, for ever"
    )
    assert len(dev) + len(load_split(spec, "train")) == 4000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1\t2.5\tfine\r\n2\t2.5\r\n", r":2: the row has 2 columns where 3 are expected.*field 'text' is missing"),
        (b"1\t2.5\ta\tb\r\n", r":1: the row has 4 columns"),
        (b"1\tgood\tfine\r\n", r":1: 'good' in field 'rating' is not a number"),
        (b"1\tnan\tfine\r\n", r":1: 'nan' in field 'rating' is not a number"),
        (b"1\t2\t \r\n", r":1: field 'text' is empty"),
        (b"", r"the file is empty"),
        (b"1\t2\tcaf\xe9\r\n", r":1: byte 0xe9 is not valid UTF-8"),
    ],
)
def test_wrong_rows_raise_errors_with_location(cache, content, message):
    fill("movies", content)
    with pytest.raises(DataError, match=rf"{FILES['movies']}.*{message}"):
        load_split(load_task("vader/movies"), "dev")


def test_rating_out_of_range_is_an_error(cache):
    fill("movies", b"1\t4.5\tfine\r\n")
    with pytest.raises(DataError, match=r":1: 4\.5 in column 'rating' is outside the range"):
        load_split(load_task("vader/movies-rating"), "dev")


REAL = {
    "movies": (8174, 999),
    "tweets": (2099, 568),
    "news": (1162, 392),
    "products": (1912, 543),
    "movies-rating": (9470, 1135),
}


@pytest.mark.parametrize("part", sorted(REAL))
def test_the_real_sentences(part):
    if not is_fetched():
        pytest.skip("the rated sentences are not in the cache: adjudge fetch vader")
    spec = load_task(f"vader/{part}")
    train, dev = load_split(spec, "train"), load_split(spec, "dev")
    assert (len(train), len(dev)) == REAL[part]
    if not spec.is_number:
        share = sum(e.gold == "Positive" for e in dev) / len(dev)
        assert 0.3 < share < 0.75


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("ADJUDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("ADJUDGE_CACHE")
    assert cache_dir() == tmp_path / "shared" / "adjudge"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "adjudge"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
