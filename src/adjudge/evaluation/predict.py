"""Judges: what turns rows into predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from adjudge.config import Config
from adjudge.models.policy import Policy
from adjudge.prompts.answers import read_answer
from adjudge.prompts.render import Renderer
from adjudge.rollout.analysis import analyse, open_next
from adjudge.rollout.answer_end import AnalysisEnd, answer_end
from adjudge.rollout.label_scoring import label_logps
from adjudge.rollout.sampler import Sampling, by_length, respond
from adjudge.system.console import note, progress
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Judgement, Prediction


class Judge(Protocol):
    """Anything that judges rows: a prompted policy or a fine-tuned encoder."""

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row; as many predictions as rows, in their order. Shows progress under `title`.

        With `probabilities`, each prediction of a label task carries a probability per label word.
        """
        ...


class PromptedJudge:
    """A policy that is asked with a prompt: zero-shot, few-shot, SFT and PPO all judge this way."""

    def __init__(self, policy: Policy, spec: TaskSpec, config: Config, demonstrations: Sequence[Example] = ()) -> None:
        self.policy, self.spec, self.config = policy, spec, config
        self.renderer = Renderer(policy.tokenizer, spec, config.prompt, demonstrations)
        self.end = answer_end(policy.tokenizer, policy.end_ids, spec, config.answer)
        analysis = AnalysisEnd(policy.tokenizer, tuple(policy.end_ids), config.answer.analysis_tokens)
        self.analysis_before = analysis if config.prompt.analysis == "before" else None
        self.analysis_after = analysis if config.prompt.analysis is True else None

    def asked_about(self, spec: TaskSpec) -> PromptedJudge:
        """The same policy, asked about another task, without demonstrations."""
        return PromptedJudge(self.policy, spec, self.config)

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row (see `Judge.judge`): a greedy answer read strictly, or with ``decode=labels`` the likeliest label word.

        With ``prompt.analysis`` the text of a prediction is the whole form; its value comes from the judgement alone.
        """
        score_labels = (probabilities or self._by_label) and not self.spec.is_number
        self.policy.eval()
        prompts = self.renderer.prompts(examples)
        if shortened := sum(prompt.shortened for prompt in prompts):
            note(
                f"{shortened} of {len(prompts)} rows were shortened to fit prompt.max_tokens = {self.config.prompt.max_tokens}"
            )
        found: dict[int, Prediction] = {}
        with progress(title, len(examples)) as bar:
            for rows in by_length([prompt.ids for prompt in prompts], self.config.evaluation.batch_size):
                answers = self._answer([prompts[row].ids for row in rows], score_labels)
                for row, (judgement, share) in zip(rows, answers, strict=True):
                    found[row] = Prediction.of(examples[row], judgement.text, judgement.value, share)
                bar.advance(len(rows))
        return [found[row] for row in range(len(examples))]

    @property
    def _by_label(self) -> bool:
        return self.config.evaluation.decode == "labels" and not self.spec.is_number

    def _answer(self, prompts: Sequence[Sequence[int]], score_labels: bool) -> list[tuple[Judgement, dict[str, float]]]:
        """Answer one batch: each prompt's judgement, and a probability per label word where `score_labels` asks for them."""
        before = [""] * len(prompts)
        if self.analysis_before is not None:
            _, opened = analyse(self.policy, prompts, self.analysis_before, Sampling())
            prompts, before = opened.prompts, opened.texts
        state = self.policy.prefill(prompts)
        shares: list[dict[str, float]] = [{} for _ in prompts]
        label_ids = self.end.label_ids(self.spec) if score_labels else []
        if score_labels:
            logps_BL = label_logps(self.policy, state, label_ids)
            shares = [dict(zip(self.spec.words, row, strict=True)) for row in logps_BL.softmax(-1).tolist()]
        if self._by_label:
            judgements = [_likeliest(share) for share in shares]
            ids = [label_ids[self.spec.words.index(judgement.text)] for judgement in judgements]
        else:
            responses = respond(self.policy, state, self.end, Sampling())
            judgements = [read_answer(text, self.spec, self.end.stop) for text in responses.texts]
            ids = responses.ids
        texts = [judgement.text for judgement in judgements]
        if self.analysis_after is not None:
            texts = self._explained(prompts, ids, self.analysis_after)
        return [
            (Judgement(first + text, judgement.value), share)
            for first, text, judgement, share in zip(before, texts, judgements, shares, strict=True)
        ]

    def _explained(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], end: AnalysisEnd
    ) -> list[str]:
        """Each answer with the analysis that the model writes after it."""
        opened = open_next(self.end, prompts, answers)
        analyses = respond(self.policy, self.policy.prefill(opened.prompts), end, Sampling())
        return [text + end.text(end.inside(ids)) for text, ids in zip(opened.texts, analyses.ids, strict=True)]


def _likeliest(share: dict[str, float]) -> Judgement:
    word = max(share, key=lambda word: share[word])
    return Judgement(word, word)
