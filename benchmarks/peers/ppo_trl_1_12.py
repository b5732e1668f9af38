"""Measure `trl.experimental.ppo.PPOTrainer` of trl 1.12, the last version with PPO.

A batch is one round of its training loop: sample, reference (adapters off), values, scores, `update_epochs` over the
batch. Sampling ends at `max_new_tokens`, or when every row has ended (`stop_token="eos"`); it has no drawn lengths.

The trainer needs a network for scores and one for values. The score network has no weights: it reads the text and looks
up the gold answer, so the reward costs almost nothing. The value network is a second network, built from the same
weights with a scoring layer, as in trl's example. The example trains all of its weights. Here only its LoRA layers and
its scoring layer are trained, which is faster and smaller; `value_model: "full"` in the specification trains all.

Policy and reference share one network (peft_config, no reference model). Off: gradient checkpointing (on by default),
sample generations, saving, evaluation, logging services. As for the other peers: KL coefficient 0.2, temperature 1.
The pad token must differ from the end-of-sequence token, because the trainer masks every pad token, also in a prompt.
"""

import tempfile
from types import SimpleNamespace
from typing import Any

import common


def pad_token(spec: common.Spec, tokenizer: Any) -> None:
    """Give the tokenizer a pad token that is in no prompt and is not the end-of-sequence token."""
    used = {token for ids in spec.prompt_ids for token in ids} | {tokenizer.eos_token_id}
    for word in (tokenizer.pad_token, tokenizer.unk_token, *tokenizer.all_special_tokens):
        if word is not None and tokenizer.convert_tokens_to_ids(word) not in used:
            tokenizer.pad_token = word
            return
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})  # needs no embedding: the trainer replaces it with token 0


def text_reward(spec: common.Spec, tokenizer: Any) -> Any:
    """Return a reward "network" with a backbone and a scoring layer, which only reads the text.

    The backbone returns token ids and mask as its hidden states, shape (rows, tokens, 2). The scoring layer finds the
    prompt at the start of the row and scores the rest. It returns the score at every position: (rows, tokens, 1).
    """
    import torch

    golds = {tuple(ids): gold for ids, gold in zip(spec.prompt_ids, spec.golds, strict=True)}
    lengths = sorted({len(ids) for ids in golds}, reverse=True)
    labels = set(spec.golds)

    class Backbone(torch.nn.Module):
        def forward(self, input_ids: Any, attention_mask: Any, **_: Any) -> SimpleNamespace:
            return SimpleNamespace(hidden_states=(torch.stack([input_ids, attention_mask.long()], dim=-1),))

    class Reward(torch.nn.Module):
        base_model_prefix = "backbone"

        def __init__(self) -> None:
            super().__init__()
            self.backbone = Backbone()

        def score(self, hidden: Any) -> Any:
            scores = [self.score_row([token for token, kept in row if kept]) for row in hidden.tolist()]
            return torch.tensor(scores, device=hidden.device)[:, None, None].expand(-1, hidden.shape[1], 1)

        def score_row(self, ids: list[int]) -> float:
            for length in lengths:
                gold = golds.get(tuple(ids[:length]))
                if gold is not None:
                    return common.score(tokenizer.decode(ids[length:], skip_special_tokens=True), gold, labels)
            raise ValueError("a sampled row starts with none of the specification's prompts")

    return Reward()


def value_network(spec: common.Spec, pad_token_id: int) -> Any:
    """Return a second network with one value per token; LoRA and scoring layers are trained, or all."""
    from peft import inject_adapter_in_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(spec.model, num_labels=1, dtype=common.torch_dtype(spec))
    model.config.pad_token_id = pad_token_id
    if spec.value_model == "lora":
        model = inject_adapter_in_model(common.lora_config(spec), model)
        model.score.requires_grad_(True)
    return model


def settings(spec: common.Spec, folder: str) -> Any:
    """Return the trainer's configuration: one device batch per batch, one optimizer step per mini-batch."""
    from trl.experimental.ppo import PPOConfig

    return PPOConfig(
        **common.training_arguments(spec, folder),
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=1,
        num_mini_batches=spec.batch_size // spec.mini_batch_size,
        num_ppo_epochs=spec.update_epochs,
        local_rollout_forward_batch_size=spec.generation_batch_size or spec.batch_size,
        total_episodes=len(spec.rows()),
        response_length=spec.max_new_tokens,
        stop_token="eos",
        temperature=1.0,
        kl_coef=0.2 if spec.beta is None else spec.beta,
        num_sample_generations=0,
    )


def watch(meter: common.Meter, tokenizer: Any) -> Any:
    """Time the trainer's own functions; return the callback that ends the batches.

    The stages are sample, score (reference and values) and update.
    """
    import torch
    from transformers import TrainerCallback
    from trl.experimental.ppo import ppo_trainer as module

    forward, generate = module.forward, meter.timed("sample", module.batch_generation)
    began: list[float] = []

    def first_of_update(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and not began:
            began.append(meter.elapsed())
        return forward(*args, **kwargs)

    def counted(model: Any, queries: Any, *args: Any, **kwargs: Any) -> Any:
        rows, logits = generate(model, queries, *args, **kwargs)
        for query, response in zip(queries, rows[:, queries.shape[1] :], strict=True):
            ended = (response == tokenizer.eos_token_id).nonzero()
            length = int(ended[0]) + 1 if len(ended) else len(response)
            meter.tokens(int((query != tokenizer.pad_token_id).sum()), length)
        return rows, logits

    class Timer(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            meter.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            until = meter.elapsed()
            meter.add("update", until - began[0])
            meter.add("score", began[0] - meter.stage_of_batch("sample"))
            began.clear()
            meter.end_batch()

    module.forward, module.batch_generation = first_of_update, counted
    return Timer()


def measure(spec: common.Spec, meter: common.Meter) -> int:
    """Run the batches; return the rows per batch."""
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl.experimental.ppo import PPOTrainer

    tokenizer = common.load_tokenizer(spec)
    pad_token(spec, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=settings(spec, folder),
            processing_class=tokenizer,
            model=common.load_causal_lm(spec),
            ref_model=None,
            reward_model=text_reward(spec, tokenizer),
            value_model=value_network(spec, tokenizer.pad_token_id),
            train_dataset=Dataset.from_dict({"input_ids": [spec.prompt_ids[row] for row in spec.rows()]}),
            peft_config=common.lora_config(spec),
            callbacks=[watch(meter, tokenizer)],
        )
        trainer.remove_callback(PrinterCallback)
        meter.loaded()
        trainer.train()
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    meter.notes.append(f"value network: a second model, {spec.value_model}; {trained:,} trained parameters in total")
    return spec.batch_size


if __name__ == "__main__":
    common.main("trl 1.12 PPO", measure)
