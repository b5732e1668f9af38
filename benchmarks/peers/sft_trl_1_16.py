"""Measure `SFTTrainer` of trl 1.16 with LoRA, with the loss on the completion only.

A batch is one optimizer step over `batch_size` rows, in parts of `mini_batch_size`. The rows are token ids with a
completion mask, so both sides train on the same tokens and tokenizing is not timed.

Off: gradient checkpointing (on by default), packing (the batch would have other rows), saving, evaluation, logging. The
loss is trl's default, which does not compute the logits of prompt positions.
"""

import tempfile

import common


def measure(spec: common.Spec, meter: common.Meter) -> int:
    """Run the batches; return the rows per batch."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = spec.rows()
    data = {
        "input_ids": [spec.prompt_ids[row] + spec.answer_ids[row] for row in rows],
        "completion_mask": [[0] * len(spec.prompt_ids[row]) + [1] * len(spec.answer_ids[row]) for row in rows],
    }
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            **common.training_arguments(spec, folder),
            per_device_train_batch_size=spec.mini_batch_size,
            gradient_accumulation_steps=spec.batch_size // spec.mini_batch_size,
            num_train_epochs=1,
            max_length=None,
            packing=False,
            completion_only_loss=True,
        )
        trainer = SFTTrainer(
            model=common.load_causal_lm(spec),
            args=config,
            train_dataset=Dataset.from_dict(data),
            processing_class=common.load_tokenizer(spec),
            peft_config=common.lora_config(spec),
            callbacks=[common.batch_timer(meter)],
        )
        meter.loaded()
        trainer.train()
    for row in rows:
        meter.tokens(len(spec.prompt_ids[row]), len(spec.answer_ids[row]))
    return spec.batch_size


if __name__ == "__main__":
    common.main("trl 1.16 SFT", measure)
