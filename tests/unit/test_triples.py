"""A user's triples: what is read, what is refused, which nodes a text names, and what joins two of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from adjudge.errors import DataError
from adjudge.evaluation.triples import Graph, Triple, read_triples

TOY = [Triple("aspirin", "treats", "pain"), Triple("pain", "symptom of", "flu"), Triple("rest", "treats", "flu")]


def read(folder: Path, content: str | bytes) -> list[Triple]:
    path = folder / "triples.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_triples(path)


def test_names_are_read_alike_whatever_their_form_and_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["aspirin\ttreats\tpain", "pain\tsymptom_of\tflu", " Rest \ttreats\tFlu", "ASPIRIN\ttreats\t pain"]
    expected = [
        Triple("ASPIRIN", "treats", "pain"),
        Triple("Rest", "treats", "Flu"),
        Triple("pain", "symptom of", "Flu"),
    ]
    for seed in range(4):
        random.Random(seed).shuffle(lines)
        assert read(tmp_path, "\ufeff" + "\r\n".join(lines) + "\n\n  \n") == expected
    assert "1 of 4 lines repeat a triple and count once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a\tb\tc\na\tb\n", r"triples.tsv:2: has 2 columns; a fact has three.*head, relation, tail"),
        ("a b c\n", r"triples.tsv:1: has 1 column; "),
        ("a\tb\tc\td\n", r"triples.tsv:1: has 4 columns; "),
        ("a\t _ \tc\n", r"triples.tsv:1: the relation is empty"),
        ("", "holds no triple"),
        ("\n \n", "holds no triple"),
        (b"caf\xe9\tb\tc\n", r"is not UTF-8 \(byte 3\)"),
    ],
)
def test_what_is_no_table_of_triples_is_refused(content: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, content)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no such file. Name a TSV"):
        read_triples(tmp_path / "none.tsv")
    with pytest.raises(DataError, match="cannot be read: "):
        read_triples(tmp_path)


def test_the_longest_names_of_whole_words_are_the_entities() -> None:
    graph = Graph([*TOY, Triple("low back pain", "is", "pain"), Triple("St. John's wort", "treats", "+++")])
    text = "Does Aspirin (or St. John's Wort) treat LOW-BACK pain, pain or painting?"
    assert graph.entities(text) == ["aspirin", "St. John's wort", "low back pain", "pain"]
    assert graph.entities("nothing here") == graph.entities("") == []
    assert graph.relations_in("It treats a symptom_of flu.") == ["treats", "symptom of"]
    assert Graph([]).entities("aspirin") == []


def test_two_triples_are_joined_on_the_node_between_them() -> None:
    graph = Graph(TOY)
    assert graph.nodes == ["aspirin", "flu", "pain", "rest"]
    assert graph.relations == ["treats", "symptom of"]
    assert graph.between(["aspirin"], ["flu"]) == ["pain"]
    assert graph.between(["flu"], ["aspirin"]) == []
    assert graph.edges(["pain", "rest"], ["flu"]) == TOY[1:]
    # Edge lists of different lengths and orders: pairing them by their place would miss the second path.
    more = Graph([Triple("a", "r", "x"), Triple("a", "r", "y"), Triple("y", "s", "b"), Triple("x", "s", "c")])
    assert more.between(["a"], ["b"]) == ["y"]
    assert more.between(["a"], ["b", "c"]) == ["x", "y"]
    assert graph.touching(["pain", "flu"]) == [TOY[1], TOY[0], TOY[2]]
