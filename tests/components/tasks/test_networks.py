from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from components.errors import ConfigError
from components.finetune.methods.lora import attach, merge
from components.tasks.efficientnet import EfficientNetLite0
from components.tasks.networks import MeanPoolNetwork, Mix, NativeNetwork

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES, pad_token_id=0),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "electra-small": ElectraConfig(**SIZES, embedding_size=8),
    "mpnet": MPNetConfig(**SIZES, pad_token_id=0),
    "distilbert": DistilBertConfig(
        vocab_size=40, dim=16, n_layers=3, n_heads=2, hidden_dim=32, max_position_embeddings=24
    ),
    "modernbert": ModernBertConfig(
        **SIZES, pad_token_id=0, global_attn_every_n_layers=2, local_attention=8
    ),
    "deberta-v2": DebertaV2Config(
        **SIZES,
        relative_attention=True,
        position_buckets=4,
        position_biased_input=False,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        pooler_hidden_size=16,
    ),
}
READ_BY_ALL_LAYERS = {
    "mpnet": {"encoder.encoder.relative_attention_bias.weight"},
    "deberta-v2": {
        "encoder.encoder.rel_embeddings.weight",
        "encoder.encoder.LayerNorm.weight",
        "encoder.encoder.LayerNorm.bias",
    },
}


def inputs():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 40, (5, 12), generator=generator)
    mask = (torch.arange(12) < torch.tensor([12, 7, 3, 1, 9])[:, None]).long()
    return ids * mask, mask


def text_network(name, native):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[name])
    if native:
        config.num_labels = 3
        return NativeNetwork(AutoModelForSequenceClassification.from_config(config)).eval()
    return MeanPoolNetwork(AutoModel.from_config(config), 3, 0.1).eval()


def check_cuts(network, batch, top=None):
    """At every cut up to the top, what is below and what is above make the whole."""
    with torch.no_grad():
        whole = network(*batch)
        for cut in range(1, (top or network.depth) + 1):
            states = network.states(cut, *batch)
            above = network.above(cut).eval()(*network.collate(cut, states))
            torch.testing.assert_close(above, whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_text_network_can_be_cut_anywhere(name, native):
    network = text_network(name, native)
    check_cuts(network, inputs(), top=3 if native and name == "deberta-v2" else None)


def test_an_own_head_that_cannot_do_without_layers_says_so():
    network = text_network("deberta-v2", native=True)
    with pytest.raises(ConfigError, match="the head of a DebertaV2ForSequenceClassification"):
        network.above(network.depth)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_learns_above_a_cut_leaves_the_states_below_as_they_were(name, native):
    network = text_network(name, native)
    check_frozen(network, inputs())


def test_what_learns_in_an_image_network_leaves_the_states_below_as_they_were():
    torch.manual_seed(0)
    check_frozen(EfficientNetLite0(4, 0.1).eval(), (torch.randn(2, 3, 32, 32),))


def check_frozen(network, batch):
    """At every cut, weights of the stages above move outputs only."""
    with torch.no_grad():
        outputs = network(*batch)
        for cut in range(1, network.depth + 1):
            states = network.states(cut, *batch)
            moved = copy.deepcopy(network)
            for key, weight in moved.named_parameters():
                if moved.stage_of(key) >= cut:
                    weight.add_(torch.rand_like(weight))
            for before, after in zip(states, moved.states(cut, *batch), strict=True):
                assert torch.equal(before, after), cut
            assert not torch.allclose(moved(*batch), outputs), cut


def test_an_image_network_can_be_cut_anywhere():
    torch.manual_seed(0)
    network = EfficientNetLite0(4, 0.1).eval()
    check_cuts(network, (torch.randn(3, 3, 40, 33),))
    check_cuts(network.shrunk(9).eval(), (torch.randn(2, 3, 32, 32),))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_has_a_stage_and_stages_follow_the_layers(name):
    network = text_network(name, native=False)
    stages = {key: network.stage_of(key) for key, _ in network.named_parameters()}
    assert set(stages.values()) == {0, 1, 2, 3, 4}
    assert {key for key, stage in stages.items() if stage == 4} == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_above_a_cut_uses_just_the_weights_of_its_stages(name):
    network = text_network(name, native=False)
    for cut in (1, 2, 4):
        network.zero_grad(set_to_none=True)
        states = network.states(cut, *inputs())
        states = [state.detach() for state in states]
        network.above(cut)(*network.collate(cut, states)).sum().backward()
        used = {key for key, weight in network.named_parameters() if weight.grad is not None}
        below = {key for key in used if network.stage_of(key) < cut}
        assert below == (READ_BY_ALL_LAYERS.get(name, set()) if cut < network.depth else set())
        assert {network.stage_of(key) for key in used - below} == set(range(cut, 5))


def test_taking_a_network_apart_leaves_it_whole():
    network = text_network("bert", native=False)
    names = [key for key, _ in network.named_parameters()]
    with torch.no_grad():
        before = network(*inputs())
        network.states(2, *inputs())
        network.above(2)
        assert torch.equal(network(*inputs()), before)
    assert [key for key, _ in network.named_parameters()] == names


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shrunk_network_has_fewer_layers_and_leaves_the_large_one(name):
    network = text_network(name, native=False)
    small = network.shrunk(2).eval()
    assert (small.layers, network.layers) == (2, 3)
    assert small.config.num_hidden_layers == 2
    rebuilt = MeanPoolNetwork(AutoModel.from_config(small.config), 3, 0.1).eval()
    rebuilt.load_state_dict(small.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(*inputs()), small(*inputs()))
    check_cuts(small, inputs())


@pytest.mark.parametrize("name", CONFIGS)
def test_merged_adapters_answer_as_attached_ones(name):
    network = text_network(name, native=False)
    names = [key for key, _ in network.named_parameters()]
    attach(network, 2, rank=2, alpha=4, dropout=0.0)
    adapters = [(key, each) for key, each in network.named_parameters() if "lora_" in key]
    assert {network.stage_of(key) for key, _ in adapters} == {2, 3}
    with torch.no_grad():
        for _, weight in adapters:
            nn.init.normal_(weight, std=0.3)
        attached = network.eval()(*inputs())
        merge(network)
        torch.testing.assert_close(network(*inputs()), attached, atol=1e-4, rtol=1e-3)
    assert [key for key, _ in network.named_parameters()] == names


def test_adapters_of_an_image_network_sit_on_its_pointwise_convolutions():
    torch.manual_seed(0)
    network = EfficientNetLite0(4, 0.1).eval()
    image = torch.randn(2, 3, 32, 32)
    attach(network, 12, rank=2, alpha=4, dropout=0.0)
    adapters = [(key, each) for key, each in network.named_parameters() if "lora_" in key]
    assert {network.stage_of(key) for key, _ in adapters} == set(range(12, 18))
    with torch.no_grad():
        for _, weight in adapters:
            nn.init.normal_(weight, std=0.1)
        attached = network(image)
        merge(network)
        torch.testing.assert_close(network(image), attached, atol=1e-4, rtol=1e-3)


def test_activations_can_be_computed_again():
    for network, batch in (
        (text_network("bert", native=False), inputs()),
        (EfficientNetLite0(4, 0.0), (torch.randn(2, 3, 64, 64),)),
    ):
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        found = []
        for again in (False, True):
            trained = copy.deepcopy(network).train()
            if again:
                trained.checkpoint_activations()
            for _ in range(2):
                trained(*batch).square().sum().backward()
            gradients = {key: weight.grad for key, weight in trained.named_parameters()}
            assert any(gradient is not None for gradient in gradients.values())
            found.append((gradients, dict(trained.named_buffers())))
        torch.testing.assert_close(*found)


def test_an_encoder_that_cannot_compute_activations_again_says_so():
    network = text_network("mpnet", native=False)
    with pytest.raises(ConfigError, match=r"gradient_checkpointing does not work with a MPNet"):
        network.checkpoint_activations()


def test_images_are_learnt_alike_in_one_batch_and_in_parts():
    torch.manual_seed(0)
    network, rows = EfficientNetLite0(4, 0.0).train(), torch.randn(6, 3, 32, 32)
    before = {key: buffer.clone() for key, buffer in network.named_buffers()}
    gradients = []
    for size in (6, 2):
        network.zero_grad(set_to_none=True)
        for part in rows.split(size):
            network(part).square().sum().backward()
        assert network.head.weight.grad is not None
        gradients.append(network.head.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(dict(network.named_buffers()), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "native", "place"),
    [
        ("bert", False, "dropout"),
        ("bert", True, "model.dropout"),
        ("distilbert", True, "model.dropout"),
        ("roberta", True, "model.classifier.dropout"),
        ("image", False, "dropout"),
    ],
)
def test_dropout_before_the_head_can_be_set_again(name, native, place):
    network = EfficientNetLite0(4, 0.1) if name == "image" else text_network(name, native)
    before = dropouts(network)
    network.set_dropout(0.75)
    assert dropouts(network) == {**before, place: 0.75}


def dropouts(network):
    modules = network.named_modules()
    return {name: module.p for name, module in modules if isinstance(module, nn.Dropout)}


def test_mixup_blends_features_with_those_of_a_partner():
    network = text_network("bert", native=False)
    ids, mask = inputs()
    mix = Mix(torch.tensor([1, 0, 2, 4, 3]), 0.75)
    with torch.no_grad():
        plain, mixed = network(ids, mask), network(ids, mask, mix=mix)
        torch.testing.assert_close(mixed, 0.75 * plain + 0.25 * plain[mix.partners])
        states = network.states(2, ids, mask)
        above = network.above(2).eval()(*network.collate(2, states), mix=mix)
        torch.testing.assert_close(above, mixed, atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="mixup"):
        text_network("bert", native=True)(ids, mask, mix=mix)


def test_a_network_in_one_piece_is_frozen_as_a_whole_or_not_at_all():
    torch.manual_seed(0)
    config = AlbertConfig(**SIZES, embedding_size=8)  # three layers that are one
    network = MeanPoolNetwork(AutoModel.from_config(config), 3, 0.1).eval()
    assert (network.layers, network.depth) == (0, 1)
    check_cuts(network, inputs())
    assert {network.stage_of(name) for name, _ in network.named_parameters()} == {0, 1}
    native = NativeNetwork(AutoModelForSequenceClassification.from_config(config)).eval()
    with pytest.raises(ConfigError, match=r"layers of a AlbertFor\w+ were not found"):
        native.states(1, *inputs())


def test_layers_that_exchange_more_than_states_are_one_piece():
    torch.manual_seed(0)
    config = DebertaV2Config(**SIZES, conv_kernel_size=3)  # it reads the embeddings, too
    network = MeanPoolNetwork(AutoModel.from_config(config), 3, 0.1).eval()
    assert (network.layers, network.depth) == (0, 1)
    check_cuts(network, inputs())
    check_frozen(network, inputs())
