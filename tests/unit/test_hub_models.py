"""Models from the hub by revision: which commit is loaded and recorded. No test uses the network."""

import json
import shutil
import socket
import urllib.request

import httpx2
import pytest
import torch
from fake_method import reviews
from hub_cache import NEW, OLD, cache_model, no_network
from huggingface_hub import close_session, constants
from safetensors.torch import load_file, save_file

from adjudge.config import RuntimeConfig, change, load_config
from adjudge.errors import ConfigError, ModelError
from adjudge.experiments.evaluate import evaluate_run, load_judge
from adjudge.experiments.execute import execute
from adjudge.methods.settings import own_settings
from adjudge.models.encoder import load_encoder
from adjudge.models.policy import load_policy
from adjudge.models.sources.hub import split_hub_id
from adjudge.models.sources.loading import load_causal_lm, locate, resolve_commit
from adjudge.runs.base import pinned
from adjudge.runs.folder import read_json

CPU = RuntimeConfig(device="cpu", dtype="float32")
REPO = "someone/judge-tiny"


@pytest.fixture
def cache(tiny_llama, tmp_path, monkeypatch):
    """Return the hub client's cache with two commits of a model; the older has other weights, and a tag."""
    older = shutil.copytree(tiny_llama, tmp_path / "older")
    weights = {name: tensor + 1 for name, tensor in load_file(older / "model.safetensors").items()}
    save_file(weights, older / "model.safetensors", metadata={"format": "pt"})
    cache_model(tmp_path / "hub", REPO, older, OLD, "v1")
    cache_model(tmp_path / "hub", REPO, tiny_llama, NEW, "main")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    no_network(monkeypatch)
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("owner/name", ("owner/name", None)),
        ("owner/name@v1.0", ("owner/name", "v1.0")),
        ("owner/name@refs/pr/1", ("owner/name", "refs/pr/1")),
        ("owner/name@", None),
        ("owner/name@a b", None),
        ("owner/name@/a", None),
        ("name@v1", None),
        ("./owner/name", None),
        ("a/b/c", None),
    ],
)
def test_name_with_a_revision_is_split(name, parts):
    assert split_hub_id(name) == parts


@pytest.mark.parametrize(
    ("revision", "commit"), [("", NEW), ("@main", NEW), ("@v1", OLD), (f"@{OLD}", OLD), (f"@{NEW}", NEW)]
)
def test_revision_decides_which_weights_are_loaded(revision, commit, cache, tiny_llama):
    name = REPO + revision
    assert locate(name, CPU)[1]["revision"] == resolve_commit(name) == commit
    first = load_file(tiny_llama / "model.safetensors")["model.norm.weight"]
    loaded = load_causal_lm(name, CPU)[0].model.norm.weight
    assert torch.equal(loaded, first + (commit == OLD))


def test_nothing_waits_for_a_missing_network(tiny_llama, tmp_path, monkeypatch):
    cache_model(tmp_path / "hub", REPO, tiny_llama, NEW, "main")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    lookups = no_network(monkeypatch)
    load_causal_lm(REPO, CPU)
    load_encoder(REPO, CPU, 16, ("a", "b"))
    # Our own check of the network; the client would make six lookups, with pauses, for each file.
    assert len(lookups) <= 4


@pytest.mark.parametrize("name", [f"{REPO}@v2", "someone/else", f"{REPO}@{'3' * 40}"])
def test_model_missing_in_the_cache_is_an_error_that_suggests_a_bundled_model(name, cache):
    with pytest.raises(ModelError, match=r"hub cannot be reached.*smollm2-135m"):
        load_causal_lm(name, CPU)


def test_folder_comes_before_the_hub(cache, tiny_llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_llama, tmp_path / "someone/judge-tiny@v1")
    assert resolve_commit(f"{REPO}@v1") is None
    assert "revision" not in locate(f"{REPO}@v1", CPU)[1]
    assert resolve_commit("smollm2-135m") is None


def test_adapter_names_the_commit_of_its_base_model(cache, tmp_path):
    load_policy(load_config(values={"model": f"{REPO}@v1", "runtime.dtype": "float32"}), adapter=True).save_adapter(
        tmp_path / "a"
    )
    saved = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (saved["base_model_name_or_path"], saved["revision"]) == (REPO, OLD)


def test_finished_run_judges_with_its_first_commit(cache, tmp_path):
    """The name may stand for another commit by now; trust in the model's code changes nothing."""
    values = {"method": "zero-shot", "model": REPO, "runtime.trust_remote_code": REPO, "evaluation.resamples": 100}
    main = cache / "models--someone--judge-tiny/refs/main"
    main.write_text(OLD)
    execute(load_config(values=values | {"data.eval_rows": 2}), reviews(tmp_path), tmp_path / "run")
    main.write_text(NEW)
    run, _, judge = load_judge(tmp_path / "run")
    assert judge.task.policy.lm.config._commit_hash == OLD
    assert judge.task.config.runtime.trust_remote_code == judge.task.config.model == f"{REPO}@{OLD}"
    assert run.config.model == REPO
    folder, scores = evaluate_run(tmp_path / "run", split="train", eval_rows=1)
    assert scores["model"] == REPO
    assert read_json(folder / "environment.json")["model"]["commit"] == OLD


def test_a_branch_is_judged_at_the_commit_it_stood_for(cache, tmp_path):
    main = cache / "models--someone--judge-tiny/refs/main"
    main.write_text(OLD)
    values = {"method": "zero-shot", "model": f"{REPO}@main", "evaluation.resamples": 100, "data.eval_rows": 2}
    execute(load_config(values=values), reviews(tmp_path), tmp_path / "run")
    main.write_text(NEW)
    assert load_judge(tmp_path / "run")[2].task.policy.lm.config._commit_hash == OLD


def test_a_run_that_only_has_to_be_judged_goes_on_at_its_commit(cache, tmp_path):
    main = cache / "models--someone--judge-tiny/refs/main"
    main.write_text(OLD)
    values = {"method": "sft", "model": REPO, "sft.min_steps": 0, "data.train_rows": 4, "evaluation.decode": "labels"}
    config, spec, folder = load_config(values=values), reviews(tmp_path), tmp_path / "run"
    execute(config, spec, folder)
    judged = folder / "predictions/dev.jsonl"
    before = judged.read_text(encoding="utf-8")
    main.write_text(NEW)
    (folder / "scores.json").unlink()
    (folder / "status.json").write_text('{"state": "running", "reason": ""}')
    judged.unlink()
    execute(config, spec, folder, resume=True)
    assert judged.read_text(encoding="utf-8") == before


def test_a_model_of_the_methods_own_is_pinned_too(tmp_path):
    config = load_config(values={"method": "linear", "model": "a/b", "linear.model": "a/b"})
    record = {"started": "2026-11-01T00:00:00+00:00", "model": {"name": "a/b", "commit": OLD}}
    (tmp_path / "environment.json").write_text(json.dumps(record))
    assert pinned(tmp_path, config, "linear.model").linear.model == f"a/b@{OLD}"
    assert pinned(tmp_path, change(config, {"linear.model": "a/c"}), "linear.model").linear.model == "a/c"


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Return a function that sets what the hub's client gets for every request: a status and a code, or an error."""
    answers = []

    def respond(request):
        (given,) = answers
        if isinstance(given, Exception):
            raise given
        status, code = given
        return httpx2.Response(status, headers={"X-Error-Code": code, "X-Request-Id": "Root=1-2"}, request=request)

    def client():
        return httpx2.Client(transport=httpx2.MockTransport(respond))

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    monkeypatch.setattr("huggingface_hub.utils._http._GLOBAL_CLIENT_FACTORY", client)
    close_session()
    yield lambda given: answers.__setitem__(slice(None), [given])
    close_session()


@pytest.mark.parametrize("name", [REPO, f"{REPO}@{OLD}"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((401, "GatedRepo"), "is gated: ask for access on the hub's page of the model, then log in with `hf auth log"),
        ((401, "RepoNotFound"), r"has no such model, or it is private: check the name, or log in.*HF_TOKEN\.$"),
        ((404, "RevisionNotFound"), "the model has no such branch, tag or commit on the hub"),
        ((403, "Other"), r"cannot be loaded: 403 Forbidden.*Make sure your token has the correct permissions\.$"),
        (httpx2.ProxyError("no way out"), r"cannot be loaded: the connection to the hub failed \(no way out\)"),
        (httpx2.ReadError(""), r"cannot be loaded: the connection to the hub failed \(ReadError\)\. Try again\."),
    ],
)
def test_a_refusal_of_the_hub_says_what_it_means(name, given, message, answer):
    answer(given)
    for load in (load_causal_lm, lambda name, runtime: load_encoder(name, runtime, 16, None)):
        with pytest.raises(ModelError, match=message) as caught:
            load(name, CPU)
        assert "Request ID" not in str(caught.value)


def test_a_repository_without_a_model_may_be_an_adapter(answer):
    answer((404, "EntryNotFound"))
    with pytest.raises(ModelError, match=r"no config\.json.*`adjudge evaluate --adapter DIR`.*GGUF"):
        load_causal_lm(REPO, CPU)


def test_a_broken_connection_leaves_a_model_of_the_cache_usable(answer, tiny_llama, tmp_path, capsys):
    cache_model(tmp_path / "hub", REPO, tiny_llama, NEW, "main")
    answer(httpx2.RemoteProtocolError("Server disconnected"))
    assert resolve_commit(REPO) == NEW
    assert locate(REPO, CPU)[1] == {"trust_remote_code": False, "local_files_only": True, "revision": NEW}
    assert load_causal_lm(REPO, CPU)[0].config._commit_hash == NEW
    assert f"the connection to the hub failed: {REPO} is commit {NEW[:12]}, from" in capsys.readouterr().err
    with pytest.raises(ModelError, match=r"the connection to the hub failed \(Server disconnected\)"):
        load_causal_lm(f"{REPO}@v2", CPU)


def with_code(folder, ran):
    """Add Python code to a model folder; when it runs, it writes the file `ran`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "brand-new", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nraise ValueError('no model here')\n", encoding="utf-8")


@pytest.mark.parametrize("trusted", [None, "itself", "another"])
def test_only_the_trusted_model_runs_its_code(trusted, tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    with_code(folder, tmp_path / "ran")
    name = {"itself": str(folder), "another": str(tiny_llama)}.get(trusted)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_causal_lm(str(folder), CPU.model_copy(update={"trust_remote_code": name}))
    assert (tmp_path / "ran").exists() == (trusted == "itself")


def test_trusted_model_must_be_a_model_of_the_run():
    values = {"model": "a/b", "encoder.model": "c/d", "runtime.trust_remote_code": "a/b"}
    config = load_config(values=values)
    trusted = {
        name: own_settings(config.model_copy(update={"method": name})).runtime.trust_remote_code
        for name in ("sft", "encoder")
    }
    assert trusted == {"sft": "a/b", "encoder": None}
    with pytest.raises(ConfigError, match=r"'a/c', which is none of the models: model=a/b, encoder\.model=c/d, .*give"):
        load_config(values=values | {"runtime.trust_remote_code": "a/c"})
    for key in ("linear.model", "setfit.model", "give.encoder"):
        assert load_config(values={key: "a/c", "runtime.trust_remote_code": "a/c"}).runtime.trust_remote_code == "a/c"
    with pytest.raises(ConfigError, match="write the name of the model"):
        load_config(overrides=["runtime.trust_remote_code=true"])
    assert load_config(overrides=["runtime.trust_remote_code=false"]) == load_config()
