"""Measure `PPOTrainer.generate` and `PPOTrainer.step` of trl 0.11.4, called as in the paper's code.

A batch samples an answer for each of its prompts, scores the texts, and makes one `step`: a forward pass with adapters
and one without, then `update_epochs` over the batch.

As in the paper's code: value head on the policy, LoRA, no reference model (adapters off instead), top_k 0, top_p 1,
padding with the end-of-sequence token, answer length drawn by LengthSampler(12, 32) (12 to 31), adaptive KL from 0.2,
Adafactor with a fixed step.

Changed in the peer's favour: one call samples all prompts of a batch, no logging service is used, and the device's
cache is not emptied repeatedly. The paper's code samples 4 prompts at a time (`generation_batch_size` in the
specification sets this). As by default, gradient checkpointing is off and nothing is saved.
"""

from typing import Any

import common


def build(spec: common.Spec, tokenizer: Any) -> Any:
    """Return the trainer with policy, value head and adapters."""
    from transformers.optimization import Adafactor
    from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

    model = AutoModelForCausalLMWithValueHead.from_pretrained(
        common.load_causal_lm(spec), peft_config=common.lora_config(spec)
    )
    config = PPOConfig(
        batch_size=spec.batch_size,
        mini_batch_size=spec.mini_batch_size,
        gradient_accumulation_steps=1,
        ppo_epochs=spec.update_epochs,
        learning_rate=spec.lr,
        init_kl_coef=0.2,
        adap_kl_ctrl=True,
        seed=spec.seed,
        log_with=None,
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = Adafactor(trained, scale_parameter=False, relative_step=False, warmup_init=False, lr=spec.lr)
    return PPOTrainer(config, model, None, tokenizer, optimizer=optimizer)


def measure(spec: common.Spec, meter: common.Meter) -> int:
    """Run the batches; return the rows per batch."""
    import torch
    from trl.core import LengthSampler

    tokenizer = common.load_tokenizer(spec)
    tokenizer.pad_token = tokenizer.eos_token
    trainer = build(spec, tokenizer)
    meter.loaded()
    labels = set(spec.golds)
    lengths = LengthSampler(spec.min_new_tokens, spec.max_new_tokens)
    sampling = {
        "top_k": 0.0,
        "top_p": 1.0,
        "do_sample": True,
        "pad_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    size = spec.generation_batch_size or spec.batch_size
    rows = spec.rows()
    meter.start()
    for start in range(0, len(rows), spec.batch_size):
        batch = rows[start : start + spec.batch_size]
        queries = [torch.tensor(spec.prompt_ids[row], device=trainer.current_device) for row in batch]
        responses = meter.timed("sample", trainer.generate)(
            queries, return_prompt=False, length_sampler=lengths, batch_size=size, **sampling
        )
        texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
        scores = [
            torch.tensor(common.score(text, spec.golds[row], labels)) for text, row in zip(texts, batch, strict=True)
        ]
        stats = meter.timed("step", trainer.step)(queries, responses, scores)
        meter.add("forward", stats["time/ppo/forward_pass"])
        meter.add("update", stats["time/ppo/optimize_step"])
        for query, response in zip(queries, responses, strict=True):
            meter.tokens(len(query), len(response))
        meter.end_batch()
    meter.notes.append(f"sampled {size} prompts at a time; step contains forward and update")
    return spec.batch_size


if __name__ == "__main__":
    common.main("trl 0.11.4 PPO", measure)
