"""Read sentences rated by people from -4 to 4.

They are movie reviews, tweets, newspaper editorials and product reviews. The ratings are in an archive inside the
source archive of vaderSentiment 3.3.2 (MIT). Every row is ``id TAB mean of 20 ratings TAB text``, lines end with CRLF,
and the encoding is UTF-8.

Source: Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
ICWSM 2014.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import zlib
from pathlib import Path

from adjudge.errors import DataError
from adjudge.system.console import note
from adjudge.system.download import VADER, DownloadError, download
from adjudge.system.files import cache_dir, write_bytes
from adjudge.system.text import shorten
from adjudge.tasks.reading.rows import gold_of, parse_number, text_of, width_error
from adjudge.tasks.reading.same_text import hash_share, normal_text
from adjudge.tasks.reading.text_files import read_tab_separated
from adjudge.tasks.spec import TaskSpec, VaderSource
from adjudge.types import Example, Value

FILES = {
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
}
COLUMNS = ("id", "rating", "text")
POSITIVE, NEGATIVE = "positive", "negative"
"""Raw labels made from the rating."""

_INNER = "hutto_ICWSM_2014.tar.gz"
_LARGEST = 64 * 2**20
"""Largest size of a member in bytes; the real files are smaller."""


def vader_folder() -> Path:
    """Return the cache folder of the four files."""
    return cache_dir() / "vader"


def is_fetched() -> bool:
    """Return whether all four files are in the cache."""
    return all((vader_folder() / name).is_file() for name in FILES.values())


def fetch_sentences() -> Path:
    """Return the folder of the four files; download them into the cache when missing.

    Raises DataError when they cannot be downloaded.
    """
    folder = vader_folder()
    if is_fetched():
        return folder
    note(f"Fetching the rated sentences: the source archive of {VADER.name}, {VADER.size_mb} MB, once …")
    with tempfile.TemporaryDirectory(prefix="adjudge-") as temporary:
        try:
            archive = download(VADER, Path(temporary))
        except DownloadError as error:
            raise DataError(f"The rated sentences are not in the cache ({folder}). {error}") from None
        extract(archive, folder)
    return folder


def extract(archive: Path, folder: Path) -> None:
    """Write the four files of `FILES` from the source archive of vaderSentiment to `folder`.

    Each file appears whole or not at all. Members are read into memory and written under the fixed names, so no path in
    the archive decides where a file goes. Raises DataError when the archive is damaged or lacks one of them.
    """
    try:
        with tarfile.open(archive, "r:gz") as outer:
            packed = _member(outer, _INNER, archive)
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as inner:
            contents = {name: _member(inner, name, archive) for name in FILES.values()}
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{archive}: cannot be read as the source archive of vaderSentiment: {error}. Fetch it again."
        ) from None
    for name, content in contents.items():
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{archive}: {name} in it is not UTF-8 (byte {error.start}). Fetch it again.") from None
    for name, content in contents.items():
        write_bytes(folder / name, content)


def load_vader(spec: TaskSpec, source: VaderSource, split: str) -> list[Example]:
    """Return the rows of one split, in file order.

    In label tasks a rating >= threshold is positive and <= -threshold negative; rows in between are dropped. Number
    tasks keep the rating of every row. A text is a dev row when its hash falls into the lowest `dev_share`.

    Raises DataError for an unknown split or a damaged file.
    """
    if split not in ("train", "dev"):
        raise DataError(f"{spec.name} has no split '{split}'. There is: train, dev.")
    path = vader_folder() / FILES[source.part]
    if not path.is_file():
        fetch_sentences()
    examples = []
    for line in read_tab_separated(path):
        if len(line.cells) != len(COLUMNS):
            raise width_error(path, line, COLUMNS)
        where = f"{path}:{line.number}"
        cells = dict(zip(COLUMNS, line.cells, strict=True))
        fields = {field: text_of(where, field, column, cells[column]) for field, column in spec.fields.items()}
        gold = _gold(spec, source, where, cells["rating"])
        is_dev = hash_share(normal_text(cells["text"])) < source.dev_share
        if gold is not None and is_dev == (split == "dev"):
            examples.append(Example(f"{path.name}:{line.number}", fields, gold))
    return examples


def _gold(spec: TaskSpec, source: VaderSource, where: str, raw: str) -> Value | None:
    """Return the gold answer of a rating, or None when the rating is too close to 0 for a label task."""
    rating = parse_number(raw)
    if rating is None:
        raise DataError(f"{where}: '{shorten(raw)}' in field 'rating' is not a number.")
    if spec.is_number:
        return gold_of(spec, where, raw)
    if abs(rating) < source.threshold:
        return None
    return gold_of(spec, where, POSITIVE if rating > 0 else NEGATIVE)


def _member(archive: tarfile.TarFile, name: str, path: Path) -> bytes:
    """Return the content of the file `name` in any folder of the archive.

    Raises DataError when there is none.
    """
    for member in archive:
        if member.name.rsplit("/", 1)[-1] == name and member.isfile():
            file = archive.extractfile(member)
            if file is None or member.size > _LARGEST:
                break
            return file.read()
    raise DataError(f"{path}: it does not hold {name}. Is it the source archive of vaderSentiment 3.3.2?")
