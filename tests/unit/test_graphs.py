"""Captured passes of fixed shapes, with a capture that runs its work again in place of a GPU's."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from policies import trained_looking
from torch.utils._python_dispatch import TorchDispatchMode

from adjudge.models.engine import attention, graphs
from adjudge.models.engine.batch import build_batch, split_rows
from adjudge.models.engine.fixed import FixedShape, rounded
from adjudge.models.engine.graphs import Graphs, acting_on, capture_on_gpu, drop_captured
from adjudge.models.engine.packing import Packing
from adjudge.models.policy import Policy
from adjudge.rollout.forward import token_figures
from adjudge.rollout.label_scoring import label_logps
from adjudge.rollout.sampler import Sampling, respond
from adjudge.rollout.several import several_figures

PROMPTS = [[7, 8, 9, 10, 7, 8, 9, 10, 5, *rest] for rest in ([11], [12, 13, 14, 15, 16, 17], [18, 19, 20], [21, 22])]
OTHERS = [[7, 8, 9, 10, 7, 8, 9, 10, 5, *rest] for rest in ([40, 41, 42], [43, 44, 45, 46], [47, 48, 49], [50, 51])]
RESPONSES = [[30, 31, 32], [2], [33, 2], [34]]


class Rerun:
    """What a capture on the CPU returns: replaying it runs the work again, into the same tensors."""

    _made: ClassVar[weakref.WeakSet[Rerun]] = weakref.WeakSet()

    def __init__(self, work: Callable[[], None], pool: Any) -> None:
        self.replay = work
        work()
        self._made.add(self)

    @classmethod
    def alive(cls) -> int:
        """Return how many captures there are, those included that only the garbage collector would remove."""
        return len(cls._made)


class Waits(TorchDispatchMode):
    """Collects the operations that would make the CPU wait for a GPU, or copy from it."""

    NAMES = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "is_nonzero",
        "unique",
        "lift_fresh",
        "repeat_interleave",
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").split(".")[0]
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in self.NAMES or any(index is not None and index.dtype == torch.bool for index in indices):
            self.found.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attention take the way that GPUs take."""
    monkeypatch.setattr(attention, "PLAIN_WEIGHTS", 0)


def replaying(folder: Path, capture: Callable[[Callable[[], None], Any], Rerun] = Rerun) -> Policy:
    policy = trained_looking(folder)
    policy.engine.use_graphs(Graphs(policy.engine, capture))
    assert policy.replays
    return policy


def figures(policy: Policy, prompts: list[list[int]] = PROMPTS) -> list[torch.Tensor]:
    """Return log-probabilities, values, and every gradient of both."""
    policy.zero_grad()
    logp, value, _ = token_figures(policy, prompts, RESPONSES, 1.0)
    (logp.sum() + value.square().sum()).backward()
    trained = [*policy.adapter_parameters(), *policy.value_head.parameters()]
    return [logp.detach(), value.detach(), *(parameter.grad.clone() for parameter in trained)]


def captured(folder: Path) -> Policy:
    """A policy that replays, whose pass over `PROMPTS` was captured."""
    policy = replaying(folder)
    for _ in range(2):  # run as usual, and captured when it comes again
        figures(policy)
    return policy


def assert_equal(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * max(20.0, float(other.abs().max())), rtol=1e-4)


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2"])
def test_replayed_figures_and_gradients_are_those_of_a_usual_pass(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(family)
    policy, usual = replaying(folder), trained_looking(folder)
    for prompts in (PROMPTS, OTHERS, PROMPTS):  # run as usual, captured, replayed with other rows
        assert_equal(figures(policy, prompts), figures(usual, prompts))
    assert policy.engine.graphs.replayed == 2


def test_a_replay_sees_weights_that_an_optimizer_changed(tiny_llama: Path) -> None:
    policy, usual = replaying(tiny_llama), trained_looking(tiny_llama)
    for _ in range(3):
        figures(policy)
    for each in (policy, usual):
        with torch.no_grad():
            for parameter in each.adapter_parameters():
                parameter.mul_(1.5)
    assert_equal(figures(policy), figures(usual))


def test_gradients_of_two_micro_batches_add_up(tiny_llama: Path) -> None:
    policy, usual = captured(tiny_llama), trained_looking(tiny_llama)
    sums = []
    for each in (policy, usual):
        each.zero_grad()
        for prompts in (PROMPTS, OTHERS):
            token_figures(each, prompts, RESPONSES, 1.0).logp_BR.sum().backward()
        sums.append([parameter.grad for parameter in each.adapter_parameters()])
    assert_equal(*sums)


def test_two_passes_before_a_backward_pass_do_not_share_memory(tiny_llama: Path) -> None:
    policy, usual = captured(tiny_llama), trained_looking(tiny_llama)
    grads = []
    for each in (policy, usual):
        each.zero_grad()
        first, second = (token_figures(each, prompts, RESPONSES, 1.0).logp_BR for prompts in (PROMPTS, OTHERS))
        (first.sum() * 2 - second.sum()).backward()
        grads.append([parameter.grad for parameter in each.adapter_parameters()])
    assert_equal(*grads)
    before = policy.engine.graphs.replayed
    token_figures(policy, PROMPTS, RESPONSES, 1.0)  # never goes backward
    figures(policy)
    assert policy.engine.graphs.replayed == before + 2


def test_the_reference_has_passes_of_its_own(tiny_llama: Path) -> None:
    policy, usual = replaying(tiny_llama), trained_looking(tiny_llama)
    for _ in range(3):
        for each in (policy, usual):
            each.zero_grad()
        with torch.no_grad():
            ours, theirs = (token_figures(each, PROMPTS, RESPONSES, 1.0).logp_BR for each in (policy, usual))
            with policy.reference(), usual.reference():
                ref, ref_usual = (token_figures(each, PROMPTS, RESPONSES, 1.0).logp_BR for each in (policy, usual))
        assert_equal([ours, ref], [theirs, ref_usual])
    assert not torch.allclose(ours, ref)


def test_sampling_and_label_scores_without_a_cache(tiny_llama: Path) -> None:
    policy, usual = replaying(tiny_llama), trained_looking(tiny_llama)

    class End:
        max_tokens = min_tokens = 7

        def ended(self, ids: list[int]) -> bool:
            return ids[-1] % 5 == 0

        def text(self, ids: list[int]) -> str:
            return str(ids)

    for seed in range(3):
        answers = []
        for each in (policy, usual):
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                answers.append(respond(each, each.prefill(PROMPTS), End(), Sampling(generator)))
        assert answers[0].ids == answers[1].ids
        assert_equal([answers[0].logp_BR, answers[0].value_BR], [answers[1].logp_BR, answers[1].value_BR])
        with torch.no_grad():
            scores = [label_logps(each, each.prefill(PROMPTS), [[3, 4, 2], [3, 5], [6]]) for each in (policy, usual)]
        assert_equal(scores[:1], scores[1:])
    assert policy.engine.graphs.replayed > 5


def test_a_large_model_gets_a_cache_after_some_tokens(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MANY_PRODUCTS", 0)
    policy, usual = replaying(tiny_llama), trained_looking(tiny_llama)
    states = [each.prefill(PROMPTS) for each in (policy, usual)]
    for token in range(40, 47):
        fed = torch.full((4, 1), token)
        (ours, states[0]), (theirs, states[1]) = policy.extend(states[0], fed), usual.extend(states[1], fed)
        assert_equal([ours], [theirs])
    assert states[0].cache is not None


def test_several_answers_per_prompt(tiny_llama: Path) -> None:
    policy, usual = replaying(tiny_llama), trained_looking(tiny_llama)
    prompts, responses = [PROMPTS[0]] * 3 + [PROMPTS[1]] * 3, [[30, 2], [31], [30, 2], [31, 2], [2], [2]]
    for _ in range(2):
        grads = []
        for each in (policy, usual):
            each.zero_grad()
            logp, value, _ = several_figures(each, prompts, responses, 1.0)
            (logp.sum() + value.sum()).backward()
            grads.append([logp.detach(), *(parameter.grad for parameter in each.adapter_parameters())])
        assert_equal(*grads)


def test_nothing_in_a_captured_pass_waits_for_the_gpu(tiny_llama: Path) -> None:
    policy = replaying(tiny_llama)
    rows = split_rows(PROMPTS, RESPONSES)
    shape = FixedShape.around(rows, steps=8)
    indices = shape.indices(rows)
    with Waits() as waits:
        hidden = policy.engine.run_fixed(shape, indices)
        torch.autograd.grad(hidden.sum(), policy.adapter_parameters())
    assert waits.found == []


def test_the_pass_not_used_for_longest_makes_room(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_CAPTURED", 1)
    policy, usual = replaying(tiny_llama), trained_looking(tiny_llama)
    longer = [[*prompt, *range(60, 100)] for prompt in PROMPTS]
    for prompts in (PROMPTS, PROMPTS, longer, longer, PROMPTS):  # each but the first of a shape is captured
        assert_equal(figures(policy, prompts), figures(usual, prompts))
    assert policy.engine.graphs.replayed == 3


def test_dropout_runs_as_usual(tiny_llama: Path) -> None:
    policy = replaying(tiny_llama)
    policy.engine.model.add_module("drops", torch.nn.Dropout(0.5))
    policy.engine.forget()
    policy.train()
    assert not policy.replays
    policy.eval()
    assert policy.replays


def test_a_capture_that_fails_is_told_once_and_training_goes_on(
    tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(work: Callable[[], None], pool: Any) -> Rerun:
        raise RuntimeError("operation not permitted when stream is capturing")

    policy, usual = replaying(tiny_llama, fails), trained_looking(tiny_llama)
    for _ in range(3):
        assert_equal(figures(policy), figures(usual))
    assert capsys.readouterr().err.count("cannot be captured") == 1
    assert not policy.replays


class Failing:
    """Captures until it has an error to raise."""

    def __init__(self) -> None:
        self.error: type[RuntimeError] | None = None

    def __call__(self, work: Callable[[], None], pool: Any) -> Rerun:
        graph = Rerun(work, pool)
        if self.error is not None:
            raise self.error("the capture failed")
        return graph


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Let Python collect no garbage by itself, and begin without any."""
    gc.collect()
    assert Rerun.alive() == 0
    gc.disable()
    yield
    gc.enable()


LONGER = [[*prompt, *range(60, 100)] for prompt in PROMPTS]


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_a_capture_that_fails_leaves_no_memory_to_others(
    error: type[RuntimeError], tiny_llama: Path, no_collector: None
) -> None:
    capture = Failing()
    policy, usual = replaying(tiny_llama, capture), trained_looking(tiny_llama)
    for prompts in (PROMPTS, PROMPTS, LONGER):
        figures(policy, prompts)
    assert Rerun.alive() == 2, "one forward, one backward"
    capture.error = error
    assert_equal(figures(policy, LONGER), figures(usual, LONGER))
    assert Rerun.alive() == 0


def test_captures_go_on_after_memory_ran_out_but_not_for_ever(
    tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = Failing()
    policy, usual = replaying(tiny_llama, capture), trained_looking(tiny_llama)
    for number in range(graphs.MOST_SHORTAGES):
        assert policy.replays
        prompts = [[*prompt, *range(60, 60 + 40 * number)] for prompt in PROMPTS]
        for capture.error in (torch.OutOfMemoryError, None):
            for _ in range(2):
                assert_equal(figures(policy, prompts), figures(usual, prompts))
        assert policy.engine.graphs.replayed == min(number + 1, graphs.MOST_SHORTAGES - 1)
    assert not policy.replays
    told = capsys.readouterr().err
    assert told.count("dropped, until their shapes come again") == graphs.MOST_SHORTAGES - 1
    assert told.count("dropped, for good") == 1


def test_an_error_that_hides_the_lack_of_memory(tiny_llama: Path) -> None:
    """Ending a capture that failed may fail, too."""

    def fails(work: Callable[[], None], pool: Any) -> Rerun:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    policy = replaying(tiny_llama, fails)
    for _ in range(2):
        figures(policy)
    assert policy.replays


def test_captured_passes_of_every_network_make_room_for_others(tiny_llama: Path, no_collector: None) -> None:
    assert not drop_captured()
    policies, usual = [captured(tiny_llama) for _ in range(2)], trained_looking(tiny_llama)
    assert Rerun.alive() == 4
    assert drop_captured() and Rerun.alive() == 0
    assert not drop_captured()
    for policy in policies:
        for prompts in (PROMPTS, OTHERS):
            assert_equal(figures(policy, prompts), figures(usual, prompts))
        assert policy.engine.graphs.replayed == 2


def test_a_pass_that_waits_for_its_backward_pass_keeps_its_gradient_when_it_is_dropped(tiny_llama: Path) -> None:
    policy, usual = captured(tiny_llama), trained_looking(tiny_llama)
    grads = []
    for each in (policy, usual):
        each.zero_grad()
        logp = token_figures(each, OTHERS, RESPONSES, 1.0).logp_BR
        assert each is usual or drop_captured()
        logp.sum().backward()
        grads.append([parameter.grad for parameter in each.adapter_parameters()])
    assert_equal(*grads)


def test_captures_and_replays_act_on_the_device_of_the_weights(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting: list[torch.device] = []

    @contextmanager
    def recorded(device: torch.device) -> Iterator[None]:
        acting.append(device)
        yield
        acting.pop()

    def capture(work: Callable[[], None], pool: Any) -> Rerun:
        def checked() -> None:
            assert acting == [policy.device]
            work()

        return Rerun(checked, pool)

    monkeypatch.setattr(graphs, "acting_on", recorded)
    policy = replaying(tiny_llama, capture)
    for _ in range(3):
        figures(policy)
        with torch.no_grad():
            token_figures(policy, PROMPTS, RESPONSES, 1.0)
    assert policy.engine.graphs.replayed == 4


def test_only_a_gpu_becomes_the_current_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda device: f"acting on {device}")
    assert acting_on(torch.device("cuda:1")) == "acting on cuda:1"
    with acting_on(torch.device("cpu")):
        pass


class FakeCuda:
    """Records what a capture does with streams, and warns like torch of a graph without kernels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device, self.stream, self.kernels = 100, "default", 0
        self.streams: list[str] = []
        self.handles: list[str] = []
        for name in ("current_device", "Stream", "stream", "graph", "CUDAGraph", "current_blas_handle"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, f"_{name}"))

    def _current_device(self) -> int:
        return self.device

    def _Stream(self, device: int) -> str:
        return f"stream {len(self.streams)} of {device}"

    def _current_blas_handle(self) -> None:
        self.handles.append(self.stream)

    def _CUDAGraph(self) -> object:
        return object()

    @contextmanager
    def _stream(self, stream: str) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    @contextmanager
    def _graph(self, graph: object, *, pool: Any, stream: str) -> Iterator[None]:
        assert self.handles.pop() == "default", "no cuBLAS handle can be made while capturing"
        self.streams.append(stream)
        self.stream, self.kernels = stream, 0
        yield
        if not self.kernels:
            warnings.warn("The CUDA Graph is empty. This usually means …", UserWarning, stacklevel=2)
        self.stream = "default"  # not after an error, like torch

    def launch(self) -> None:
        self.kernels += 1


def test_each_device_has_its_capture_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    for cuda.device in (100, 101, 101, 100):
        capture_on_gpu(cuda.launch, None)
    assert cuda.streams == ["stream 0 of 100", "stream 1 of 101", "stream 1 of 101", "stream 0 of 100"]


def test_an_empty_graph_is_an_error_and_leaves_no_stream_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    with pytest.raises(RuntimeError, match="The CUDA Graph is empty"):
        capture_on_gpu(lambda: None, None)
    assert cuda.stream == "default"
    with pytest.raises(RuntimeError, match="another error"), pytest.warns(UserWarning, match="of the work"):
        capture_on_gpu(lambda: failing(cuda), None)
    assert cuda.stream == "default"


def failing(cuda: FakeCuda) -> None:
    cuda.launch()
    warnings.warn("of the work", UserWarning, stacklevel=2)
    raise RuntimeError("another error")


@pytest.mark.parametrize("share", [True, False])
def test_a_fixed_shape_holds_the_packing_of_its_rows(share: bool) -> None:
    rows = split_rows(PROMPTS, RESPONSES, share, 4)
    assert len(rows.prefix) == (8 if share else 0)
    shape = FixedShape.around(rows, steps=2)
    ids, _, packing = shape.unpack(shape.indices(rows))
    batch = build_batch(PROMPTS, RESPONSES, side="right", share_prefix=share, prefix_multiple=4)
    row_M, _ = batch.response_mask_BR.nonzero(as_tuple=True)
    exact = Packing.of(batch, row_M, batch.answer_BR[batch.response_mask_BR])
    tokens, longest = len(exact.ids_M), exact.grid_BT.shape[1]
    assert ids[: shape.common].tolist() == rows.prefix
    assert torch.equal(packing.ids_M[:tokens], exact.ids_M)
    assert torch.equal(packing.position_M[:tokens], exact.position_M)
    assert torch.equal(packing.grid_BT[:4, :longest], exact.grid_BT)
    assert torch.equal(packing.is_real_BT[:4, :longest], exact.is_real_BT)
    assert not packing.is_real_BT[:, longest:].any()
    assert torch.equal(packing.wanted_K[: len(exact.wanted_K)], exact.wanted_K)
    assert packing.mask_BTS.any(-1).all()


@pytest.mark.parametrize(
    ("number", "least", "steps", "size"),
    [
        (1, 1, 4, 1),
        (16, 1, 4, 16),
        (17, 1, 4, 20),
        (0, 16, 8, 0),
        (34, 16, 8, 48),
        (544, 128, 8, 640),
        (2176, 128, 8, 2304),
    ],
)
def test_sizes_are_rounded_up(number: int, least: int, steps: int, size: int) -> None:
    assert rounded(number, least, steps) == size


def test_rows_of_no_length_in_a_padded_shape_change_nothing(tiny_llama: Path) -> None:
    """Rows of padding alone have keys to see, so nothing becomes NaN."""
    policy = replaying(tiny_llama)
    rows = split_rows(PROMPTS[:3], RESPONSES[:3], share_prefix=False)
    shape = replace_rows(FixedShape.around(rows, steps=2), 8)
    exact = FixedShape.around(rows, steps=2)
    with torch.no_grad():
        wide, narrow = (policy.engine.run_fixed(each, each.indices(rows)) for each in (shape, exact))
    assert torch.isfinite(wide).all()
    torch.testing.assert_close(wide[:6], narrow[:6], atol=1e-5, rtol=1e-4)


def replace_rows(shape: FixedShape, rows: int) -> FixedShape:
    return shape._replace(rows=rows)
