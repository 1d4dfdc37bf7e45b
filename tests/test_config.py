import pytest

from darec.config import PRESETS, Settings, load_settings, missing_parts, parse_settings, preset_names
from darec.errors import ConfigError


def test_nothing_given_yields_the_defaults():
    assert load_settings() == Settings()


def test_later_sources_win_and_leave_the_rest_alone(tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text("[training]\nepochs = 7\nbatch_size = 3\n[adapters]\nrank = 2\n", encoding="utf-8")
    settings = load_settings(config=config, overrides=("training.epochs=9", "training.epochs=11"))
    assert settings.training.epochs == 11
    assert settings.training.batch_size == 3
    assert settings.adapters.rank == 2
    assert settings.training.patience == Settings().training.patience


@pytest.mark.parametrize("name", preset_names())
def test_every_committed_preset_is_valid_and_changes_something(name):
    assert load_settings(preset=name) != Settings()


def test_presets_are_the_toml_files_of_the_package():
    assert preset_names() == sorted(path.name.removesuffix(".toml") for path in PRESETS.iterdir())


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ('adapters.places=["mlp"]', ("mlp",)),
        ('adapters.places = ["mlp", "attention"]', ("mlp", "attention")),
    ],
)
def test_override_may_be_any_toml_value(override, expected):
    assert load_settings(overrides=(override,)).adapters.places == expected


def test_override_without_quotes_is_read_as_a_word():
    assert load_settings(overrides=("training.precision=bf16",)).training.precision == "bf16"


def test_settings_survive_a_round_trip_through_plain_values():
    settings = load_settings(overrides=("adapters.rank=3", 'adapters.places=["attention"]'))
    assert parse_settings(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=3", r"no setting training\.epoch\. Known: training\.epochs, training\.batch_size"),
        ("trainin.epochs=3", r"no setting trainin\. Known: sequence, short_way"),
        ("training.epochs=0", r"training\.epochs: .*greater than or equal to 1; got 0"),
        ("training.epochs=many", r"training\.epochs: .*integer.*'many'"),
        ("training.learning_rate=nan", r"training\.learning_rate: .*got nan"),
        ("training.learning_rate=inf", r"training\.learning_rate: .*finite.*got inf"),
        ('adapters.places=["heads"]', r"adapters\.places\.0: .*'attention' or 'mlp'; got 'heads'"),
        ("collaborative.num_heads=3", r"collaborative: .*hidden_size 64 must be a multiple of num_heads 3"),
        ("training=3", r"section\.key=value, for example training\.epochs=5; got 'training=3'"),
        ("training.epochs", r"section\.key=value, for example training\.epochs=5; got 'training\.epochs'"),
    ],
)
def test_bad_override_names_the_setting_the_rule_and_the_value(override, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(overrides=(override,))


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"Unknown preset 'no/such'\. Known: "):
        load_settings(preset="no/such")


def test_missing_settings_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no settings file .*nowhere\.toml"):
        load_settings(config=tmp_path / "nowhere.toml")


def test_folder_in_place_of_a_settings_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(config=tmp_path)


@pytest.mark.parametrize("content", [b"training = = 3", b"[training]\nepochs = 3 # \xff"])
def test_file_that_is_not_toml_is_refused(tmp_path, content):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        load_settings(config=tmp_path / "bad.toml")


def test_section_given_as_a_number_is_refused(tmp_path):
    (tmp_path / "flat.toml").write_text("training = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"Setting training: .*got 3"):
        load_settings(config=tmp_path / "flat.toml")


def test_settings_never_change():
    with pytest.raises(ValueError, match="frozen"):
        Settings().training.epochs = 3


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"adapters": {"weights": "gated"}}, []),
        ({}, ["dynamic adaption"]),
        (
            {"masking": {"enabled": False}, "collaborative": {"enabled": False}, "adapters": {"weights": "static"}},
            ["context masking", "CF"],
        ),
        ({"adapters": {"enabled": False}}, ["adapters"]),
    ],
)
def test_parts_that_a_run_goes_without_are_named(changes: dict, missing: list[str]):
    assert missing_parts(Settings(**changes).model_dump(mode="json")) == missing
