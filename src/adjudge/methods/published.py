"""What arXiv 2410.11020 reports of PPO against other methods: differences of suite averages in points.

They are of LLaMA-2-7B-chat, on the leaderboards' test rows (abstract and section 4). ``encoder`` is its fine-tuned
BERT-large.
"""

from __future__ import annotations

from typing import Any

PUBLISHED: dict[str, Any] = {
    "source": "arXiv 2410.11020",
    "method": "ppo",
    "title": "PPO",
    "leads": {
        "GLUE": {"zero-shot": 38.7, "few-shot": 26.1, "sft": 6.3, "encoder": 2.7},
        "SuperGLUE": {"zero-shot": 28.8, "few-shot": 28.5, "encoder": 9.3},
    },
    "note": "The paper's leads are of LLaMA-2-7B-chat on the leaderboards' test rows; its encoder is BERT-large, its "
    "SFT one epoch on whole sequences.",
}
"""The lead of `method` over others, by suite; as it stands in table.json."""
