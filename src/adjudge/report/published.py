"""What arXiv 2410.11020 reports of PPO against other methods, beside what a comparison here measured.

The paper's figures are differences of suite averages on the leaderboards' test rows, with LLaMA-2-7B-chat (abstract and
section 4). Ours are on the rows judged here, with another model: the table says whether the *gaps* are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adjudge.report.suites import SuiteScores

METHOD = "ppo"

LEADS: Mapping[str, Mapping[str, float]] = {
    "GLUE": {"zero-shot": 38.7, "few-shot": 26.1, "sft": 6.3, "encoder": 2.7},
    "SuperGLUE": {"zero-shot": 28.8, "few-shot": 28.5, "encoder": 9.3},
}
"""By suite and method: the lead of PPO, in points. ``encoder`` is the paper's fine-tuned BERT-large."""


def published_columns(scores: Sequence[SuiteScores]) -> tuple[list[str], list[list[str]]] | None:
    """Return header and cells of one suite: PPO's lead over each method, here and in the paper.

    None without PPO, and without a method that the paper compares it with. Only averages over the same tasks are
    compared.
    """
    own = next((item for item in scores if item.method == METHOD), None)
    if own is None or own.averages[0].value is None:
        return None
    lines = []
    for item in scores:
        lead = LEADS.get(item.suite, {}).get(item.method)
        average = item.averages[0]
        if lead is not None and average.value is not None and average.tasks == own.averages[0].tasks:
            lines.append([item.method, f"{100 * (own.averages[0].value - average.value):+.1f}", f"{lead:+.1f}"])
    return (["PPO's lead in points over", "here", "in arXiv 2410.11020"], lines) if lines else None


PUBLISHED_LINE = (
    "The paper's leads are of LLaMA-2-7B-chat on the leaderboards' test rows; its encoder is BERT-large, its SFT one "
    "epoch on whole sequences."
)
