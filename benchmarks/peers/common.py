"""Read the specification, measure, score answers and write the result; shared by all peers' scripts.

This module runs in every peer's environment, so it uses only the standard library, torch, transformers and peft. It
imports the last three inside functions, because `main` must set environment variables before torch is imported.
"""

import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

GIB = 2**30
# arXiv 2410.11020: right, wrong, no readable single label
LABEL_REWARD, WRONG_REWARD, UNREADABLE_REWARD = 1.0, -1.0, -3.0
REPORTED = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "numpy")


@dataclass
class Spec:
    """The content of SPEC.json, with token ids of the model's tokenizer; a batch is `batch_size` prompts."""

    model: str  # folder in the layout of transformers, with tokenizer
    dtype: str
    threads: int
    prompts: list[str]
    prompt_ids: list[list[int]]
    golds: list[str]
    answer_ids: list[list[int]]
    batch_size: int
    mini_batch_size: int
    update_epochs: int
    samples: int
    max_new_tokens: int
    min_new_tokens: int
    lora: dict[str, Any]
    lr: float
    warmup_batches: int
    batches: int
    seed: int
    # The rest is optional; README.md explains it.
    generation_batch_size: int | None = None
    evaluation_batch_size: int = 32
    value_model: str = "lora"
    grpo_iterations: int = 1
    beta: float | None = None
    ignored: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: str) -> "Spec":
        """Read and check a specification. Raises ValueError, which names the bad entry."""
        given = json.loads(Path(path).read_text(encoding="utf-8"))
        known = {item.name for item in fields(cls)} - {"ignored"}
        try:
            spec = cls(**{key: value for key, value in given.items() if key in known})
        except TypeError as error:
            raise ValueError(f"{path}: {error}") from error
        spec.ignored = sorted(set(given) - known)
        lengths = {name: len(getattr(spec, name)) for name in ("prompts", "prompt_ids", "golds", "answer_ids")}
        if len(set(lengths.values())) != 1 or not spec.prompts:
            raise ValueError(
                f"{path}: prompts, prompt_ids, golds and answer_ids must have one length of at least 1: {lengths}"
            )
        if spec.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"{path}: dtype is {spec.dtype!r}; it must be float32 or bfloat16")
        if spec.batch_size % spec.mini_batch_size:
            raise ValueError(
                f"{path}: batch_size {spec.batch_size} is not a multiple of mini_batch_size {spec.mini_batch_size}"
            )
        if spec.value_model not in ("lora", "full"):
            raise ValueError(f"{path}: value_model is {spec.value_model!r}; it must be lora or full")
        if spec.batches < 1:
            raise ValueError(f"{path}: batches must be at least 1")
        return spec

    def rows(self, per_batch: int | None = None) -> list[int]:
        """Return the prompts of the whole run in order, warm-up first; too few prompts are repeated."""
        total = (self.warmup_batches + self.batches) * (per_batch or self.batch_size)
        return [index % len(self.prompts) for index in range(total)]


class Meter:
    """One measurement per batch, split into stages; `result` leaves out the warm-up."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.baseline_gib: float | None = None
        self.seconds: list[float] = []
        self.stages: list[dict[str, float]] = []
        self.notes: list[str] = []
        self._stage: dict[str, float] = defaultdict(float)
        self._since = 0.0
        self._prompt_tokens: list[int] = []
        self._response_tokens: list[int] = []

    def loaded(self) -> None:
        """Record the resident memory. Call it after imports and model loading, before training."""
        self.baseline_gib = memory_gib("VmRSS")
        if on_cuda():
            import torch

            torch.cuda.reset_peak_memory_stats()

    def start(self) -> None:
        """Start the clock of the first batch."""
        self._since = now()

    def end_batch(self) -> None:
        """End a batch; the next one starts at the same moment."""
        moment = now()
        self.seconds.append(moment - self._since)
        self.stages.append(dict(self._stage))
        self._stage = defaultdict(float)
        self._since = moment

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage of the current batch."""
        self._stage[stage] += seconds

    def stage_of_batch(self, stage: str) -> float:
        """Return the seconds of a stage in the current batch."""
        return self._stage[stage]

    def elapsed(self) -> float:
        """Return the seconds since the current batch began."""
        return now() - self._since

    def tokens(self, prompt: int, response: int) -> None:
        """Count the prompt and response tokens of one row, without padding."""
        self._prompt_tokens.append(prompt)
        self._response_tokens.append(response)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its seconds added to a stage."""

        def inner(*args: Any, **kwargs: Any) -> Any:
            since = now()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(stage, now() - since)

        return inner

    def result(self, rows_per_batch: int) -> dict[str, Any]:
        """Return the measured part of RESULT.json. Raises RuntimeError for a wrong number of batches."""
        warm = self.spec.warmup_batches
        seconds, stages = self.seconds[warm:], self.stages[warm:]
        if len(seconds) != self.spec.batches:
            raise RuntimeError(f"ran {len(self.seconds)} batches instead of {warm} + {self.spec.batches}")
        rows = max(1, len(self._prompt_tokens))
        names = sorted({name for stage in stages for name in stage})
        answer: dict[str, Any] = {
            "seconds": seconds,
            "rows_per_batch": rows_per_batch,
            "rows_per_s": rows_per_batch * len(seconds) / sum(seconds),
            "stages": {name: [stage.get(name, 0.0) for stage in stages] for name in names},
            "peak_gib": memory_gib("VmHWM"),
            "baseline_gib": self.baseline_gib,
            "tokens_per_row": (sum(self._prompt_tokens) + sum(self._response_tokens)) / rows,
            "prompt_tokens_per_row": sum(self._prompt_tokens) / rows,
            "response_tokens_per_row": sum(self._response_tokens) / rows,
            "warmup_seconds": self.seconds[:warm],
            "notes": self.notes,
        }
        if on_cuda():
            import torch

            answer["cuda_peak_gib"] = torch.cuda.max_memory_allocated() / GIB
            answer["cuda_device"] = torch.cuda.get_device_name()
        return answer


def on_cuda() -> bool:
    """Return whether there is a CUDA device; the peer then runs on it."""
    import torch

    return torch.cuda.is_available()


def device() -> str:
    """Return the device of the models."""
    return "cuda" if on_cuda() else "cpu"


def now() -> float:
    """Return the seconds of a steady clock, after the device has finished its work."""
    if on_cuda():
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def memory_gib(field_name: str) -> float | None:
    """Return VmRSS or VmHWM of this process in GiB, or None on a system without /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith(field_name + ":"):
            return int(line.split()[1]) * 1024 / GIB
    raise RuntimeError(f"/proc/self/status has no line {field_name}")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries in this environment."""
    installed = {"python": platform.python_version()}
    for name in REPORTED:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def torch_dtype(spec: Spec) -> Any:
    """Return the specification's dtype as a torch dtype."""
    import torch

    return getattr(torch, spec.dtype)


def load_tokenizer(spec: Spec) -> Any:
    """Return the model's tokenizer, with padding on the left.

    The pad token is the folder's, or the end-of-sequence token if there is none. Versions of transformers before 5 do
    not know the tokenizer class that 5 writes, so for them the tokenizer is built from tokenizer.json.
    """
    import transformers

    folder = Path(spec.model)
    if int(transformers.__version__.split(".")[0]) >= 5:
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec.model)
    else:
        written = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        words = {name: word["content"] if isinstance(word := written.get(name), dict) else word for name in names}
        given = {name: word for name, word in words.items() if word}
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **given)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{spec.model}: the tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def load_causal_lm(spec: Spec) -> Any:
    """Return the language model on the device, in the specification's dtype and with sdpa attention."""
    import transformers

    if int(transformers.__version__.split(".")[0]) >= 5:
        model = transformers.AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch_dtype(spec))
    else:
        config = transformers.AutoConfig.from_pretrained(spec.model)
        rope = getattr(config, "rope_parameters", None)
        if rope:  # transformers 5 writes this for rope_theta and rope_scaling of 4
            config.rope_theta = rope.get("rope_theta", 10000.0)
            config.rope_scaling = None if rope.get("rope_type", "default") == "default" else rope
        kwargs = {"config": config, "torch_dtype": torch_dtype(spec)}
        model = transformers.AutoModelForCausalLM.from_pretrained(spec.model, **kwargs)
    return model.to(device())


def lora_config(spec: Spec) -> Any:
    """Return the LoRA settings of the specification as a peft configuration."""
    from peft import LoraConfig

    return LoraConfig(
        r=spec.lora["r"],
        lora_alpha=spec.lora["alpha"],
        lora_dropout=spec.lora["dropout"],
        use_rslora=spec.lora["rank_stabilised"],
        target_modules=list(spec.lora["targets"]),
        bias="none",
        task_type="CAUSAL_LM",
    )


def score(text: str, gold: str, labels: set[str]) -> float:
    """Return the paper's reward, 1, -1 or -3, for the text before the closing tag (or all of it)."""
    answer = text.partition("</Judgement>")[0]
    named = [label for label in labels if label in answer]
    if len(named) != 1:
        return UNREADABLE_REWARD
    return LABEL_REWARD if named[0] == gold else WRONG_REWARD


def training_arguments(spec: Spec, folder: str) -> dict[str, Any]:
    """Return the settings for every trainer based on transformers' Trainer.

    Nothing is saved, logged, evaluated or recomputed.
    """
    return {
        "output_dir": folder,
        "learning_rate": spec.lr,
        "lr_scheduler_type": "constant",
        "seed": spec.seed,
        "bf16": spec.dtype == "bfloat16",  # trl's own default is True
        "gradient_checkpointing": False,  # trl's own default is True: slower, smaller
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not on_cuda(),  # without it, bf16 is refused on a CPU
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": on_cuda(),
    }


def batch_timer(meter: Meter) -> Any:
    """Return a Trainer callback that times each batch from the end of one optimizer step to the next."""
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            meter.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.end_batch()

    return Timer()


def _write(path: str, result: dict[str, Any]) -> None:
    target = Path(path)
    with tempfile.NamedTemporaryFile("w", dir=target.resolve().parent, delete=False, encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    os.replace(file.name, target)


def main(name: str, measure: Callable[[Spec, Meter], int]) -> None:
    """Run a peer's `measure(spec, meter)`, which returns the rows per batch, and write RESULT.json.

    After an error, RESULT.json holds it under "error", and the exit status is 1.
    """
    if len(sys.argv) != 3:
        sys.exit(f"usage: python {sys.argv[0]} SPEC.json RESULT.json")
    result: dict[str, Any] = {"name": name, "versions": versions()}
    try:
        spec = Spec.read(sys.argv[1])
        # Use local files only, and no tokenizer processes beside torch's threads.
        os.environ.update(
            HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", WANDB_DISABLED="true"
        )
        os.environ["OMP_NUM_THREADS"] = str(spec.threads)
        import torch

        torch.set_num_threads(spec.threads)
        torch.manual_seed(spec.seed)
        meter = Meter(spec)
        rows_per_batch = measure(spec, meter)
        result.update(meter.result(rows_per_batch), ignored_settings=spec.ignored)
    except Exception as error:  # any error is the peer's result, and is printed
        result["error"] = f"{type(error).__name__}: {error}"
        result["traceback"] = traceback.format_exc()
        _write(sys.argv[2], result)
        sys.exit(f"{name}: {result['traceback']}")
    _write(sys.argv[2], result)
