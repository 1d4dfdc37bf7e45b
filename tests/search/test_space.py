import numpy as np
import pytest
import torch
from invented_films import SMALL

from darec.config import Settings, parse_settings
from darec.data.interactions import Dataset
from darec.errors import BackboneError, ConfigError
from darec.model.backbone import save_backbone, tiny_backbone
from darec.model.recommender import DarecModel
from darec.search.space import KINDS, Space, read_space

SPACE = Space(width=64, map_widths=((512, 576),) * 3, gate_inputs=80)
DEEP = Space(width=64, map_widths=((512, 576),) * 25, gate_inputs=80)


def with_layers(layers: tuple[tuple[str, ...], ...], weights: str = "gated", settings: Settings = SMALL) -> Settings:
    values = settings.model_dump()
    return parse_settings({**values, "adapters": {"layers": layers, "weights": weights}})


def test_every_random_architecture_goes_to_variables_and_back():
    random = np.random.default_rng(0)
    for space in (SPACE, DEEP):
        for _ in range(50):
            architecture = space.draw(random)
            assert space.architecture(space.params(architecture)) == architecture


def test_settings_take_an_architecture_as_it_is():
    architecture = SPACE.architecture(
        {"kind_0": "mlp+serial", "size_0": 5, "kind_1": "none", "size_1": 64, "kind_2": "parallel", "size_2": 4}
    )
    assert architecture == (("lora_mlp:5", "serial:5"), (), ("parallel:4",))
    assert with_layers(architecture).adapters.layers == architecture


def test_random_sizes_span_the_range_and_are_uniform_in_logarithms():
    random = np.random.default_rng(0)
    sizes = [SPACE.params(SPACE.draw(random)) for _ in range(600)]
    used = [p[f"size_{b}"] for p in sizes for b in range(3) if p[f"kind_{b}"] != "none"]
    assert min(used) == 4
    assert max(used) == 64
    assert np.mean(np.array(used) < 16) == pytest.approx(np.log(15.5 / 3.5) / np.log(64.5 / 3.5), abs=0.03)


def test_deep_backbones_share_variables_in_blocks_of_neighbours():
    assert [len(block) for block in DEEP.blocks] == [3] * 8 + [1]
    params = DEEP.params(DEEP.uniform(8))
    assert len(params) == 18
    assert set(params.values()) == {"attention+mlp", 8}


@pytest.mark.parametrize("weights", ["gated", "static", "fixed"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_parameters_by_arithmetic_are_those_of_a_built_model(family, weights, film_dataset: Dataset, tmp_path):
    backbone, tokenizer = tiny_backbone(film_dataset.catalog.full_texts, family)
    save_backbone(backbone, tokenizer, tmp_path)
    architecture = (("lora_mlp:5", "serial:5"), ("lora_attention:7", "parallel:7"))
    popularity = np.ones(len(film_dataset.catalog))

    def trainable(layers: tuple[tuple[str, ...], ...]) -> int:
        model, tokenizer = tiny_backbone(film_dataset.catalog.full_texts, family)
        built = DarecModel(model, tokenizer, film_dataset.catalog, popularity, with_layers(layers, weights))
        return sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad)

    space = read_space(str(tmp_path), film_dataset.catalog, with_layers(architecture, weights))
    assert space.parameters(architecture) == trainable(architecture) - trainable(((), ()))
    assert space.parameters(architecture) > 5000
    assert space.parameters(((), ())) == 0


def test_matching_uniform_lora_has_the_nearest_number_of_parameters():
    wanted = SPACE.parameters(SPACE.uniform(11)) + 100
    assert SPACE.matching_uniform(wanted) == SPACE.uniform(11)


def test_sizes_say_what_each_adapter_of_the_bank_gives():
    assert [adapter.kind for adapter in SPACE.bank()[:4]] == ["lora_attention", "lora_mlp", "parallel", "serial"]
    assert {adapter.size for adapter in SPACE.bank()} == {64}
    sizes = SPACE.sizes((("lora_mlp:5", "serial:5"), (), ("parallel:4",)))
    assert torch.equal(sizes, torch.tensor([[0, 5, 0, 5], [0, 0, 0, 0], [0, 0, 4, 0]]))


def test_a_bank_of_fewer_kinds_has_only_theirs():
    space = Space(64, ((512, 576),), 0, kinds=("none", "attention+mlp"))
    assert space.adapter_kinds == ("lora_attention", "lora_mlp")
    assert space.sizes((("lora_mlp:9", "lora_attention:9"),)).tolist() == [[9, 9]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ("attention+mlp", "prefix")}, "for layer 1 and all others 'prefix' was given"),
        ({"kinds": ("none", "serial")}, r"must hold attention\+mlp; got none, serial"),
        ({"max_size": 65}, "width 64; layer 1 would be searched up to 65"),
        ({"width": 128, "max_size": 65}, "between 4 and 64; layer 1 and all others would be searched up to 65"),
        ({"width": 32}, "width 32; layer 1 would be searched up to 64"),
        ({"map_widths": ((512, 576), (512, 0))}, "Layer 2 of the backbone has no linear map in its mlp"),
    ],
)
def test_a_space_that_cannot_be_built_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Space(**{"width": 64, "map_widths": ((512, 576),), "gate_inputs": 80, **changes})


@pytest.mark.parametrize(
    ("space", "layers", "message"),
    [
        (SPACE, ((), ()), "has 3 layers; got 2"),
        (SPACE, ((), ("lora_attention:8", "lora_mlp:8", "serial:8"), ()), "layer 2 has"),
        (SPACE, ((), (), ("lora_attention:8", "lora_mlp:4")), "layer 3 has"),
        (DEEP, (("serial:8",), ("serial:9",), *((),) * 23), "the same in layers 1 to 3; layer 2 has"),
    ],
)
def test_an_architecture_outside_the_space_is_refused_by_layer(space, layers, message):
    with pytest.raises(ConfigError, match=message):
        space.params(layers)


def test_a_backbone_that_is_not_there_is_named(film_dataset: Dataset, tmp_path):
    with pytest.raises(BackboneError, match="nowhere"):
        read_space(str(tmp_path / "nowhere"), film_dataset.catalog, SMALL)
    with pytest.raises(ConfigError, match="needs a backbone"):
        read_space(None, film_dataset.catalog, SMALL)


def test_kinds_have_at_most_two_adapters_each_of_another_kind():
    assert all(len(kinds) == len(set(kinds)) <= 2 for kinds in KINDS.values())
