"""Settings: validated, unknown keys refused, committed presets in `darec/presets/*.toml`.

`Settings` has one section a concern. Every field says in countable units what it means.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from darec.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"
AdapterKind = Literal["lora_attention", "lora_mlp", "parallel", "serial"]
ADAPTER_KINDS: tuple[AdapterKind, ...] = get_args(AdapterKind)
PARTS = (  # section and field of the settings, the value without the part, how the part is called
    ("masking", "enabled", False, "context masking"),
    ("collaborative", "enabled", False, "CF"),
    ("adapters", "enabled", False, "adapters"),
    ("adapters", "weights", "fixed", "dynamic adaption"),
)
ADAPTER_SIZES = range(4, 65)  # rank of a LoRA, width of a bottleneck


class Section(BaseModel):
    """A group of settings that refuses unknown keys and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SequenceSettings(Section):
    """How a history becomes tokens."""

    max_items: int = Field(20, ge=1)  # S: most recent items the backbone reads
    max_text_tokens: int = Field(14, ge=1)  # text tokens of one item inside a history
    max_encoding_tokens: int = Field(48, ge=1)  # text tokens of one item in its own encoding
    encoded_from: Literal["states", "words"] = "states"  # an item: the backbone's mean state, or which words it holds
    skip: bool = False  # texts of the items so far also score items directly, past the language model
    encodings: bool = True  # [ITEM] receives its item's encoding, so that a history speaks of more than its short texts


class ShortWaySettings(Section):
    """How the short way learns, where `sequence.skip` opens it."""

    epochs: int = Field(0, ge=0)  # by itself, before the joint training, in which it then rests; 0: it learns in that
    batch_size: int = Field(64, ge=1)  # users a step, by itself
    learning_rate: float = Field(2e-4, gt=0)  # of its maps; faster they learn the items by heart
    weight_decay: float = Field(0.1, ge=0)  # by itself


class BackboneSettings(Section):
    """Which language model, and how it is loaded."""

    tiny: bool = False  # where none is named: a small random Llama, its tokenizer learned from the item texts
    random_init: bool = False  # same architecture, weights drawn afresh: the twin that shows what pretraining is worth
    four_bit: bool = False  # train over NF4 weights (QLoRA); needs a CUDA GPU


class AdapterSettings(Section):
    """Which adapters each layer of the backbone carries, and how they are weighed against each other."""

    enabled: bool = True
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    places: tuple[Literal["attention", "mlp"], ...] = ("attention", "mlp")  # linear maps that carry LoRA in every layer
    # In place of rank, alpha and places: for each layer up to two "kind:size", say ["lora_attention:8", "parallel:16"].
    layers: tuple[tuple[str, ...], ...] | None = None
    weights: Literal["fixed", "static", "gated"] = "fixed"  # adaption weights: all 1, learned, or by history as well
    temperature: float = Field(1.0, gt=0)  # of their softmax
    balance_loss_weight: float = Field(0.0, ge=0)  # above 0 it keeps a layer's mean weights from collapsing on one

    @field_validator("layers")
    @classmethod
    def _layers_must_name_adapters(
        cls, layers: tuple[tuple[str, ...], ...] | None
    ) -> tuple[tuple[str, ...], ...] | None:
        for number, entries in enumerate(layers or (), start=1):
            try:
                kinds = [parse_adapter(entry)[0] for entry in entries]
            except ValueError as error:
                raise ValueError(f"layer {number}: {error}") from None
            if len(entries) > 2 or len(set(kinds)) < len(kinds):
                raise ValueError(f"layer {number}: a layer has at most two adapters, each of another kind")
        return layers


def parse_adapter(entry: str) -> tuple[AdapterKind, int]:
    """The kind and the size of an adapter written as in `adapters.layers`, for example `"parallel:16"`.

    Raises:
        ValueError: it is not written so.
    """
    name, _, size = entry.partition(":")
    kind = next((known for known in ADAPTER_KINDS if known == name), None)
    if kind is None or not size.isdecimal() or int(size) not in ADAPTER_SIZES:
        raise ValueError(
            f"an adapter is written kind:size, the kind one of {', '.join(ADAPTER_KINDS)}, "
            f"the size {ADAPTER_SIZES[0]} to {ADAPTER_SIZES[-1]}; got {entry!r}"
        )
    return kind, int(size)


class MaskingSettings(Section):
    """Context masking (intra-item relations)."""

    enabled: bool = True  # false: every sequence runs under the causal mask, and nothing is hidden
    context_share: float = Field(0.5, ge=0, le=1)  # sequences under the context mask, in training
    hiding_share: float = Field(0.5, ge=0, le=1)  # of those, sequences in which words are hidden
    hidden_tokens: float = Field(0.25, ge=0, le=1)  # of their text tokens, the share that is hidden
    loss_weight: float = Field(0.1, ge=0)


class TitleSettings(Section):
    """Next-token loss on item text, under the causal mask only."""

    loss_weight: float = Field(0.1, ge=0)
    token_share: float = Field(0.25, ge=0, le=1)  # text tokens the loss is estimated on: the vocabulary is its cost


class CollaborativeSettings(Section):
    """The SASRec CF model: its shape and its training before the joint one."""

    enabled: bool = True
    hidden_size: int = Field(64, ge=1)  # d
    num_layers: int = Field(2, ge=1)
    num_heads: int = Field(2, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    max_items: int = Field(200, ge=1)  # most recent items it reads
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.5, ge=0)  # before the joint training; 0 in it
    batch_size: int = Field(32, ge=1)  # users
    epochs: int = Field(100, ge=1)
    patience: int = Field(10, ge=1)  # epochs without a better validation NDCG@10 before it stops

    @model_validator(mode="after")
    def _heads_must_divide_the_width(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of num_heads {self.num_heads}")
        return self


class InjectionSettings(Section):
    """How collaborative knowledge enters the language model and its score."""

    sequence_dropout: float = Field(0.3, ge=0, le=1)  # sequences that train without the whole CF path
    item_dropout: float = Field(0.15, ge=0, le=1)  # items a step whose CF embedding and bias are dropped
    loss_weight: float = Field(0.5, ge=0)  # the CF model's own loss in joint training
    late_free_loss_weight: float = Field(0.3, ge=0)  # next-item loss on the score without the late CF term
    followers: int = Field(0, ge=0)  # of each item, those that most often come next: a term of their own in the score


class TrainingSettings(Section):
    """Optimization."""

    epochs: int = Field(20, ge=1)  # one random window a user each
    batch_size: int = Field(16, ge=1)  # windows a step
    accumulation_steps: int = Field(1, ge=1)
    learning_rate: float = Field(1e-3, gt=0)  # adapters, heads, soft tokens
    collaborative_learning_rate: float = Field(3e-6, gt=0)  # more wore the CF model's own ranking down
    weight_decay: float = Field(0.01, ge=0)
    warmup_share: float = Field(0.05, ge=0, le=1)  # of all steps
    gradient_clip: float = Field(1.0, gt=0)  # norm
    patience: int = Field(5, ge=1)  # validations without a better NDCG@10 before it stops
    keep: Literal["best", "last"] = "best"  # weights of the best validation, or of the last step
    users: int = Field(0, ge=0)  # a fixed random subset that is learned from and tuned on; 0 means all
    validation_users: int = Field(0, ge=0)  # a fixed random subset, after each epoch; 0 means all
    validate_every: int = Field(1, ge=1)  # epochs
    evaluation_batch_size: int = Field(32, ge=1)  # histories
    checkpoint_minutes: float = Field(10.0, gt=0)  # at most so much of the joint training is lost when interrupted
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 where the device has it
    sampled_softmax_above: int = Field(100_000, ge=1)  # items; larger catalogues train on sampled negatives
    negatives: int = Field(4096, ge=1)  # sampled negatives a step, shared by its boundaries


class Settings(Section):
    """Everything that shapes a DARec run except data, backbone and seed."""

    sequence: SequenceSettings = SequenceSettings()
    short_way: ShortWaySettings = ShortWaySettings()
    backbone: BackboneSettings = BackboneSettings()
    adapters: AdapterSettings = AdapterSettings()
    masking: MaskingSettings = MaskingSettings()
    title: TitleSettings = TitleSettings()
    collaborative: CollaborativeSettings = CollaborativeSettings()
    injection: InjectionSettings = InjectionSettings()
    training: TrainingSettings = TrainingSettings()


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_settings(preset: str | None = None, config: Path | None = None, overrides: tuple[str, ...] = ()) -> Settings:
    """Defaults, then a preset, then a TOML file, then `section.key=value` overrides; the later wins.

    Raises:
        ConfigError: an unknown preset or key, a value out of range, a file that is not TOML.
    """
    values: dict[str, Any] = {}
    if preset is not None:
        if preset not in preset_names():
            raise ConfigError(f"Unknown preset {preset!r}. Known: {', '.join(preset_names())}.")
        _merge(values, _read_toml(PRESETS / f"{preset}.toml"))
    if config is not None:
        _merge(values, _read_toml(config))
    for override in overrides:
        _merge(values, _parse_override(override))
    return parse_settings(values)


def parse_settings(values: dict[str, Any]) -> Settings:
    """Settings from nested plain values, as `model_dump` gave them or a TOML file holds them.

    Raises:
        ConfigError: an unknown key or a value out of range, named by its dotted path.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"There is no setting {place}. Known: {', '.join(_siblings(first['loc']))}.") from None
        raise ConfigError(f"Setting {place}: {first['msg']}; got {first['input']!r}.") from None


def missing_parts(settings: Mapping[str, Any]) -> list[str]:
    """The parts of the method that a run goes without; without adapters there is nothing to weigh.

    Args:
        settings: of its run.json.
    """
    missing = [part for section, field, without, part in PARTS if settings[section][field] == without]
    return [part for part in missing if settings["adapters"]["enabled"] or part != "dynamic adaption"]


def _siblings(place: tuple[int | str, ...]) -> list[str]:
    """The settings that exist beside a misspelt one."""
    section: Any = Settings()
    for name in place[:-1]:
        section = getattr(section, str(name))
    return [".".join((*map(str, place[:-1]), name)) for name in type(section).model_fields]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no settings file {path}. Check the path.") from None
    except OSError as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None


def _parse_override(override: str) -> dict[str, Any]:
    path, separator, text = override.partition("=")
    if not separator or "." not in path:
        raise ConfigError(f"A setting is given as section.key=value, for example training.epochs=5; got {override!r}.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    section, _, key = path.strip().partition(".")
    return {section: {key.strip(): value}}


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
