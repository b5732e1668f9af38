"""Nothing in data, tasks, adapters or models runs as code: each attempt would leave a marker file."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil

import pytest
from policies import trained_looking
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from adjudge.config import PromptConfig, RuntimeConfig, load_config
from adjudge.errors import AdjudgeError, ModelError, RunError, TaskError
from adjudge.models.encoder import load_encoder
from adjudge.models.policy import load_policy
from adjudge.models.sources.loading import load_causal_lm
from adjudge.models.sources.untrusted import check_adapter
from adjudge.prompts.render import Renderer
from adjudge.tasks import load_task, validate_task
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

CPU = RuntimeConfig(device="cpu", dtype="float32")


class Payload:
    """An object that leaves a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.fixture
def marker(tmp_path):
    """Yield the path of the file that code would leave, and check after the test that it is missing."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "code that came with a file was run"


@pytest.fixture
def model(tiny_llama, tmp_path):
    return shutil.copytree(tiny_llama, tmp_path / "model")


@pytest.fixture(scope="module")
def whole(tiny_llama, tmp_path_factory):
    """Return the folder of a complete adapter."""
    folder = tmp_path_factory.mktemp("whole") / "adapter"
    folder.mkdir()
    trained_looking(tiny_llama).save_adapter(folder)
    return folder


@pytest.fixture
def adapter(whole, tmp_path):
    """Return a copy of the adapter, which a test may damage."""
    return shutil.copytree(whole, tmp_path / "adapter")


def fresh(folder):
    """Return a policy without an adapter."""
    return load_policy(load_config(values={"model": str(folder), "runtime.dtype": "float32", "runtime.device": "cpu"}))


def change(path, **keys):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | keys), encoding="utf-8")


def test_payload_runs_when_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran here")))
    assert (tmp_path / "ran here").exists()


WEIGHTS = ["model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json", "model.safetensors.index.json"]


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_pickle_as_the_weights_of_a_model(model, marker, tmp_path, kind, name):
    if kind == "encoder":
        config = BertConfig(
            vocab_size=400, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
        BertForSequenceClassification(config).save_pretrained(model)
    keys = list(load_file(model / "model.safetensors"))
    (model / "model.safetensors").unlink()
    payload = pickle.dumps(Payload(marker))
    if name.endswith(".json"):
        (model / name).write_text(
            json.dumps({"metadata": {}, "weight_map": dict.fromkeys(keys, "evil.bin")}), encoding="utf-8"
        )
        (model / "evil.bin").write_bytes(payload)
    else:
        (model / name).write_bytes(payload)
    with pytest.raises(ModelError, match=r"safetensors|cannot be loaded"):
        load_causal_lm(str(model), CPU) if kind == "causal" else load_encoder(str(model), CPU, 64, ("No", "Yes"))


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "a.bin", "sub/a.safetensors", 7])
def test_index_that_names_weights_elsewhere(model, shard):
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}), encoding="utf-8")
    with pytest.raises(ModelError, match="only safetensors files beside the index are read"):
        load_causal_lm(str(model), CPU)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "value_head.safetensors"])
def test_pickle_as_the_weights_of_an_adapter(adapter, tiny_llama, marker, name):
    (adapter / name).write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(RunError, match="is damaged"):
        fresh(tiny_llama).load_adapter(adapter, train=False)


def test_pickle_beside_an_adapter_or_instead_of_it(adapter, tiny_llama, marker):
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    fresh(tiny_llama).load_adapter(adapter, train=True)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(RunError, match="holds no adapter"):
        fresh(tiny_llama).load_adapter(adapter, train=False)


CONFIGS = {
    "megatron_config": {"params_dtype": "float32"},
    "auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"},
    "init_lora_weights": "pissa",
    "runtime_config": {"ephemeral_gpu_offload": True},
    "loftq_config": {"loftq_bits": 4},
    "layer_replication": [[0, 2], [0, 2]],
    "modules_to_save": ["lm_head"],
    "eva_config": {"rho": 2.0},
    "corda_config": {"corda_method": "kpm"},
    "trainable_token_indices": [1],
    "megatron_core": "evil",
    "use_dora": True,
    "bias": "all",
    "rank_pattern": {"q_proj": 10**9},
    "peft_type": "PROMPT_TUNING",
    "task_type": "SEQ_CLS",
    "target_modules": "(a+)+$",
    "r": 10**9,
    "lora_alpha": float("inf"),
    "a_key_of_tomorrow": "anything",
}


@pytest.mark.parametrize("key", CONFIGS)
def test_adapter_configuration_with_more_than_lora(adapter, key):
    change(adapter / "adapter_config.json", **{key: CONFIGS[key]})
    with pytest.raises(RunError, match=f"adapter_config.json: '{key}' is"):
        check_adapter(adapter)


def test_adapter_configuration_imports_nothing(adapter, tiny_llama, tmp_path, marker, monkeypatch):
    """``megatron`` is the only package from which peft would import."""
    (tmp_path / "megatron").mkdir()
    for name in ("__init__.py", "evil.py"):
        (tmp_path / "megatron" / name).write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    change(adapter / "adapter_config.json", megatron_config={"a": 1}, megatron_core="megatron.evil")
    with pytest.raises(RunError, match="megatron_config"):
        fresh(tiny_llama).load_adapter(adapter, train=False)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"peft_type": "LORA"}'])
def test_broken_adapter_configuration(adapter, content):
    (adapter / "adapter_config.json").write_bytes(content)
    with pytest.raises(RunError, match=r"adapter_config\.json: "):
        check_adapter(adapter)


def test_base_model_named_by_an_adapter_is_not_loaded(adapter, tiny_llama, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("the hub was asked"))
    change(adapter / "adapter_config.json", base_model_name_or_path="nobody/evil", revision="main")
    fresh(tiny_llama).load_adapter(adapter, train=False)


def test_adapter_with_missing_weights_is_refused(adapter, tiny_llama):
    weights = load_file(adapter / "adapter_model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(RunError, match="1 weights are missing or unknown"):
        fresh(tiny_llama).load_adapter(adapter, train=False)


def test_adapter_in_the_folder_of_a_model_is_refused(model, adapter, marker):
    shutil.copy(adapter / "adapter_config.json", model)
    (model / "adapter_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    for load in (lambda: load_causal_lm(str(model), CPU), lambda: load_encoder(str(model), CPU, 64, ("No", "Yes"))):
        with pytest.raises(ModelError, match="holds an adapter"):
            load()


AUTO = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoModelForSequenceClassification": "evil.M"}


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("config.json", {"auto_map": AUTO}),
        ("config.json", {"auto_map": AUTO, "model_type": "brand-new"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}, "tokenizer_class": "T"}),
        ("generation_config.json", {"custom_generate": "evil"}),
        ("config.json", {"attn_implementation": "kernels-community/evil"}),
    ],
)
@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_python_files_of_a_model_do_not_run(model, marker, kind, file, keys):
    change(model / file, **keys)
    for name in ("evil.py", "custom_generate/generate.py"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text(f"open({str(marker)!r}, 'w')\nclass C: pass\nM = T = C\n", encoding="utf-8")
    with contextlib.suppress(ModelError):  # models that transformers knows without the code may load
        load_causal_lm(str(model), CPU) if kind == "causal" else load_encoder(str(model), CPU, 64, ("No", "Yes"))


def test_trusted_python_files_of_a_model_run(model, tmp_path):
    change(model / "config.json", auto_map=AUTO, model_type="brand-new")
    (model / "evil.py").write_text(
        f"open({str(tmp_path / 'trusted')!r}, 'w')\nclass C: pass\nM = T = C\n", encoding="utf-8"
    )
    with pytest.raises(AdjudgeError):
        load_causal_lm(str(model), CPU.model_copy(update={"trust_remote_code": str(model)}))
    assert (tmp_path / "trusted").exists()


TASK = """
name: my/task
title: A task
fields: {text: body}
instruction: Judge the text.
template: "Text: {{ text }}"
labels: {0: No, 1: Yes}
metrics: [accuracy, f1]
source: {table: {train: rows.csv}}
"""


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['touch MARK']", "!!python/object/new:os.system [touch MARK]"]
)
@pytest.mark.parametrize("part", ["A task", "{text: body}", "[accuracy, f1]"])
def test_task_file_that_calls_python(tmp_path, marker, tag, part):
    path = tmp_path / "task.yaml"
    path.write_text(TASK.replace(part, tag.replace("MARK", str(marker))), encoding="utf-8")
    assert "not valid YAML" in validate_task(path)[0]
    with pytest.raises(TaskError):
        load_task(path)


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ text.__class__ }}",
    "{{ text['__class__'] }}",
    "{{ text | attr('__class__') }}",
    "{{ cycler.__init__.__globals__.os.popen('touch MARK').read() }}",
    "{{ lipsum.__globals__['os'].system('touch MARK') }}",
    "{{ range(10**9) | list }}",
    "{% for n in range(99999) %}{{ text }}{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{% macro evil() %}{{ evil() }}{% endmacro %}{{ evil() }}",
    "{% set a = text ~ text %}{{ a }}",
    "{{ 'a' * 10**10 }}",
    "{{ '%0999999999d' | format(1) }}",
    "{{ text | center(10**10) }}",
    "{{ text | replace('', 'aaaa') }}",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_task_template_that_reaches_for_python(tmp_path, tiny_llama, marker, escape):
    template = "{{ text }} " + escape.replace("MARK", str(marker))
    path = tmp_path / "task.yaml"
    path.write_text(TASK.replace('"Text: {{ text }}"', json.dumps(template)), encoding="utf-8")
    with pytest.raises(TaskError, match="'template'"):
        load_task(path)
    unchecked = TaskSpec.model_validate(  # a run folder may hold such a task
        {"name": "a", "title": "a", "fields": {"text": "text"}, "instruction": "Judge.", "template": template}
        | {"labels": {"0": "No", "1": "Yes"}, "metrics": ("accuracy",), "source": {}}
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    with pytest.raises(TaskError, match="template cannot be used"):
        Renderer(tokenizer, unchecked, PromptConfig()).prompt(Example("a:1", {"text": "fine"}))


@pytest.mark.parametrize("escape", ESCAPES)
def test_field_is_never_a_template(tmp_path, tiny_llama, marker, escape):
    text = escape.replace("MARK", str(marker))
    path = tmp_path / "task.yaml"
    path.write_text(TASK, encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    prompt = Renderer(tokenizer, load_task(path), PromptConfig(max_tokens=900)).prompt(Example("a:1", {"text": text}))
    assert f"Text: {text}" in tokenizer.decode(list(prompt.ids))


@pytest.mark.parametrize("escape", [ESCAPES[0], *ESCAPES[4:6]])
def test_chat_template_that_reaches_for_python(model, tmp_path, marker, escape):
    (model / "chat_template.jinja").write_text(escape.replace("MARK", str(marker)), encoding="utf-8")
    path = tmp_path / "task.yaml"
    path.write_text(TASK, encoding="utf-8")
    _, tokenizer = load_causal_lm(str(model), CPU)
    with pytest.raises(ModelError, match="chat template cannot hold this prompt"):
        Renderer(tokenizer, load_task(path), PromptConfig())
