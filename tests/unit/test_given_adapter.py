"""Adapters that plain peft saved: judged as peft's own model judges, and what is refused."""

import json
import shutil

import pytest
import torch
import yaml
from fake_method import write_reviews
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import adjudge
from adjudge.cli.main import app
from adjudge.errors import AdjudgeError, ConfigError, ModelError, RunError
from adjudge.methods.registry import GIVEN
from adjudge.models.sources.foreign_adapter import read_foreign
from adjudge.runs.given_adapter import base_of_adapter, given_adapter
from adjudge.ship.neighbours.export import export_tasks
from adjudge.ship.neighbours.lm_eval import tokens_there
from adjudge.tasks import infer_task, spec_to_yaml

QUICK = {"runtime__threads": 1, "runtime__dtype": "float32", "evaluation__resamples": 100}


def save_adapter(base, folder, *, whole_layers=True, **options):
    """Train nothing: save LoRA layers with random weights, as plain peft saves them."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    model = get_peft_model(model, LoraConfig(**{**settings, **options}))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(str(folder), save_embedding_layers="auto" if whole_layers else False)
    return folder


@pytest.fixture(scope="module")
def theirs(tiny_llama, tmp_path_factory):
    return save_adapter(tiny_llama, tmp_path_factory.mktemp("theirs") / "my lora")


@pytest.fixture(scope="module")
def task_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    spec = infer_task(write_reviews(folder / "reviews.csv"), ["text"], "label")
    (folder / "mine.yaml").write_text(spec_to_yaml(spec.model_copy(update={"name": "mine"})))
    return folder / "mine.yaml"


@pytest.fixture
def copied(theirs, tmp_path):
    return shutil.copytree(theirs, tmp_path / "copied")


def change(folder, **keys):
    """Change keys of the adapter's configuration."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@torch.no_grad()
def shares_of_peft(base, adapter, task_file, out):
    """Return the share of each label word by peft's own model, for each row."""
    export_tasks("lm-eval", out, [str(task_file)], model=str(base))
    choices = yaml.load((out / "mine.yaml").read_text().replace("!function", ""), yaml.SafeLoader)["doc_to_choice"]
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)).eval()
    shares = {}
    for line in (out / "mine.jsonl").read_text().splitlines():
        row, scores = json.loads(line), []
        for choice in choices:
            before, after = tokens_there(tokenizer, row["prompt"], choice)
            logp = model(input_ids=torch.tensor([[*before, *after]])).logits[0].float().log_softmax(-1)
            scores.append(sum(logp[len(before) - 1 + place, token].item() for place, token in enumerate(after)))
        shares[row["id"]] = torch.tensor(scores).softmax(-1)
    return shares


def assert_judges_alike(run, shares):
    mine = {row.id: torch.tensor(list(row.probabilities.values())) for row in adjudge_predictions(run)}
    assert mine.keys() == shares.keys() and len(mine) > 3
    assert all(torch.allclose(mine[id], shares[id], atol=1e-5) for id in shares)


def adjudge_predictions(run):
    from adjudge.runs.folder import Run

    return Run.open(run.folder).predictions("dev")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "init_lora_weights": "gaussian", "task_type": None, "lora_dropout": 0.1},
        {"target_modules": r".*\.(q_proj|up_proj)", "layers_to_transform": None},
        {"target_modules": ["q_proj", "o_proj"], "layers_to_transform": [1]},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3, "model.layers.0.mlp.down_proj": 5}},
        {"target_modules": "all-linear"},
    ],
)
def test_an_adapter_of_plain_peft_judges_as_in_peft(options, tiny_llama, task_file, tmp_path):
    folder = save_adapter(tiny_llama, tmp_path / "lora", **options)
    run = adjudge.evaluate(task=task_file, adapter=folder, out=tmp_path / "out", evaluation__decode="labels", **QUICK)
    assert_judges_alike(run, shares_of_peft(tiny_llama, folder, task_file, tmp_path / "there"))
    assert run.config.model == str(tiny_llama) and run.config.method == GIVEN
    bare = adjudge.evaluate("zero-shot", task_file, model=str(tiny_llama), out=tmp_path / "bare", **QUICK)
    assert run.predict(["a good film"]) != bare.predict(["a good film"])


def test_layers_on_the_output_head_judge_as_in_peft(able, task_file, tmp_path):
    folder = save_adapter(able, tmp_path / "lora", target_modules=["q_proj", "lm_head"], whole_layers=False)
    run = adjudge.evaluate(task=task_file, adapter=folder, out=tmp_path / "out", evaluation__decode="labels", **QUICK)
    assert_judges_alike(run, shares_of_peft(able, folder, task_file, tmp_path / "there"))


@pytest.mark.parametrize(
    ("target", "message"), [("lm_head", "save_embedding_layers=False"), ("embed_tokens", "are not of LoRA layers")]
)
def test_whole_layers_of_the_base_in_the_file_are_refused(target, message, able, tmp_path):
    folder = save_adapter(able, tmp_path / "lora", target_modules=["q_proj", target])
    with pytest.raises(RunError, match=message):
        given_adapter(folder)


def test_the_results_are_a_run_folder_named_after_data_and_adapter(theirs, task_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = [f"{key.replace('__', '.')}={value}" for key, value in QUICK.items()]
    call = ["evaluate", "--adapter", theirs, "--task", task_file, "--decode", "labels", *quick]
    result = invoke(*call)
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "runs/mine").iterdir()
    digest = given_adapter(theirs).files["adapter_model.safetensors"]
    assert folder.name == f"adapter-my-lora-{digest[:6]}-seed0"
    scores = adjudge.open_run(folder).scores
    assert scores["method"] == GIVEN and scores["train_rows"] == 0
    assert (
        scores["adapter"]["folder"] == str(theirs)
        and scores["adapter"]["sha256"]["adapter_model.safetensors"] == digest
    )
    again = invoke(*call)
    assert again.exit_code == 2 and "--force" in again.output
    assert adjudge.open_run(folder).evaluate(eval_rows=2)["n"] == 2
    predicted = invoke("evaluate", "--run", folder, "--eval-rows", 3)
    assert predicted.exit_code == 0, predicted.output


def test_own_rows_prompt_style_and_another_base_are_taken(theirs, tiny_llama, tmp_path):
    moved = shutil.copytree(tiny_llama, tmp_path / "base")
    data = write_reviews(tmp_path / "reviews.csv")
    lost = change(shutil.copytree(theirs, tmp_path / "lost"), base_model_name_or_path=str(tmp_path / "gone"))
    call = ["evaluate", "--adapter", lost, "--data", data, "--text", "text", "--label", "label"]
    call += ["--out", tmp_path / "out", "evaluation.resamples=100"]
    refused = invoke(*call)
    assert refused.exit_code == 2
    assert "cannot be loaded here. Name the base model with --model" in " ".join(refused.output.split())
    assert not (tmp_path / "out").exists()
    result = invoke(*call, "--model", moved, "--prompt-style", "paper")
    assert result.exit_code == 0, result.output
    assert f"names {tmp_path / 'gone'} as its base model, and {moved} is used" in " ".join(result.stderr.split())
    config = adjudge.open_run(tmp_path / "out").config
    assert (config.prompt.style, config.model) == ("paper", str(moved))


def test_an_adapter_that_changed_is_not_judged_with_again(copied, task_file, tmp_path):
    run = adjudge.evaluate(task=task_file, adapter=copied, out=tmp_path / "out", **QUICK)
    weights = load_file(copied / "adapter_model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, copied / "adapter_model.safetensors")
    with pytest.raises(RunError, match="has changed since"):
        adjudge.open_run(run.folder).predict(["a good film"])
    shutil.rmtree(copied)
    with pytest.raises(RunError, match="there is no such folder"):
        adjudge.open_run(run.folder).predict(["a good film"])


def test_a_base_of_another_shape_is_an_error_that_names_both(theirs, able, task_file, tmp_path):
    with pytest.raises(RunError, match=r"does not fit .*trained on another model"):
        adjudge.evaluate(task=task_file, adapter=theirs, model=str(able), out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out/scores.json").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"task_type": "SEQ_CLS"}, "adjudge train head"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "only CAUSAL_LM"),
        ({"peft_type": "PROMPT_TUNING"}, "only LORA"),
        ({"peft_type": None}, "only LORA"),
        ({"peft_type": "LORA_AND_ADJUDGE_INSTRUCTION_EMBEDDINGS"}, "--run"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save' is .*--model"),
        ({"use_dora": True}, "'use_dora' is true"),
        ({"bias": "lora_only"}, "'bias' is"),
        ({"trainable_token_indices": [1]}, "'trainable_token_indices' is"),
        ({"init_lora_weights": "pissa"}, "changed the base model too"),
        ({"auto_kernel": "owner/code"}, "'auto_kernel' is"),
        ({"r": 0}, "'r' is 0"),
        ({"r": "8"}, "'r' is"),
        ({"lora_alpha": None}, "'lora_alpha' is null"),
        ({"rank_pattern": {"(a+)+$": 2}}, "'rank_pattern' is"),
        ({"alpha_pattern": ["q_proj"]}, "'alpha_pattern' is"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(keys, message, copied):
    with pytest.raises(RunError, match=message):
        given_adapter(change(copied, **keys))


def test_missing_and_damaged_files_are_named(copied, tmp_path):
    with pytest.raises(RunError, match="there is no such folder"):
        given_adapter(tmp_path / "nowhere")
    outer = tmp_path / "outer"
    shutil.copytree(copied, outer / "checkpoint-20")
    with pytest.raises(RunError, match=r"adapter_config\.json is missing\. It holds adapters in checkpoint-20"):
        given_adapter(outer)
    (copied / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"adapter_model\.safetensors is damaged"):
        given_adapter(copied)
    (copied / "adapter_model.safetensors").rename(copied / "adapter_model.bin")
    with pytest.raises(RunError, match="unpickling runs code"):
        given_adapter(copied)
    (copied / "adapter_model.bin").unlink()
    with pytest.raises(RunError, match=r"adapter_model\.safetensors is missing"):
        given_adapter(copied)
    (copied / "adapter_config.json").write_text("[]")
    save_file({"x": torch.zeros(1)}, copied / "adapter_model.safetensors")
    with pytest.raises(RunError, match="is not a JSON object"):
        given_adapter(copied)


def test_weights_that_are_missing_or_not_of_lora_are_refused(copied, tiny_llama, task_file, tmp_path):
    path = copied / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name: weight for name, weight in weights.items() if "layers.1.mlp" not in name}, path)
    with pytest.raises(RunError, match="is incomplete: 2 weights are missing"):
        adjudge.evaluate(task=task_file, adapter=copied, out=tmp_path / "out", **QUICK)
    save_file({**weights, "base_model.model.model.embed_tokens.weight": torch.zeros(400, 32)}, path)
    with pytest.raises(RunError, match="1 of its 13 weights are not of LoRA layers"):
        given_adapter(copied)
    save_file({}, path)
    with pytest.raises(RunError, match="holds no weights"):
        given_adapter(copied)


def test_a_run_of_ours_is_pointed_to_run_and_its_adapter_is_taken(tiny_llama, task_file, tmp_path):
    quick = {**QUICK, "sft__epochs": 1, "sft__min_steps": 0, "sft__optimizer__lr": 0.05}
    run = adjudge.train("sft", task_file, train_rows=8, model=str(tiny_llama), out=tmp_path / "run", **quick)
    with pytest.raises(RunError, match=r"is a run of adjudge.*--run"):
        given_adapter(run.folder)
    judged = adjudge.evaluate(task=task_file, adapter=run.folder / "adapter", out=tmp_path / "out", **QUICK)
    texts = ["a good film", "a bad film"]
    assert [row.probabilities for row in judged.predict(texts)] == [row.probabilities for row in run.predict(texts)]
    (run.folder / "adapter/classification_head.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="classification head"):
        given_adapter(run.folder / "adapter")


def test_the_base_is_the_one_that_is_named_with_its_commit(copied, monkeypatch, tmp_path):
    from hub_cache import no_network
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    no_network(monkeypatch)
    with pytest.raises(ModelError, match=r"names no base model\. Name it with --model"):
        base_of_adapter(given_adapter(change(copied, base_model_name_or_path=None)))
    change(copied, base_model_name_or_path="HuggingFaceTB/SmolLM2-135M-Instruct")
    with pytest.raises(ModelError, match="A copy of it is bundled: --model smollm2-135m"):
        base_of_adapter(given_adapter(copied))
    commit = "0123456789" * 4
    change(copied, base_model_name_or_path="someone/tiny", revision=commit)
    assert base_of_adapter(given_adapter(copied)) == f"someone/tiny@{commit}"
    assert read_foreign(copied).revision == commit


@pytest.mark.parametrize(
    "others", [["--run", "x"], ["--method", "zero-shot"], ["--method", "sft"], ["--method", "adapter"]]
)
def test_an_adapter_is_the_only_judge(others, theirs):
    result = invoke("evaluate", "--adapter", theirs, *others)
    assert result.exit_code == 2 and "one of them" in " ".join(result.stderr.split())


def test_what_does_not_go_with_an_adapter_is_refused(theirs, task_file):
    with pytest.raises(ConfigError, match="one of them"):
        adjudge.evaluate("zero-shot", task_file, adapter=theirs)
    with pytest.raises(ConfigError, match="one of them"):
        adjudge.evaluate(task=task_file)
    with pytest.raises(AdjudgeError, match="api:"):
        adjudge.evaluate(task=task_file, adapter=theirs, model="api:some-model")
    with pytest.raises(ConfigError, match=r"adapter needs adapter\.folder"):
        adjudge.evaluate(GIVEN, task_file)
