"""The adapter bank, on every family of backbones, with every weight random unless a test says fresh."""

import copy
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from darec.config import AdapterSettings, CollaborativeSettings, SequenceSettings, Settings
from darec.data.sequences import Kind
from darec.data.windows import Windows
from darec.errors import ConfigError
from darec.explain.recording import attention_recorded
from darec.model.adapters import LayerAdapter, attach_adapters, plan_adapters
from darec.model.backbone import run_backbone, tiny_backbone, transformer_layers
from darec.model.bank import AdapterBank, Adaption, balance_loss
from darec.model.masking import context_mask
from darec.model.quantization import load_four_bit, save_four_bit
from darec.model.recommender import DarecModel

FAMILIES = ["llama", "qwen3", "gpt2", "bert"]
HISTORIES = [[0, 5, 3, 7, 9, 2, 6], [12, 13], [15], [8, 19, 14, 10, 18]]  # windows of 4, the CF model reads all
LENGTHS = [4, 2, 1, 4]
LAYERS = (("lora_attention:8", "parallel:16"), ("serial:8", "lora_mlp:4"))
TEXTS = ["The Lighthouse Keeper (1951), Drama", "Seven Quiet Rivers (1975), Drama"]
EACH = torch.tensor([[True, False], [False, False]]), torch.tensor([[False, False], [False, True]])


def settings(layers=LAYERS, weights: str = "gated", collaborative: bool = True, **others: object) -> Settings:
    return Settings(
        sequence=SequenceSettings(max_items=4, max_text_tokens=8, max_encoding_tokens=24),
        collaborative=CollaborativeSettings(enabled=collaborative, hidden_size=16, max_items=8),
        adapters=AdapterSettings(layers=layers, weights=weights, **others),
    )


def unadapted() -> Settings:
    return settings().model_copy(update={"adapters": AdapterSettings(enabled=False)})


def copy_weights(source: nn.Module, target: nn.Module, but: tuple[str, ...] = ()) -> None:
    """All parameters that both have, but for those whose name contains one of `but`."""
    own = dict(target.named_parameters())
    with torch.no_grad():
        for name, parameter in source.named_parameters():
            if name in own and not any(part in name for part in but):
                own[name].copy_(parameter)
    target.item_encodings.copy_(source.item_encodings)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, make_model: Callable[..., DarecModel]) -> DarecModel:
    """Gated, two kinds a layer, every weight random; no test of this module changes it for good."""
    return make_model(request.param, settings())


@pytest.fixture
def llama(make_model: Callable[..., DarecModel]) -> DarecModel:
    return make_model("llama", settings())


@contextmanager
def layer_seen(model: DarecModel, number: int) -> Iterator[list[tuple]]:
    """Collects (args, kwargs, output) of a layer."""
    seen: list[tuple] = []
    layer = transformer_layers(model.backbone, 2)[1][number]
    hook = layer.register_forward_hook(lambda _, a, k, output: seen.append((a, k, output)), with_kwargs=True)
    yield seen
    hook.remove()


class TestFreshBank:
    @pytest.mark.parametrize("weights", ["fixed", "static", "gated"])
    @pytest.mark.parametrize("kind", ["lora_attention", "lora_mlp", "parallel", "serial"])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_leaves_the_backbones_output_unchanged(
        self, make_model: Callable[..., DarecModel], family: str, kind: str, weights: str
    ):
        bare = make_model(family, unadapted(), shaken=False)
        banked = make_model(family, settings(((f"{kind}:8",), (f"{kind}:4",)), weights), shaken=False)
        copy_weights(bare, banked)
        with torch.no_grad():
            expected, found = bare.read(HISTORIES).hidden_states, banked.read(HISTORIES).hidden_states
            assert torch.equal(found, expected)
            trained = [p for name, p in banked.named_parameters() if ".lora_B." in name or ".up." in name]
            for parameter in trained:
                parameter += 0.1 * torch.randn_like(parameter)
            assert ((banked.read(HISTORIES).hidden_states - expected).abs().amax(dim=-1) > 1e-3).all()

    def test_leaves_everything_else_at_the_same_start(self, make_model: Callable[..., DarecModel]):
        models = [
            make_model("llama", each, shaken=False)
            for each in (settings(), settings((("serial:16",), ())), settings(weights="fixed"), unadapted())
        ]
        starts = [
            {name: p for name, p in model.named_parameters() if "bank." not in name and ".lora_" not in name}
            for model in models
        ]
        names = {name.replace(".base_layer", "") for name in starts[-1]}
        assert "soft_tokens" in names
        assert any(name.startswith("collaborative.") for name in names)
        for start in starts[:-1]:
            assert {name.replace(".base_layer", "") for name in start} == names
            assert all(torch.equal(p, starts[-1][name.replace(".base_layer", "")]) for name, p in start.items())

    @pytest.mark.parametrize("weights", ["static", "gated"])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_weighs_its_adapters_as_plain_ones(self, make_model: Callable[..., DarecModel], family: str, weights: str):
        layers = (LAYERS[0], ("serial:8",))  # three options and two
        plain, weighed = (make_model(family, settings(layers, kind)) for kind in ("fixed", weights))
        copy_weights(plain, weighed)
        with torch.no_grad():
            for name, parameter in weighed.named_parameters():
                if "static_logits" in name or name.endswith("outer.weight"):
                    parameter.zero_()
            expected, found = plain.read(HISTORIES), weighed.read(HISTORIES)
            torch.testing.assert_close(found.hidden_states, expected.hidden_states, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.adaption.weights, expected.adaption.weights, equal_nan=True)
        assert expected.adaption.weights[0, 0, 0].tolist() == [pytest.approx(1 / 3)] * 2
        assert expected.adaption.weights[0, 0, 1, 0] == 1 / 2

    def test_is_made_of_the_kinds_and_sizes_that_the_settings_name(self, make_model: Callable[..., DarecModel]):
        model = make_model("llama", settings(((), ("lora_mlp:4", "serial:16")), "static"), shaken=False)
        assert model.plan == [LayerAdapter(1, "lora_mlp", 4, 8.0), LayerAdapter(1, "serial", 16)]
        loras = {name: module for name, module in model.backbone.named_modules() if isinstance(module, LoraLayer)}
        assert {name.partition("layers.")[2] for name in loras} == {
            "1.mlp.gate_proj", "1.mlp.up_proj", "1.mlp.down_proj"
        }  # fmt: skip
        assert {(module.r["darec"], module.scaling["darec"]) for module in loras.values()} == {(4, 2.0)}
        assert {name: p.shape[0] for name, p in model.bank.named_parameters()} == {
            "static_logits.1": 3,
            "bottlenecks.1_serial.down.weight": 16,
            "bottlenecks.1_serial.down.bias": 16,
            "bottlenecks.1_serial.up.weight": 64,
            "bottlenecks.1_serial.up.bias": 64,
        }


class TestWeights:
    @torch.no_grad()
    def test_of_all_options_sum_to_one_and_are_nan_where_there_is_nothing(self, make_model: Callable[..., DarecModel]):
        model = make_model("llama", settings((("parallel:8",), LAYERS[1])))
        weights = model.read(HISTORIES).adaption.weights
        assert weights.shape == (4, 4, 2, 2)
        for history, length in enumerate(LENGTHS):
            assert weights[history, length:].isnan().all()
            assert weights[history, :length, 0, 1].isnan().all()
            present = weights[history, :length]
            assert (present[:, 0, 0] > 0).all()
            assert (present[:, 1] > 0).all()
            assert (present.nansum(dim=-1) < 1).all()
        seen = weights[~weights.isnan()]
        assert seen.std() > 1e-3

    @torch.no_grad()
    def test_are_the_softmax_of_static_part_and_gate_over_the_temperature(self, make_model: Callable[..., DarecModel]):
        """From loops over histories and items, and the layer's own input."""
        model = make_model("gpt2", settings(temperature=0.5))
        windows = model.windows.build(HISTORIES)
        kept = torch.tensor([True, True, False, True])
        for number in (0, 1):
            with layer_seen(model, number) as seen:
                weights = model.encode(windows, context_mask(windows.packed), kept).adaption.weights
            states = seen[0][0][0]
            gate, static = model.bank.gates[str(number)], model.bank.static_logits[str(number)]
            for history, length in enumerate(LENGTHS):
                cf = model.collaborative(torch.tensor([HISTORIES[history]]))[0]
                for item in range(length):
                    own = (windows.packed.sequence == history) & (windows.packed.span >= 0)
                    before = states[own & (windows.packed.span < item)]
                    mean = F.layer_norm(before.mean(dim=0), (64,)) if len(before) else torch.zeros(64)
                    place = len(HISTORIES[history]) - length + item - 1
                    known = F.layer_norm(cf[place], (16,)) if kept[history] and place >= 0 else torch.zeros(16)
                    hidden = F.gelu(gate.inner(torch.cat([known, mean])))
                    logits = static + gate.outer.weight @ hidden
                    expected = (logits / 0.5).softmax(dim=0)
                    torch.testing.assert_close(weights[history, item, number], expected[1:], rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def test_multiply_what_adapters_say_by_the_number_of_options(self, make_model: Callable[..., DarecModel]):
        """The serial adapter of the last layer, recomputed token by token."""
        model = make_model("llama", settings((("parallel:8",), LAYERS[1])))
        windows = model.windows.build(HISTORIES)
        encode = lambda: model.encode(windows, context_mask(windows.packed), torch.ones(4, dtype=torch.bool))  # noqa: E731
        with layer_seen(model, 1) as full:
            weights = encode().adaption.weights
        with layer_seen(model, 1) as without, model.bank.using(Adaption(switched_off=torch.tensor([[0, 0], [1, 0]]))):
            encode()
        change, base = full[0][2] - without[0][2], without[0][2]
        static = model.bank.static_logits["1"].softmax(dim=0)[1]
        bottleneck = model.bank.bottlenecks["1_serial"]
        for row, column in np.ndindex(*windows.packed.span.shape):
            sequence, span = (int(x[row, column]) for x in (windows.packed.sequence, windows.packed.span))
            weight = weights[sequence, span, 1, 0] if span >= 0 else static
            says = bottleneck.up(F.gelu(bottleneck.down(F.layer_norm(base[row, column], (64,)))))
            torch.testing.assert_close(change[row, column], 3 * weight * says, rtol=1e-3, atol=1e-5)

    @torch.no_grad()
    @pytest.mark.parametrize("part", ["words", "CF state"])
    def test_at_an_item_depend_on_what_came_before_it_and_on_nothing_else(self, model: DarecModel, part: str):
        windows = model.windows.build(HISTORIES)
        before = read(model, windows)
        for item in range(4):
            after = read(model, with_another_item(windows, part, item))
            assert torch.equal(after[:, : item + 1].isnan(), before[:, : item + 1].isnan())
            torch.testing.assert_close(after[:, : item + 1], before[:, : item + 1], rtol=0, atol=1e-6, equal_nan=True)
            if item < 3:  # windows of four items see it
                assert ((after - before)[[0, 3], item + 1 :].abs() > 1e-6).all()

    @torch.no_grad()
    @pytest.mark.parametrize("part", ["words", "CF state"])
    def test_of_one_history_never_depend_on_its_neighbours_in_the_row(self, model: DarecModel, part: str):
        windows = model.windows.build(HISTORIES)
        assert windows.packed.input_ids.shape[0] < len(HISTORIES)
        before = read(model, windows)
        for history in range(4):
            after = read(model, with_another_item(windows, part, 0, history))
            others = [other for other in range(4) if other != history]
            torch.testing.assert_close(after[others], before[others], rtol=0, atol=1e-6, equal_nan=True)
            if LENGTHS[history] > 1:
                assert ((after - before)[history, 1 : LENGTHS[history]].abs() > 1e-6).all()

    @torch.no_grad()
    def test_know_nothing_of_the_cf_path_where_it_is_dropped(self, model: DarecModel):
        encodings = model.item_encodings.clone()
        model.item_encodings[:] = encodings[0]  # so CF alone tells other items from these
        kept = torch.tensor([True, False, True, False])
        windows = model.windows.build(HISTORIES)
        other = replace(windows, collaborative_items=(windows.collaborative_items + 1) % 4)
        other = replace(other, items=(windows.items + 1) % 4)
        before, after = read(model, windows, kept), read(model, other, kept)
        model.item_encodings[:] = encodings
        torch.testing.assert_close(after[~kept], before[~kept], rtol=0, atol=0, equal_nan=True)
        assert ((after - before)[0].abs() > 1e-6).all()

    @torch.no_grad()
    def test_are_those_of_a_model_without_cf_where_there_is_none(self, make_model: Callable[..., DarecModel]):
        model = make_model("llama", settings(collaborative=False))
        assert model.bank.gates["0"].inner.weight.shape == (32, 64)
        weights = model.read(HISTORIES).adaption.weights
        assert weights[0].std(dim=0).min() > 1e-5

    @torch.no_grad()
    def test_that_are_static_are_the_same_everywhere(self, make_model: Callable[..., DarecModel]):
        model = make_model("llama", settings(weights="static", temperature=2.0))
        weights = model.read(HISTORIES).adaption.weights
        for layer in (0, 1):
            expected = (model.bank.static_logits[str(layer)] / 2).softmax(dim=0)[1:]
            for history, length in enumerate(LENGTHS):
                torch.testing.assert_close(weights[history, :length, layer], expected.expand(length, 2))

    def test_reach_every_adapter_gate_and_logit_with_a_gradient(self, model: DarecModel):
        encoded = model.read(HISTORIES)
        (encoded.hidden_states * torch.randn_like(encoded.hidden_states)).sum().backward()
        trained = {name: p for name, p in model.named_parameters() if "lora_" in name or name.startswith("bank.")}
        without = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
        model.zero_grad(set_to_none=True)
        assert len(trained) > 20
        assert without == []


@torch.no_grad()
def read(model: DarecModel, windows: Windows, kept: Tensor | None = None) -> Tensor:
    kept = torch.ones(len(windows.items), dtype=torch.bool) if kept is None else kept
    return model.encode(windows, context_mask(windows.packed), kept).adaption.weights


def with_another_item(windows: Windows, part: str, span: int, history: int | None = None) -> Windows:
    """The batch with other words, or another CF identity, at this span of one history or of all."""
    if part == "words":
        packed = windows.packed
        at = (packed.kind == Kind.TEXT) & (packed.span == span)
        at &= torch.tensor(True) if history is None else packed.sequence == history
        return replace(windows, packed=replace(packed, input_ids=torch.where(at, 300, packed.input_ids)))
    collaborative_items = windows.collaborative_items.clone()
    for row in range(len(collaborative_items)) if history is None else [history]:
        column = collaborative_items.shape[1] - int(windows.lengths[row]) + span
        if column < collaborative_items.shape[1]:
            collaborative_items[row, column] = 16
    return replace(windows, collaborative_items=collaborative_items)


class TestItemEncodings:
    def test_depend_on_no_adapter_weight_or_gate_and_on_nothing_of_cf(self, llama: DarecModel):
        before = llama.item_encodings.clone()
        changed = [name for name, parameter in llama.named_parameters() if parameter.requires_grad]
        assert {name.partition(".")[0] for name in changed} >= {"backbone", "bank", "collaborative", "injection"}
        with torch.no_grad():
            for name in changed:
                llama.get_parameter(name).add_(torch.randn_like(llama.get_parameter(name)))
        llama.refresh_item_encodings()
        assert torch.equal(llama.item_encodings, before)

    @torch.no_grad()
    def test_do_not_depend_on_what_is_asked_of_the_bank(self, llama: DarecModel):
        texts = [[30, 11, 52, 47]]
        whole = llama.encode_texts(texts)
        with llama.bank.using(Adaption(switched_off=EACH[0])):
            assert torch.equal(llama.encode_texts(texts), whole)


class TestSwitchedOff:
    @torch.no_grad()
    def test_all_leave_the_bare_backbone(self, model: DarecModel):
        windows = model.windows.build(HISTORIES)
        embeddings, mask = model.embed(windows.packed), context_mask(windows.packed)
        with model.bank.using(Adaption(switched_off=torch.ones(2, 2, dtype=torch.bool))):
            off = run_backbone(model.backbone, embeddings, mask, windows.packed.position_ids)
        stripped = without_adapters(model)
        assert torch.equal(off, run_backbone(stripped, embeddings, mask, windows.packed.position_ids))
        on = run_backbone(model.backbone, embeddings, mask, windows.packed.position_ids)
        assert not torch.allclose(on, off, atol=1e-2)

    @torch.no_grad()
    @pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
    def test_alone_is_as_if_its_last_map_were_zero_and_leaves_earlier_weights_alone(
        self, llama: DarecModel, place: tuple[int, int]
    ):
        off = torch.zeros(2, 2, dtype=torch.bool)
        off[place] = True
        whole = llama.read(HISTORIES)
        with llama.bank.using(Adaption(switched_off=off)):
            found = llama.read(HISTORIES)
        silence(llama, *place)
        expected = llama.read(HISTORIES)
        torch.testing.assert_close(found.hidden_states, expected.hidden_states, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.adaption.weights, expected.adaption.weights, equal_nan=True)
        torch.testing.assert_close(
            found.adaption.weights[:, :, 0], whole.adaption.weights[:, :, 0], equal_nan=True, rtol=0, atol=0
        )
        assert not torch.allclose(found.hidden_states, whole.hidden_states, atol=1e-3)

    def test_differently_by_two_threads_never_disturb_each_other(self, llama: DarecModel):
        def score(mask: Tensor) -> np.ndarray:
            with llama.bank.using(Adaption(switched_off=mask)):
                return llama.score(HISTORIES)

        expected = [score(mask) for mask in EACH]
        assert not np.allclose(*expected, atol=1e-2)
        barrier = threading.Barrier(2)
        agreeing = [0, 0]

        def work(number: int) -> None:
            barrier.wait()
            for _ in range(50):
                agreeing[number] += np.array_equal(score(EACH[number]), expected[number])

        threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert agreeing == [50, 50]


def without_adapters(model: DarecModel) -> PreTrainedModel:
    """The same backbone, its weights copied, that no adapter was ever attached to."""
    bare = AutoModelForCausalLM.from_config(model.backbone.config, dtype=torch.float32).eval()
    state = {
        name.replace(".base_layer", ""): t for name, t in model.backbone.state_dict().items() if ".lora_" not in name
    }
    bare.load_state_dict(state)
    return bare


def silence(model: DarecModel, layer: int, index: int) -> None:
    """Zero the last map of one adapter."""
    kind = model.bank.layers[layer][index].kind
    places = {"lora_attention": "self_attn", "lora_mlp": "mlp"}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            lora = kind in places and f"layers.{layer}.{places[kind]}" in name and ".lora_B." in name
            if lora or name.startswith(f"bank.bottlenecks.{layer}_{kind}.up"):
                parameter.zero_()


class TestContributions:
    @torch.no_grad()
    def test_are_the_relative_change_of_the_layers_own_output(self, model: DarecModel):
        """Each layer is run by hand on the input that it had."""
        windows = model.windows.build(HISTORIES)
        kept = torch.ones(4, dtype=torch.bool)
        with model.bank.using(Adaption(contributions=True)):
            found = model.encode(windows, context_mask(windows.packed), kept).adaption.contributions
        assert found.shape == (4, 4, 2, 2)
        z_before = torch.zeros(4, 4, 16)
        for history, length in enumerate(LENGTHS):
            cf = model.collaborative(torch.tensor([HISTORIES[history]]))[0]
            for item in range(length):
                place = len(HISTORIES[history]) - length + item - 1
                z_before[history, item] = cf[place] if place >= 0 else 0
        for number, index in np.ndindex(2, 2):
            with layer_seen(model, number) as seen:
                model.encode(windows, context_mask(windows.packed), kept)
            args, kwargs, full = seen[0]
            off = torch.zeros(2, 2, dtype=torch.bool)
            off[number, index] = True
            layer = transformer_layers(model.backbone, 2)[1][number]
            with model.bank.using(Adaption(switched_off=off)), model.bank.reading(windows.packed, z_before, kept):
                without = layer(*args, **kwargs)
            relative = (full - without).norm(dim=-1) / full.norm(dim=-1)
            for history, item in np.ndindex(4, 4):
                tokens = (windows.packed.sequence == history) & (windows.packed.span == item)
                if item >= LENGTHS[history]:
                    assert found[history, item, number, index].isnan()
                else:
                    expected = relative[tokens].mean()
                    assert expected > 1e-3
                    assert found[history, item, number, index] == pytest.approx(expected.item(), rel=1e-4)

    @torch.no_grad()
    def test_of_a_switched_off_or_silent_adapter_are_zero_and_cost_the_others_nothing(self, llama: DarecModel):
        with llama.bank.using(Adaption(switched_off=EACH[0], contributions=True)):
            contributions = llama.read(HISTORIES).adaption.contributions
        present = contributions[~contributions[..., 0, 0].isnan()]
        assert (present[:, 0, 0] == 0).all()
        assert (present.flatten(1)[:, 1:] > 1e-3).all()

    @torch.no_grad()
    def test_leave_the_pass_itself_as_it_was_and_are_none_unless_asked_for(self, model: DarecModel):
        plain = model.read(HISTORIES)
        with model.bank.using(Adaption(contributions=True)):
            measured = model.read(HISTORIES)
        assert plain.adaption.contributions is None
        assert torch.equal(measured.hidden_states, plain.hidden_states)
        assert torch.equal(measured.states, plain.states)


class TestSizes:
    LARGE = (("lora_attention:16", "lora_mlp:8", "parallel:16", "serial:12"),) * 2
    SMALL = (("lora_mlp:4", "serial:8"), ("lora_attention:6",))
    ACTIVE = torch.tensor([[0, 4, 0, 8], [6, 0, 0, 0]])

    def make_large(self, make_model: Callable[..., DarecModel], family: str, weights: str) -> DarecModel:
        """A bank of all four kinds in each layer, as no run has it: by a plan of its own."""
        made = make_model(family, settings(weights=weights), shaken=False)
        sizes = {"lora_attention": 16, "lora_mlp": 8, "parallel": 16, "serial": 12}
        plan = [
            LayerAdapter(layer, kind, size, 2.0 * size if kind.startswith("lora") else 0.0)
            for layer in (0, 1)
            for kind, size in sizes.items()
        ]
        torch.manual_seed(3)
        backbone = without_adapters(made)
        large = DarecModel(backbone, made.tokenizer, self.catalog, 9 * made.known.numpy(), made.settings, plan).eval()
        with torch.no_grad():
            for parameter in large.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn_like(parameter)
        large.refresh_item_encodings()
        return large

    @pytest.fixture(autouse=True)
    def _catalog(self, film_dataset) -> None:
        self.catalog = film_dataset.catalog

    @torch.no_grad()
    @pytest.mark.parametrize("weights", ["fixed", "static", "gated"])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_cut_a_large_bank_to_exactly_the_small_one_with_its_first_weights(
        self, make_model: Callable[..., DarecModel], family: str, weights: str
    ):
        large, small = (
            self.make_large(make_model, family, weights),
            make_model(family, settings(self.SMALL, weights), shaken=False),
        )
        source = dict(large.named_parameters())
        rows = {"0": [0, 2, 4], "1": [0, 1]}  # none, then the options that are left
        for name, parameter in small.named_parameters():
            if not parameter.requires_grad:  # one backbone for both
                continue
            weight = source[name]
            if "static_logits" in name or name.endswith("outer.weight"):
                weight = weight[rows[name.split(".")[2]]]
            parameter.copy_(weight[tuple(slice(length) for length in parameter.shape)])
        small.refresh_item_encodings()
        expected = small.read(HISTORIES)
        with large.bank.using(Adaption(sizes=self.ACTIVE, contributions=True)):
            large.refresh_item_encodings()
            found = large.read(HISTORIES)
        torch.testing.assert_close(found.hidden_states, expected.hidden_states, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(large.item_encodings, small.item_encodings, rtol=1e-4, atol=1e-4)
        weights_found, weights_expected = found.adaption.weights, expected.adaption.weights
        torch.testing.assert_close(weights_found[:, :, 0, [1, 3]], weights_expected[:, :, 0], equal_nan=True)
        torch.testing.assert_close(weights_found[:, :, 1, 0], weights_expected[:, :, 1, 0], equal_nan=True)
        for values in (weights_found, found.adaption.contributions):
            assert torch.equal(~values[0, 0].isnan(), self.ACTIVE > 0)
        assert not torch.allclose(large.read(HISTORIES).hidden_states, found.hidden_states, atol=1e-2)

    def test_give_no_gradient_to_what_takes_no_part(self, make_model: Callable[..., DarecModel]):
        large = self.make_large(make_model, "llama", "fixed")
        with large.bank.using(Adaption(sizes=self.ACTIVE)):
            large.read(HISTORIES).hidden_states[..., :32].sum().backward()
        gradients = {name: p.grad for name, p in large.named_parameters()}
        down, up = (gradients[f"bank.bottlenecks.0_serial.{part}.weight"] for part in ("down", "up"))
        assert (down[:8].abs().amax(dim=1) > 0).all()
        assert not down[8:].any()
        assert not up[:, 8:].any()
        lora = next(g for name, g in gradients.items() if "layers.1.self_attn.q_proj.lora_A" in name)
        assert (lora[:6].abs().amax(dim=1) > 0).all()
        assert not lora[6:].any()
        assert gradients["bank.bottlenecks.1_serial.down.weight"] is None
        assert next(g for name, g in gradients.items() if "layers.0.self_attn.q_proj.lora_A" in name) is None


class TestState:
    def test_holds_adapters_logits_and_gates_and_makes_another_model_read_alike(self, model: DarecModel):
        state = model.trained_state()
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained <= state.keys()
        parts = {".".join(name.split(".")[:2]) for name in state if name.startswith("bank.")}
        assert parts == {"bank.bottlenecks", "bank.static_logits", "bank.gates"}
        other = copy.deepcopy(model)
        with torch.no_grad():
            for name, tensor in other.trained_state().items():
                tensor.copy_(torch.zeros_like(tensor) if name != "known" else tensor)
            assert not torch.allclose(other.read(HISTORIES).hidden_states, model.read(HISTORIES).hidden_states)
            other.load_trained_state(state)
            assert torch.equal(other.read(HISTORIES).hidden_states, model.read(HISTORIES).hidden_states)

    @torch.no_grad()
    @pytest.mark.parametrize("family", FAMILIES)
    def test_goes_over_a_four_bit_backbone_that_is_decoded(
        self, make_model: Callable[..., DarecModel], film_dataset, family: str, tmp_path: Path
    ):
        model = make_model(family, settings())
        save_four_bit(without_adapters(model), tmp_path)
        model.tokenizer.save_pretrained(tmp_path)
        models = [
            DarecModel.build(tmp_path, film_dataset.catalog, 9 * model.known.numpy(), model.settings, "cpu").eval()
            for _ in range(2)
        ]
        state = {name: tensor.clone() for name, tensor in model.trained_state().items()}
        for loaded in models:
            loaded.load_trained_state(state)
            again = loaded.trained_state()
            assert again.keys() == state.keys()
            assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
        first, second = (loaded.read(HISTORIES) for loaded in models)
        assert torch.equal(first.hidden_states, second.hidden_states)
        assert torch.equal(first.adaption.weights.nan_to_num(), second.adaption.weights.nan_to_num())
        whole = model.read(HISTORIES)
        error = (first.hidden_states - whole.hidden_states).norm() / whole.hidden_states.norm()
        assert 0 < error < 0.3
        with models[0].bank.using(Adaption(switched_off=EACH[0])):
            assert not torch.allclose(models[0].read(HISTORIES).hidden_states, first.hidden_states, atol=1e-2)

    def test_of_a_copy_is_its_own(self, llama: DarecModel):
        before = llama.score(HISTORIES)
        other = copy.deepcopy(llama)
        assert np.array_equal(other.score(HISTORIES), before)
        with torch.no_grad():
            for parameter in other.bank.parameters():
                parameter.zero_()
        assert np.array_equal(llama.score(HISTORIES), before)
        assert not np.allclose(other.score(HISTORIES), before, atol=1e-3)

    def test_is_shared_by_the_view_that_records_attention(self, model: DarecModel):
        windows = model.windows.build(HISTORIES)
        encode = (windows, context_mask(windows.packed), torch.ones(4, dtype=torch.bool))
        with torch.no_grad(), attention_recorded(model) as (view, _):
            seen, plain = view.encode(*encode), model.encode(*encode)
        torch.testing.assert_close(seen.hidden_states, plain.hidden_states, rtol=0, atol=1e-4)
        torch.testing.assert_close(seen.adaption.weights, plain.adaption.weights, equal_nan=True)

    def test_of_other_layers_is_refused(self, make_model: Callable[..., DarecModel]):
        one, other = (make_model("llama", settings(layers)) for layers in (LAYERS, (("parallel:8",), LAYERS[1])))
        with pytest.raises(ConfigError, match="Saved"):
            one.load_trained_state(other.trained_state())


@pytest.mark.parametrize("family", FAMILIES)
def test_bank_trains_over_four_bit_maps_as_over_decoded_ones(family: str, tmp_path: Path):
    """Before any pass without gradient: then bitsandbytes repacks its weights on a CPU, and gives none any more."""
    save_four_bit(tiny_backbone(TEXTS, family)[0], tmp_path)
    chosen = settings().adapters
    words = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 9, 9, dtype=torch.bool).tril()
    outputs, gradients = [], []
    four_bit = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert any(isinstance(module, Linear4bit) for module in four_bit.modules())
    for backbone in (four_bit, load_four_bit(tmp_path)):
        backbone.eval().requires_grad_(False)
        for parameter in backbone.parameters():  # transformers leaves what is not 4 bit in its stored type
            parameter.data = parameter.data.float() if parameter.is_floating_point() else parameter.data
        torch.manual_seed(0)
        bank = AdapterBank(backbone, plan_adapters(2, chosen), chosen).eval()
        trained = {n: p for n, p in (*bank.named_parameters(), *backbone.named_parameters()) if p.requires_grad}
        torch.manual_seed(1)
        with torch.no_grad():
            for name in sorted(trained):
                trained[name] += 0.1 * torch.randn(trained[name].shape)
        states = run_backbone(backbone, words, mask, torch.arange(9).expand(2, -1))
        (states * torch.randn(states.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
        outputs.append(states.detach())
        gradients.append({n: p.grad for n, p in trained.items() if "gates" not in n})  # no history, so no gate
    assert (outputs[0] - outputs[1]).norm() / outputs[1].norm() < 0.02
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[1].items():
        assert expected.any(), name
        assert (gradients[0][name] - expected).norm() / expected.norm() < 0.1, name


@torch.no_grad()
def test_training_drops_out_bottlenecks_and_evaluation_does_not(make_model: Callable[..., DarecModel]):
    model = make_model("llama", settings((("parallel:8",), ("serial:8",)), "fixed", dropout=0.5))
    evaluated = model.read(HISTORIES).hidden_states
    assert not torch.equal(model.train().read(HISTORIES).hidden_states, evaluated)
    assert torch.equal(model.eval().read(HISTORIES).hidden_states, evaluated)


def test_balance_loss_is_what_the_mean_weights_lack_of_the_largest_entropy():
    nan = torch.nan
    weights = torch.tensor(
        [[[[0.5, 0.1], [0.9, nan]], [[0.1, 0.5], [0.1, nan]]], [[[0.3, 0.3], [0.5, nan]], [[nan] * 2] * 2]]
    )
    first = math.log(3) + 0.4 * math.log(0.4) + 2 * 0.3 * math.log(0.3)
    assert balance_loss(weights).item() == pytest.approx((first + 0.0) / 2, abs=1e-6)
    collapsed = torch.full((2, 3, 1, 1), 1.0)
    assert balance_loss(collapsed).item() == pytest.approx(math.log(2), abs=1e-6)
    assert balance_loss(torch.full((2, 3, 2, 0), nan)).item() == 0.0


def test_balance_loss_draws_collapsed_weights_apart_again(llama: DarecModel):
    with torch.no_grad():
        llama.bank.static_logits["1"].copy_(torch.tensor([4.0, 0.0, 0.0]))
    loss = balance_loss(llama.read(HISTORIES).adaption.weights)
    loss.backward()
    gradient = llama.bank.static_logits["1"].grad
    assert torch.isfinite(gradient).all()
    assert gradient[0] > 0 > gradient[1:].max()  # descent takes from none and gives to the adapters


class TestBadInput:
    @pytest.mark.parametrize("name", ["switched_off", "sizes"])
    def test_mask_or_sizes_of_another_shape_are_refused(self, llama: DarecModel, name: str):
        with (
            pytest.raises(ConfigError, match=rf"{name} must have one entry .* \[2, 2\]; got \[3, 2\]"),
            llama.bank.using(Adaption(**{name: torch.zeros(3, 2, dtype=torch.long)})),
        ):
            pass

    @pytest.mark.parametrize("size", [-1, 17])
    def test_size_that_an_adapter_lacks_is_refused_with_its_layer(self, llama: DarecModel, size: int):
        with (
            pytest.raises(ConfigError, match=rf"layer 1's parallel lies between 0 and 16; got {size}"),
            llama.bank.using(Adaption(sizes=torch.tensor([[8, size], [8, 4]]))),
        ):
            pass

    @pytest.mark.parametrize("kind", ["lora_attention", "lora_mlp", "parallel", "serial"])
    def test_size_larger_than_the_backbone_is_wide_is_refused_with_its_layer(self, kind: str):
        backbone = tiny_backbone(TEXTS)[0]
        with pytest.raises(ConfigError, match=f"backbone's width 64; layer 2 asks for {kind} of 65"):
            attach_adapters(backbone, [LayerAdapter(1, kind, 65, 130.0)], dropout=0.0)
        assert not any(isinstance(module, LoraLayer) for module in backbone.modules())
