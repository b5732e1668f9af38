"""Sentences rated by people from -4 to 4: movie reviews, tweets, newspaper editorials and product reviews.

Source: Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014.
The source archive of vaderSentiment 3.3.2 (MIT) carries the ratings in an archive of its own. Every row is
``id TAB mean of 20 ratings TAB text``, lines end with CRLF, the encoding is UTF-8.
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
from adjudge.tasks.reading.rows import gold_of, hash_share, normal_text, parse_number, text_of, width_error
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
"""Bytes; a member above this is not one of the files."""


def vader_folder() -> Path:
    """Where the four files lie once fetched."""
    return cache_dir() / "vader"


def is_fetched() -> bool:
    """Whether all four files are there."""
    return all((vader_folder() / name).is_file() for name in FILES.values())


def fetch_sentences() -> Path:
    """Download the four files into the cache unless they are there, and return their folder. Raises DataError when it cannot."""
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
    """Read the source archive of vaderSentiment and write the four files of `FILES` to `folder`, each whole or not at all.

    Members are read one by one into memory and only those four are written, under their own names: no path in the archive decides
    where anything goes. Raises DataError when the archive is damaged or lacks one of them.
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
    """Read the rows of one split, in file order.

    Label tasks: rating >= threshold is positive, <= -threshold negative, the rows between are no part of the task. Number tasks:
    the rating of every row. A text is a dev row when a hash of it falls into the lowest `dev_share`. Raises DataError.
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
    rating = parse_number(raw)
    if rating is None:
        raise DataError(f"{where}: '{shorten(raw)}' in field 'rating' is not a number.")
    if spec.is_number:
        return gold_of(spec, where, raw)
    if abs(rating) < source.threshold:
        return None
    return gold_of(spec, where, POSITIVE if rating > 0 else NEGATIVE)


def _member(archive: tarfile.TarFile, name: str, path: Path) -> bytes:
    for member in archive:
        if member.name.rsplit("/", 1)[-1] == name and member.isfile():
            file = archive.extractfile(member)
            if file is None or member.size > _LARGEST:
                break
            return file.read()
    raise DataError(f"{path}: there is no {name} in it. Is it the source archive of vaderSentiment 3.3.2?")
