"""The settings of methods that ask a model many small questions about a row: comparisons, and facts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adjudge.config.base import Settings

AskingMode = Literal["auto", "scoring", "generation"]


class PrpConfig(Settings):
    """Pairwise ranking prompting (arXiv 2306.17563)."""

    ranking: Literal["allpair", "sorting", "sliding"] = Field(
        "allpair",
        description="how the candidates of a group are ranked: every pair; heapsort; or passes from the last candidate "
        "to the first",
    )
    passes: int = Field(1, ge=1, description="passes of prp.ranking=sliding: the first so many candidates are ranked")
    orders: Literal["both", "random"] = Field(
        "both", description="a pair is asked in both orders, or in one that the seed draws, for half the price"
    )
    wins: Literal["agreed", "probability"] = Field(
        "agreed",
        description="a candidate wins when both orders agree, else it is a tie; probability: it wins by its mean "
        "probability over the orders (ours)",
    )
    mode: AskingMode = Field(
        "auto",
        description="the likelier of the words A and B, or an answer that is read; auto: the likelier where the model "
        "gives probabilities",
    )
    question: str | None = Field(
        None, description="what is asked of A and B after the task's instruction; unset: a question that fits the task"
    )
    answer: Literal["auto", "top", "threshold"] = Field(
        "auto",
        description="which rows of a group are positive: the best, or all above a threshold set on training rows; "
        "auto: the best where no training group has two",
    )
    anchors: int = Field(
        12, ge=1, description="training rows that a row without a group is compared with; at most half of them"
    )
    fit_rows: int = Field(
        48, ge=1, description="other training rows, on which the threshold or the curve from wins to numbers is set"
    )


class GiveConfig(Settings):
    """Answers from a graph of facts whose gaps the model fills (arXiv 2410.08475)."""

    triples: str | None = Field(
        None, description="TSV file with a fact per line: head, relation, tail; without a header"
    )
    use: Literal["progressive", "paste"] = Field(
        "progressive",
        description="progressive: three answers, each with more facts; paste: a control that pastes the facts which "
        "name the row's entities",
    )
    entities: int = Field(3, ge=2, description="most entities of a row; the longest names are kept")
    neighbours: int = Field(2, ge=0, description="nodes of the graph nearest to each entity, which join its group")
    relations: int = Field(
        8, ge=0, description="most frequent relations to choose from between two nodes; 0: none is asked for"
    )
    paths: int = Field(9, ge=1, le=9, description="most nodes between two groups to choose from, where no fact is true")
    facts: int = Field(30, ge=1, description="most facts of one kind in a prompt")
    mode: AskingMode = Field(
        "auto",
        description="the likeliest of the words, or an answer that is read; auto: the likeliest where the model gives "
        "probabilities",
    )
    encoder: str = Field("minilm-l6", description="sentence encoder of the names: id or folder")
