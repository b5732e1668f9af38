"""Measure greedy evaluation with `generate` of transformers.

A batch is `evaluation_batch_size` prompts (default 32). Its time covers left-padding the ids, `generate` with a
key/value cache and without gradients, and reading the answers from the text. A row ends at the end-of-sequence token.
The batch ends when all rows have ended, or at `max_new_tokens`. The model has no adapters, so it is as fast as a model
with merged adapters.
"""

import common


def measure(spec: common.Spec, meter: common.Meter) -> int:
    """Run the batches; return the rows per batch."""
    import torch

    tokenizer = common.load_tokenizer(spec)
    model = common.load_causal_lm(spec).eval()
    meter.loaded()
    labels = set(spec.golds)
    size = spec.evaluation_batch_size
    rows = spec.rows(size)
    meter.start()
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        inputs = tokenizer.pad(
            {"input_ids": [spec.prompt_ids[row] for row in batch]}, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            output = meter.timed("generate", model.generate)(
                **inputs.to(model.device),
                max_new_tokens=spec.max_new_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        responses = output[:, inputs["input_ids"].shape[1] :].tolist()
        for row, text in zip(batch, tokenizer.batch_decode(responses, skip_special_tokens=True), strict=True):
            common.score(text, spec.golds[row], labels)
        meter.end_batch()
        for row, response in zip(batch, responses, strict=True):
            ended = response.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in response else len(response)
            meter.tokens(len(spec.prompt_ids[row]), ended)
    return size


if __name__ == "__main__":
    common.main("transformers generate", measure)
