"""Run trl's GRPO or RLOO trainer; both have the same settings and the same inner functions.

A batch is one optimizer step over `batch_size` prompts with `samples` sampled answers each, all sampled in one call.
The update takes `mini_batch_size` answers at a time and adds up their gradients. Sampling ends at the end-of-sequence
token or at `max_new_tokens`, with temperature 1, top_k 0 and top_p 1. The reward reads the text. Prompts are passed as
token ids, so the trainer does not tokenize the text again.

Off: gradient checkpointing (on by default), saving, evaluation, logging, printed completions. `num_iterations` is 1,
trl's default (`grpo_iterations` in the specification changes it). So the trainer trains once on an answer, and PPO
`update_epochs` times.
"""

import tempfile
from typing import Any

import common


def watch(trainer: Any, meter: common.Meter, spec: common.Spec) -> None:
    """Time the trainer's sampling and scoring, count tokens, and pass it the prompts' token ids."""
    ids = dict(zip(spec.prompts, spec.prompt_ids, strict=True))
    sample, whole = trainer._generate, trainer._generate_and_score_completions

    def counted(prompts: list[str]) -> Any:
        answer = sample(prompts)
        for prompt, response in zip(answer[0], answer[1], strict=True):
            meter.tokens(len(prompt), len(response))
        return answer

    trainer._tokenize_prompts = lambda prompts: ([list(ids[prompt]) for prompt in prompts], None, {})
    trainer._generate = meter.timed("sample", counted)
    trainer._generate_and_score_completions = meter.timed("rollout", whole)


def group_timer(meter: common.Meter) -> Any:
    """Return a callback that times each batch between optimizer steps; all but rollout counts as update."""
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            meter.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.add("update", meter.elapsed() - meter.stage_of_batch("rollout"))
            meter.end_batch()

    return Timer()


def run(spec: common.Spec, meter: common.Meter, config_class: Any, trainer_class: Any) -> int:
    """Run the batches with a trainer and its configuration class; return the prompts per batch."""
    from datasets import Dataset

    rows = spec.rows()
    labels = set(spec.golds)

    def reward(completions: list[str], gold: list[str], **_: Any) -> list[float]:
        return [common.score(text, right, labels) for text, right in zip(completions, gold, strict=True)]

    chosen = {} if spec.beta is None else {"beta": spec.beta}
    with tempfile.TemporaryDirectory() as folder:
        config = config_class(
            **common.training_arguments(spec, folder),
            per_device_train_batch_size=spec.mini_batch_size,
            gradient_accumulation_steps=spec.batch_size * spec.samples // spec.mini_batch_size,
            num_generations=spec.samples,
            max_completion_length=spec.max_new_tokens,
            num_iterations=spec.grpo_iterations,
            max_steps=spec.warmup_batches + spec.batches,
            shuffle_dataset=False,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            **chosen,
        )
        trainer = trainer_class(
            model=common.load_causal_lm(spec),
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_dict(
                {"prompt": [spec.prompts[r] for r in rows], "gold": [spec.golds[r] for r in rows]}
            ),
            processing_class=common.load_tokenizer(spec),
            peft_config=common.lora_config(spec),
            callbacks=[group_timer(meter)],
        )
        watch(trainer, meter, spec)
        meter.loaded()
        trainer.train()
    meter.notes.append(f"{spec.samples} samples per prompt, beta {config.beta}, {config.num_iterations} iteration(s)")
    meter.notes.append("rows are prompts; tokens_per_row counts one answer and its prompt; rollout contains sample")
    return spec.batch_size
