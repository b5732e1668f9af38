"""Names of settings in Hugging Face's trainers, and ours for the same thing.

The names are those of `transformers.TrainingArguments`, `peft.LoraConfig` and trl's configurations.
"""

from __future__ import annotations

from adjudge.config.tree import keys_of

OURS = {
    "learning_rate": "optimizer.lr",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_steps": "epochs",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "gradient_accumulation_steps": "micro_batch_size",
    "per_device_eval_batch_size": "evaluation.batch_size",
    "eval_batch_size": "evaluation.batch_size",
    "warmup_ratio": "optimizer.warmup_share",
    "warmup_steps": "optimizer.warmup_share",
    "lr_scheduler_type": "optimizer.schedule",
    "lr_scheduler": "optimizer.schedule",
    "optim": "optimizer.name",
    "weight_decay": "optimizer.weight_decay",
    "max_grad_norm": "optimizer.max_grad_norm",
    "seed": "seed",
    "data_seed": "seed",
    "bf16": "runtime.dtype",
    "fp16": "runtime.dtype",
    "torch_dtype": "runtime.dtype",
    "device_map": "runtime.device",
    "load_in_4bit": "runtime.quantization",
    "load_in_8bit": "runtime.quantization",
    "gradient_checkpointing": "runtime.checkpoint_activations",
    "fsdp": "runtime.shard_base",
    "lora_r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "target_modules": "lora.targets",
    "lora_target_modules": "lora.targets",
    "use_rslora": "lora.rank_stabilised",
    "save_steps": "checkpoint.every_steps",
    "save_total_limit": "checkpoint.keep",
    "eval_steps": "checkpoint.validate_every",
    "load_best_model_at_end": "checkpoint.use",
    "model_name_or_path": "model",
    "max_length": "prompt.max_tokens",
    "max_seq_length": "prompt.max_tokens",
    "max_prompt_length": "prompt.max_tokens",
    "max_new_tokens": "answer.max_tokens",
    "max_completion_length": "answer.max_tokens",
    "num_generations": "samples",
    "num_ppo_epochs": "update_epochs",
    "num_iterations": "update_epochs",
    "cliprange": "clip",
    "cliprange_value": "value_clip",
    "vf_coef": "value_coef",
    "init_kl_coef": "kl_init",
    "kl_coef": "kl",
    "beta": "kl",
}
"""The last part of a foreign name, and our key: a whole one, or its end within the group of a method."""

REMARKS = {
    "max_steps": "the steps follow from the epochs, and are at least METHOD.min_steps",
    "gradient_accumulation_steps": "batch_size rows make an update, and micro_batch_size of them are computed at once",
    "warmup_steps": "a share of the steps",
    "bf16": "write runtime.dtype=bfloat16",
    "fp16": "write runtime.dtype=float16",
    "load_in_4bit": "write runtime.quantization=4bit",
    "load_in_8bit": "write runtime.quantization=8bit",
    "eval_steps": "it judges held-out training rows",
    "load_best_model_at_end": "write checkpoint.use=best",
    "gradient_checkpointing": "write runtime.checkpoint_activations=true",
    "fsdp": "write runtime.shard_base=true, and start several processes",
}
"""What differs between the two besides the name."""

OPTIONS = {
    "output_dir": "--out DIR",
    "resume_from_checkpoint": "--resume",
    "overwrite_output_dir": "--force",
    "train_file": "--data FILE",
    "validation_file": "--dev FILE",
}
"""Foreign names of what is an option of the command line here."""


def advice(key: str) -> str:
    """Return what to write for a key with a Hugging Face name, after a space; empty for other names.

    A key in the group of a method gives the setting of this method: ``sft.learning_rate``, ``sft.optimizer.lr``.
    """
    group, _, _ = key.partition(".")
    name = key.rpartition(".")[2].replace("-", "_").lower()
    if name in OPTIONS:
        return f" That is an option here: {OPTIONS[name]}."
    if name not in OURS:
        return ""
    known = list(keys_of())
    ours = OURS[name]
    if ours in known:
        matching = [ours]
    else:
        matching = [known_key for known_key in known if known_key.partition(".")[2] == ours]
        matching = [known_key for known_key in matching if known_key.startswith(f"{group}.")] or matching
    remark = f" ({REMARKS[name]})" if name in REMARKS else ""
    if len(matching) == 1:
        return f" Did you mean '{matching[0]}'{remark}?"
    return f" Did you mean one of: {', '.join(matching)}{remark}?"
