"""Instruction embeddings in a network: every way to run a batch gives the same figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from policies import trained_looking

from adjudge.config import EmbeddingConfig, load_config
from adjudge.errors import ConfigError, ModelError, RunError
from adjudge.models.engine.batch import build_batch
from adjudge.models.policy import Policy, load_policy
from adjudge.models.sources.untrusted import EMBEDDING_SETTINGS, EMBEDDING_WEIGHTS
from adjudge.prompts.render import Renderer
from adjudge.rollout.forward import token_figures
from adjudge.tasks import load_task
from adjudge.types import Example

INSTRUCTION = [7, 8, 9, 10, 11]
PROMPTS = [[*INSTRUCTION, *rest] for rest in ([12, 13], [12, 14, 15, 16, 17, 18], [19, 20, 21], [12, 13, 14])]
RESPONSES = [[30, 31, 32], [2], [33, 2], [34, 35, 36]]
TOLERANCE = 2e-5


def embedded(folder: Path, **changes: bool) -> Policy:
    """Return a policy whose instruction embeddings are not zero, run in another way where `changes` say so."""
    policy = trained_looking(folder)
    policy.add_embeddings(EmbeddingConfig(width=8), 0)
    assert policy.embeddings is not None
    policy.embeddings.know(INSTRUCTION)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in policy.lm.named_parameters():
            if "up_D" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=draw))
    policy.use(replace(policy.abilities, **changes))
    return policy


def figures(policy: Policy) -> list[torch.Tensor]:
    """Return log-probabilities, values, and every gradient of both."""
    policy.zero_grad()
    logp, value, _ = token_figures(policy, PROMPTS, RESPONSES, 1.0)
    (logp.sum() + value.square().sum()).backward()
    trained = [*policy.adapter_parameters(), *policy.value_head.parameters()]
    return [logp.detach(), value.detach(), *(weight.grad.clone() for weight in trained if weight.grad is not None)]


def assert_equal_up_to_rounding(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    largest = max(float(tensor.abs().max()) for tensor in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * largest, rtol=0)


def logps(policy: Policy, prompts=PROMPTS) -> torch.Tensor:
    with torch.no_grad():
        return token_figures(policy, prompts, RESPONSES, 1.0).logp_BR


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2", "tiny_mpt"])
def test_packed_padded_and_shared_passes_agree_in_figures_and_gradients(family, request):
    """Without a shared prefix the instruction is read in a pass of its own, as in the published code."""
    folder = request.getfixturevalue(family)
    policy = embedded(folder)
    expected = figures(policy)
    assert len(policy.batch(PROMPTS, RESPONSES).prefix_C) == len(INSTRUCTION)
    assert not torch.allclose(expected[0], figures(trained_looking(folder))[0], atol=0.01)
    packs = [True, False] if policy.packs else [False]
    for changes in [{"packs": pack, "shares_prefix": share} for pack in packs for share in (True, False)]:
        found = figures(embedded(folder, **changes))
        assert_equal_up_to_rounding(found, expected)
        torch.testing.assert_close(found[0], expected[0], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("answers", [[], RESPONSES, RESPONSES[:1]], ids=["no answers", "answers", "one answer"])
@pytest.mark.parametrize("family", ["tiny_llama", "tiny_mpt"])
def test_decoding_from_a_cache_or_expected_answers_adds_what_a_whole_pass_adds(family, answers, request):
    policy = embedded(request.getfixturevalue(family))
    expected = logps(policy)
    with torch.no_grad():
        for grad in (False, True):
            state = policy.prefill(PROMPTS, grad=grad, expected=answers)
            first = policy.logits(state.hidden_BD).log_softmax(-1)
            kept = torch.tensor([3, 0])
            fed = torch.tensor([RESPONSES[int(row)][0] for row in kept])[:, None]
            second, state = policy.extend(state.fork().keep(kept), fed)
            third, _ = policy.extend(state, torch.tensor([RESPONSES[int(row)][1] for row in kept])[:, None])
            for row, response in enumerate(RESPONSES):
                torch.testing.assert_close(first[row, response[0]], expected[row, 0], atol=TOLERANCE, rtol=0)
            for place, row in enumerate(kept.tolist()):
                for step, hidden in enumerate((second, third), 1):
                    logp = policy.logits(hidden[place, -1]).log_softmax(-1)[RESPONSES[row][step]]
                    torch.testing.assert_close(logp, expected[row, step], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_other_rows_change_nothing(side, tiny_llama):
    policy = embedded(tiny_llama, packs=False)
    together = logps(policy)
    assert policy.embeddings is not None
    segments = policy.embeddings.segments(PROMPTS, policy.device)
    with torch.no_grad():
        batch = build_batch(PROMPTS, RESPONSES, side=side, segments=segments)
        logp = policy.logits(policy.hidden(batch)).log_softmax(-1)
        logp = logp.gather(1, batch.response_BR[batch.response_mask_BR][:, None])[:, 0]
        torch.testing.assert_close(logp, together[batch.response_mask_BR], atol=TOLERANCE, rtol=0)
        for row in range(len(PROMPTS)):
            alone = token_figures(policy, PROMPTS[row : row + 1], RESPONSES[row : row + 1], 1.0).logp_BR[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=TOLERANCE, rtol=0)


def test_a_fresh_embedding_is_the_plain_network_and_so_is_the_reference(tiny_llama):
    plain = trained_looking(tiny_llama)
    prompts = [[*INSTRUCTION, 40 + row, *PROMPTS[row]] for row in range(4)]  # they share the instruction, and no more
    expected = logps(plain, prompts)
    policy = trained_looking(tiny_llama)
    policy.add_embeddings(EmbeddingConfig(width=8), 0)
    policy.embeddings.know(INSTRUCTION)
    assert torch.equal(logps(policy, prompts), expected)
    with plain.reference():
        reference = logps(plain)
    policy = embedded(tiny_llama)
    with policy.reference():
        torch.testing.assert_close(logps(policy), reference, atol=TOLERANCE, rtol=0)


def test_the_instructions_own_tokens_are_unchanged(tiny_llama):
    """Their keys and values are those of the plain network."""
    caches = []
    for policy in (embedded(tiny_llama), trained_looking(tiny_llama)):
        with torch.no_grad():
            caches.append(policy.engine.prefix_cache(torch.tensor(INSTRUCTION)))
    assert caches[0].vectors.keys() == {0, 1} and caches[1].vectors == {}
    for one, other in zip(caches[0].cache.layers, caches[1].cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


def test_a_kept_instruction_keeps_what_was_read_of_it(tiny_llama):
    """And another instruction with the same beginning is read anew."""
    policy = embedded(tiny_llama)
    other = [*INSTRUCTION[:4], 50]
    policy.embeddings.know(other)
    prompts = [[*other, *prompt[5:]] for prompt in PROMPTS]
    first, second = logps(policy), logps(policy, prompts)
    assert torch.equal(logps(policy, prompts), second), "from the kept prefix"
    torch.testing.assert_close(logps(policy), first, atol=0, rtol=0)
    kept = policy.kept_prefixes()
    again = embedded(tiny_llama)
    again.keep_prefixes(kept)
    assert again.kept_prefixes() == kept and torch.equal(logps(again), first)
    with torch.no_grad():
        policy.adapter_parameters()[-1].mul_(2)  # the last layer's reader
    assert policy.kept_prefixes() == {} and not torch.equal(logps(policy), first)


def test_merging_keeps_them(tiny_llama):
    policy = embedded(tiny_llama)
    before = logps(policy)
    policy.merge()
    torch.testing.assert_close(logps(policy), before, atol=1e-4, rtol=0)


def test_a_frozen_copy_is_the_reference_and_only_the_other_is_trained(tiny_llama):
    policy = embedded(tiny_llama)
    names = [name for name, weight in policy.lm.named_parameters() if weight.requires_grad]
    assert any("instruction_embeddings.default" in name for name in names)
    before = logps(policy)
    policy.freeze_reference()
    assert names == [name for name, weight in policy.lm.named_parameters() if weight.requires_grad]
    with torch.no_grad():
        policy.adapter_parameters()[-1].mul_(2)
    assert not torch.equal(logps(policy), before)
    with policy.reference():
        torch.testing.assert_close(logps(policy), before, atol=TOLERANCE, rtol=0)
    again = embedded(tiny_llama)
    again.load_reference_state(policy.reference_state())
    with again.reference():
        torch.testing.assert_close(logps(again), before, atol=TOLERANCE, rtol=0)


def test_recomputed_activations_give_the_same_gradients(tiny_llama):
    policy = embedded(tiny_llama)
    policy.checkpoint_activations()
    assert_equal_up_to_rounding(figures(policy), figures(embedded(tiny_llama)))


def test_prompts_of_no_task_and_layers_that_are_not_there_are_refused(tiny_llama):
    policy = embedded(tiny_llama)
    for prompts in ([[1, 2, 3]], [PROMPTS[0], [1, *PROMPTS[0]]], [INSTRUCTION]):
        with pytest.raises(ModelError, match="without an instruction in common"):
            policy.prefill(prompts)
    with pytest.raises(ModelError, match="there is no layer 2; the model's 2 layers are 0 to 1"):
        trained_looking(tiny_llama).add_embeddings(EmbeddingConfig(layers=(0, 2)), 0)
    with pytest.raises(ConfigError, match=r"instruction embeddings with width=8, and this one asks for 4"):
        policy.add_embeddings(EmbeddingConfig(width=4), 0)
    policy.add_embeddings(EmbeddingConfig(width=8, layers=(1, 0)), 0)


@pytest.mark.parametrize("style", ["chat", "paper"])
def test_every_prompt_begins_with_the_instruction(style, tiny_llama):
    policy = load_policy(load_config(values={"model": str(tiny_llama)}))
    renderer = Renderer(policy.tokenizer, load_task("glue/sst2"), load_config(values={"prompt.style": style}).prompt)
    ids = renderer.instruction_ids()
    text = policy.tokenizer.decode(ids)
    assert "</Judgement>" in text and "sentiment" in text.lower() and "Sentence" not in text
    for sentence in ("a film", "", " .\n", "1", "<|im_end|>", "é" * 3000):
        assert list(renderer.prompt(Example("1", {"sentence": sentence})).ids[: len(ids)]) == ids


def saved(folder: Path, to: Path) -> tuple[Policy, Path]:
    policy = embedded(folder)
    policy.save_adapter(to / "adapter")
    return policy, to / "adapter"


def opened(model: Path, folder: Path, *, train: bool = False) -> Policy:
    policy = load_policy(load_config(values={"model": str(model), "runtime.dtype": "float32"})).eval()
    policy.load_adapter(folder, train=train)
    assert policy.embeddings is not None
    policy.embeddings.know(INSTRUCTION)
    return policy


def test_what_was_saved_is_loaded_and_peft_refuses_it(tiny_llama, tmp_path):
    from peft import AutoPeftModelForCausalLM

    policy, folder = saved(tiny_llama, tmp_path)
    expected = logps(policy)
    again = opened(tiny_llama, folder)
    assert torch.equal(logps(again), expected) and again.adapter_parameters() == []
    further = opened(tiny_llama, folder, train=True)
    assert torch.equal(logps(further), expected)
    assert len(further.adapter_parameters()) == len(policy.adapter_parameters())
    with further.reference():
        torch.testing.assert_close(logps(further), expected, atol=TOLERANCE, rtol=0)
    with pytest.raises((KeyError, ValueError)):
        AutoPeftModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (EMBEDDING_SETTINGS, "{}{", "cannot be read as settings of instruction embeddings"),
        (EMBEDDING_SETTINGS, json.dumps({"layers": [0], "depth": 3}), "cannot be read as settings"),
        (EMBEDDING_SETTINGS, None, "cannot be read as settings"),
        (EMBEDDING_SETTINGS, json.dumps({"layers": [0, 1], "width": 9}), "was trained on another model"),
        (EMBEDDING_WEIGHTS, "nothing", "is damaged"),
        (EMBEDDING_WEIGHTS, None, "is damaged"),
    ],
)
def test_damaged_files_are_refused(name, content, message, tiny_llama, tmp_path):
    _, folder = saved(tiny_llama, tmp_path)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(RunError, match=message):
        opened(tiny_llama, folder)
