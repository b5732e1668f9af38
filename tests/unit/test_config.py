"""Settings: where they come from, which wins, and what is said about a wrong one."""

from pathlib import Path

import pytest

from adjudge.api import named_settings
from adjudge.config import Config, keys_of, load_config, parse_config, parse_override, upgrade, value_of
from adjudge.config.foreign import OURS, REMARKS
from adjudge.errors import ConfigError


def test_defaults_are_those_of_the_tree():
    assert load_config() == Config()


@pytest.mark.parametrize(
    ("override", "key", "untouched"),
    [
        ("ppo.optimizer.weight_decay=0.1", "ppo.optimizer.lr", 1e-4),
        ("encoder.optimizer.schedule=cosine", "encoder.optimizer.lr", 1e-4),
        ("encoder.optimizer.lr=1e-5", "encoder.optimizer.weight_decay", 0.01),
        ("ppo.clip=0.1", "ppo.lam", 0.95),
    ],
)
def test_one_override_leaves_its_neighbours_at_the_defaults_of_their_place(override, key, untouched):
    assert value_of(load_config(overrides=[override]), key) == untouched


def test_a_part_of_a_group_in_a_file_leaves_the_rest(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("encoder:\n  optimizer: {warmup_share: 0.2}\nppo:\n")
    config = load_config(file=file)
    assert (config.encoder.optimizer.warmup_share, config.encoder.optimizer.lr) == (0.2, 1e-4)
    assert config.ppo == Config().ppo


def test_later_sources_win(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("seed: 1\nppo: {clip: 0.1, lam: 0.5}\nmodel: from-file\n")
    config = load_config(
        preset="paper", file=file, overrides=["ppo.clip=0.3", "seed=2"], values={"seed": 3, "model": None}
    )
    assert (config.seed, config.ppo.clip, config.ppo.lam, config.model) == (3, 0.3, 0.5, "from-file")
    assert config.ppo.mini_batch_size == 8  # the preset's
    assert config.preset == "paper"


@pytest.mark.parametrize("how", ["argument", "file", "override"])
def test_the_preset_can_be_named_in_three_places(how, tmp_path):
    (tmp_path / "p.yaml").write_text("preset: paper\n")
    by = {
        "argument": {"preset": "paper"},
        "file": {"file": tmp_path / "p.yaml"},
        "override": {"overrides": ["preset=paper"]},
    }
    config = load_config(**by[how])
    assert config.preset == "paper"
    assert config.ppo.optimizer.lr == 9e-6
    assert config.ppo.stop_kl is None
    assert config.prompt.style == "paper"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1e-4", 1e-4),
        ("a=2E5", 2e5),
        ("a=1.5e+3", 1500.0),
        ("a=[x, y]", ["x", "y"]),
        ("a=", None),
        ("a=null", None),
        ("a=true", True),
        ("a=x=y", "x=y"),
        ("a=nan", "nan"),  # text, so that a folder may be called so
        ("a=1e4x", "1e4x"),
    ],
)
def test_overrides_are_read_as_yaml_and_exponents_as_numbers(text, value):
    assert parse_override(text) == ("a", value)


@pytest.mark.parametrize("key", ["ppo.stop_kl", "ppo.kl_target", "ppo.optimizer.max_grad_norm"])
def test_null_unsets_in_an_override_and_in_a_file_and_says_nothing_in_values(key, tmp_path):
    default = value_of(Config(), key)
    assert default is not None
    assert value_of(load_config(overrides=[f"{key}=null"]), key) is None
    file = tmp_path / "own.yaml"
    group, _, rest = key.partition(".")
    file.write_text(f"{group}: {{{rest.replace('.', ': {')}: null{'}' * rest.count('.')}}}\n")
    assert value_of(load_config(file=file), key) is None
    assert value_of(load_config(values={key: None}), key) == default
    assert value_of(load_config(overrides=[f"{key}=null"], values={key: None}), key) is None
    assert value_of(load_config(values=named_settings({key.replace(".", "__"): None, "seed": None})), key) is None


@pytest.mark.parametrize("text", ["seed", "=3", " =3", "seed=[1", "seed: 3"])
def test_what_is_no_override_is_refused(text):
    with pytest.raises(ConfigError):
        parse_override(text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ppo.clp=1", "'ppo.clp' is no setting. Did you mean 'ppo.clip'?"),
        ("pppo.clip=1", "Did you mean 'ppo.clip'?"),
        ("lr=1", "sft.optimizer.lr, ppo.optimizer.lr, reinforce.optimizer.lr, rloo.optimizer.lr"),
        ("qwertz=1", "`adjudge settings`"),
        ("seed.x=1", "'seed.x' is no setting"),
        ("ppo.clip.deep.er=1", "is no setting"),
        ("ppo=3", "'ppo' is a group of settings"),
        ("ppo.clip=-1", "'ppo.clip' = -1"),
        ("ppo.clip=.nan", "finite"),
        ("ppo.reward.right=.inf", "finite"),
        ("prompt.style=chatt", "'chat' or 'paper'"),
        ("data.train_rows=0", "'data.train_rows' = 0"),
        ("prompt.analysis=after", "'prompt.analysis' = 'after': Input should be False, True or 'before'."),
        ("preset=papre", "Did you mean 'paper'?"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.optimizer.learning_rate=1e-4", "Did you mean 'sft.optimizer.lr'?"),
        ("sft.learning_rate=1e-4", "Did you mean 'sft.optimizer.lr'?"),
        ("encoder.num_train_epochs=3", "Did you mean 'encoder.epochs'?"),
        ("learning_rate=1e-4", "Did you mean one of: sft.optimizer.lr, ppo.optimizer.lr, "),
        ("sft.per_device_train_batch_size=8", "Did you mean 'sft.batch_size'?"),
        ("per_device_eval_batch_size=8", "Did you mean 'evaluation.batch_size'?"),
        ("ppo.gradient_accumulation_steps=4", "Did you mean 'ppo.micro_batch_size' (batch_size rows make an update"),
        ("sft.max_steps=100", "Did you mean 'sft.epochs' (the steps follow from the epochs"),
        ("sft.warmup_ratio=0.1", "Did you mean 'sft.optimizer.warmup_share'?"),
        ("sft.lr_scheduler_type=cosine", "Did you mean 'sft.optimizer.schedule'?"),
        ("sft.weight_decay=0.1", "Did you mean 'sft.optimizer.weight_decay'?"),
        ("sft.seed=1", "Did you mean 'seed'?"),
        ("training.seed=1", "Did you mean 'seed'?"),
        ("bf16=true", "Did you mean 'runtime.dtype' (write runtime.dtype=bfloat16)?"),
        ("lora_r=8", "Did you mean 'lora.r'?"),
        ("lora.lora_alpha=8", "Did you mean 'lora.alpha'?"),
        ("sft.target_modules=[q_proj]", "Did you mean 'lora.targets'?"),
        ("grpo.num_generations=8", "Did you mean 'grpo.samples'?"),
        ("grpo.beta=0.04", "Did you mean 'grpo.kl'?"),
        ("ppo.init_kl_coef=0.1", "Did you mean 'ppo.kl_init'?"),
        ("output_dir=out", "That is an option here: --out DIR."),
        ("sft.Learning-Rate=1", "Did you mean 'sft.optimizer.lr'?"),
    ],
)
def test_a_name_of_hugging_face_finds_ours(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert message in str(caught.value)


def test_every_setting_that_a_foreign_name_leads_to_exists():
    known = list(keys_of())
    for foreign, ours in OURS.items():
        assert ours in known or any(key.partition(".")[2] == ours for key in known), foreign
        assert foreign not in known or ours == foreign
    assert set(REMARKS) <= set(OURS)


def test_a_number_is_fine_where_a_name_is_meant():
    assert load_config(overrides=["model=123"]).model == "123"


def test_a_wrong_key_in_a_file_names_the_file(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("ppo: {optimzer: {lr: 1}}\n")
    with pytest.raises(
        ConfigError, match=r"own\.yaml: 'ppo\.optimzer\.lr' is no setting\. Did you mean 'ppo\.optimizer\.lr'"
    ):
        load_config(file=file)


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\xfa", b"- a\n- b\n", b"just text"])
def test_a_file_that_is_no_mapping_is_refused_by_name(content, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        load_config(file=file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_config(file=tmp_path / "none.yaml")


def test_every_problem_is_listed():
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=["ppo.clip=-1", "seed=-1"])
    assert "ppo.clip" in str(caught.value)
    assert "seed" in str(caught.value)


@pytest.mark.parametrize("analysis", ["false", "true", "before"])
def test_a_configuration_survives_its_json_form(analysis):
    overrides = ["lora.targets=[q_proj, v_proj]", "data.train_rows=7", f"prompt.analysis={analysis}"]
    config = load_config(preset="paper", overrides=overrides)
    assert parse_config(config.model_dump(mode="json")) == config


def test_defaults_are_not_shared_between_configurations():
    load_config(overrides=["ppo.reward.right=5", "lora.r=4"])
    assert load_config() == Config()


def test_every_key_has_a_value():
    config = Config()
    keys = keys_of()
    assert {"seed", "ppo.optimizer.lr", "ppo.reward.right", "prompt.style"} <= set(keys)
    for key in keys:
        value_of(config, key)


def test_every_preset_names_only_settings_there_are():
    for file in (Path(__file__).parents[2] / "src/adjudge/config/presets").glob("*.yaml"):
        assert load_config(preset=file.stem).preset == file.stem


def test_a_renamed_setting_is_an_error_that_names_the_new_one(tmp_path):
    (tmp_path / "old.yaml").write_text("ppo:\n  init: runs/sft\n")
    for options in ({"overrides": ["ppo.init=runs/sft"]}, {"file": tmp_path / "old.yaml"}):
        with pytest.raises(ConfigError, match=r"'ppo\.init' is now 'init'"):
            load_config(**options)


def test_settings_of_an_older_run_folder_come_under_todays_names():
    older = {"method": "multi-ppo", "task": "a,b", "ppo": {"init": "runs/sft", "clip": 0.1}}
    upgraded = upgrade(older)
    assert upgraded == {
        "method": "ppo",
        "task": "a,b",
        "init": "runs/sft",
        "ppo": {"clip": 0.1, "warm_start_limit": 0.0, "sft_weight": 0.0},
    }
    assert older["ppo"]["init"] == "runs/sft"
    assert parse_config(upgraded).init == "runs/sft"
    assert upgrade({"ppo": {"init": None}})["init"] is None


def test_older_run_folders_keep_what_they_did_before_a_setting_was_there():
    assert parse_config(upgrade({"prompt": {"style": "chat"}})).prompt.prior == "none"
    assert parse_config(upgrade({"prompt": {"prior": "training-rows"}})).prompt.prior == "training-rows"
    assert parse_config(upgrade({"ppo": {"sft_weight": 0.5}})).ppo.sft_rows == "all"
    assert parse_config(upgrade({"ppo": {"sft_weight": 0.0}})).ppo.sft_rows == "missed", "none is taught: as by default"
    assert upgrade({"method": "few-shot"}) == {"method": "few-shot"}
    groups = {name: group for name, group in Config().model_dump().items() if "warm_start_limit" in (group or ())}
    older = {name: {"warm_start": group["warm_start"]} for name, group in groups.items()}
    assert {group["warm_start_limit"] for group in map(upgrade(older).get, groups)} == {0}


def test_defaults_of_a_verb_lose_to_all_others(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("linear: {layer: 3}\n")
    own = {"linear.layer": "middle", "linear.states": "both", "seed": 7}
    config = load_config(file=file, overrides=["seed=2"], defaults=own)
    assert (config.linear.layer, config.linear.states, config.seed) == (3, "both", 2)
