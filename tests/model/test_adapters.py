import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from darec.config import AdapterSettings, load_settings, parse_settings
from darec.errors import ConfigError
from darec.model.adapters import (
    ADAPTER,
    LayerAdapter,
    adapter_state,
    attach_adapters,
    load_adapter_state,
    plan_adapters,
)
from darec.model.backbone import linear_maps, tiny_backbone

FAMILIES = ["llama", "qwen3", "gpt2", "bert"]
TEXTS = ["The Lighthouse Keeper (1951), Drama", "Seven Quiet Rivers (1975), Drama"]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_backbone(TEXTS, request.param)[0]


def run(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(10, 22)[None]).logits


def shake(model: PreTrainedModel) -> None:
    with torch.no_grad():
        for tensor in adapter_state(model).values():
            tensor += 0.1


def attached(model: PreTrainedModel) -> dict[str, LoraLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def test_names_that_match_nothing_are_an_error(monkeypatch: pytest.MonkeyPatch):
    # As peft does with a name that it does not find: nothing, in silence.
    monkeypatch.setattr("darec.model.adapters.inject_adapter_in_model", lambda *arguments, **options: None)
    model = tiny_backbone(TEXTS, "llama")[0]
    with pytest.raises(ConfigError, match=r"asked for at \['model.layers.0.* but attached at \[\]"):
        attach_adapters(model, plan_adapters(1, AdapterSettings(places=("mlp",))), dropout=0.0)


def test_plan_names_every_layer_and_place():
    assert plan_adapters(2, AdapterSettings(rank=4, alpha=8.0)) == [
        LayerAdapter(layer, kind, 4, 8.0) for layer in (0, 1) for kind in ("lora_attention", "lora_mlp")
    ]
    assert plan_adapters(3, AdapterSettings(places=("mlp",)))[2] == LayerAdapter(2, "lora_mlp", 8, 16.0)
    assert plan_adapters(2, AdapterSettings(enabled=False)) == []


def test_plan_of_single_layers_names_each_and_scales_lora_by_two_whatever_its_size():
    settings = AdapterSettings(layers=(("lora_attention:4", "parallel:16"), (), ("lora_mlp:64",)), rank=3, alpha=7.0)
    assert plan_adapters(3, settings) == [
        LayerAdapter(0, "lora_attention", 4, 8.0),
        LayerAdapter(0, "parallel", 16),
        LayerAdapter(2, "lora_mlp", 64, 128.0),
    ]
    assert [str(adapter) for adapter in plan_adapters(3, settings)] == [
        "lora_attention rank 4 alpha 8",
        "parallel width 16",
        "lora_mlp rank 64 alpha 128",
    ]


@pytest.mark.parametrize("num_layers", [1, 3])
def test_plan_for_another_number_of_layers_is_refused(num_layers: int):
    settings = AdapterSettings(layers=(("serial:8",), ()))
    lacking = min(num_layers, 2) + 1
    with pytest.raises(ConfigError, match=f"backbone's {num_layers} layers; got 2, so layer {lacking} has"):
        plan_adapters(num_layers, settings)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ('[["lora_heads:8"]]', r"adapters\.layers: .*layer 1: .*one of lora_attention, lora_mlp.*got 'lora_heads:8'"),
        ('[[], ["serial"]]', r"layer 2: an adapter is written kind:size.*got 'serial'"),
        ('[[], ["serial:x"]]', r"layer 2: .*got 'serial:x'"),
        ('[["serial:3"]]', r"layer 1: .*the size 4 to 64; got 'serial:3'"),
        ('[["serial:65"]]', r"layer 1: .*the size 4 to 64; got 'serial:65'"),
        ('[[], [], ["serial:8", "serial:4"]]', "layer 3: a layer has at most two adapters, each of another kind"),
        ('[["serial:8", "parallel:4", "lora_mlp:4"]]', "layer 1: a layer has at most two adapters"),
        ('["serial:8"]', r"adapters\.layers\.0: .*valid tuple; got 'serial:8'"),
    ],
)
def test_layers_that_no_backbone_could_have_are_refused_with_the_layers_number(layers: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_settings(overrides=(f"adapters.layers={layers}",))


def test_layers_survive_a_round_trip_through_plain_values():
    settings = load_settings(overrides=('adapters.layers=[["lora_mlp:8","serial:4"],[]]', "adapters.weights=gated"))
    assert settings.adapters.layers == (("lora_mlp:8", "serial:4"), ())
    assert parse_settings(settings.model_dump(mode="json")) == settings


def test_fresh_adapters_leave_every_output_unchanged_and_trained_ones_do_not(model: PreTrainedModel):
    before = run(model)
    attach_adapters(model, plan_adapters(2, AdapterSettings()), dropout=0.0)
    model.eval()
    assert torch.equal(run(model), before)
    shake(model)
    assert not torch.allclose(run(model), before, atol=1e-3)


def test_each_layer_and_place_has_the_rank_and_scale_it_was_given(model: PreTrainedModel):
    plan = [
        LayerAdapter(0, "lora_attention", 3, 12.0),
        LayerAdapter(1, "lora_attention", 5, 5.0),
        LayerAdapter(1, "lora_mlp", 7, 21.0),
    ]
    expected = {
        name: (adapter.size, adapter.alpha / adapter.size)
        for adapter in plan
        for name in linear_maps(model, "mlp" if adapter.kind == "lora_mlp" else "attention")[adapter.layer]
    }
    attach_adapters(model, plan, dropout=0.0)
    modules = attached(model)
    assert {name: (module.r[ADAPTER], module.scaling[ADAPTER]) for name, module in modules.items()} == expected
    assert all(module.lora_A[ADAPTER].weight.shape[0] == expected[name][0] for name, module in modules.items())


def test_only_adapters_are_trained(model: PreTrainedModel):
    attach_adapters(model, plan_adapters(2, AdapterSettings()), dropout=0.0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert trained == adapter_state(model).keys()


def test_saved_adapters_give_the_same_outputs_in_another_copy():
    models = [tiny_backbone(TEXTS)[0] for _ in range(2)]
    for model in models:
        attach_adapters(model, plan_adapters(2, AdapterSettings()), dropout=0.0)
        model.eval()
    shake(models[0])
    assert not torch.equal(run(models[0]), run(models[1]))
    load_adapter_state(models[1], {name: tensor.clone() for name, tensor in adapter_state(models[0]).items()})
    assert torch.equal(run(models[0]), run(models[1]))


def test_adapters_of_another_plan_are_refused():
    model = tiny_backbone(TEXTS)[0]
    attach_adapters(model, plan_adapters(2, AdapterSettings(places=("mlp",))), dropout=0.0)
    state = adapter_state(model)
    with pytest.raises(ConfigError, match="Saved adapters do not fit the backbone"):
        load_adapter_state(model, dict(list(state.items())[1:]))


def test_adapters_of_another_rank_are_refused():
    small, large = (tiny_backbone(TEXTS)[0] for _ in range(2))
    attach_adapters(small, plan_adapters(2, AdapterSettings(rank=1)), dropout=0.0)
    attach_adapters(large, plan_adapters(2, AdapterSettings(rank=4)), dropout=0.0)
    with pytest.raises(ConfigError, match="Saved adapters do not fit the backbone"):
        load_adapter_state(large, adapter_state(small))


def test_rank_wider_than_the_backbone_is_refused():
    with pytest.raises(
        ConfigError, match="must not exceed the backbone's width 64; layer 1 asks for lora_attention of 65"
    ):
        attach_adapters(tiny_backbone(TEXTS)[0], plan_adapters(2, AdapterSettings(rank=65)), dropout=0.0)


def test_place_without_a_linear_map_is_refused():
    model = tiny_backbone(TEXTS)[0]
    for layer in model.base_model.layers:
        layer.mlp = torch.nn.Identity()
    with pytest.raises(ConfigError, match="Layer 1 of the backbone has no linear map in its mlp"):
        attach_adapters(model, plan_adapters(2, AdapterSettings()), dropout=0.0)
