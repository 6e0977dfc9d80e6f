"""Batched networks and the training loop."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lfiw_ope import ConfigError, DivergedError, FitConfig
from lfiw_ope.nn import (
    ACTIVATIONS,
    BLOCK_BYTES,
    AdamW,
    BatchedMLP,
    Standardiser,
    fit,
    resolve_precision,
)
from lfiw_ope.nn import batched_mlp as products
from lfiw_ope.nn import training as fit_config


def batched(members=3, sizes=(4, 16, 16, 2), activation="silu", seed=0, **settings):
    return BatchedMLP(members, sizes, activation, torch.Generator().manual_seed(seed), **settings)


class Regression:
    """y = sin(3 x) with a little noise, for `members` networks at once."""

    def __init__(self, network, rows=512, spoil=None):
        generator = torch.Generator().manual_seed(5)
        self.network, self.rows, self.spoil = network, rows, spoil
        self.x = torch.rand((rows + 200, 1), generator=generator) * 2 - 1
        self.y = torch.sin(3 * self.x) + 0.1 * torch.randn(self.x.shape, generator=generator)
        self.calls = 0

    def loss(self, rows, generator):  # noqa: ARG002
        self.calls += 1
        loss = (self.network(self.x[rows]) - self.y[rows]).square().mean((1, 2))
        if self.spoil is not None and self.calls == self.spoil:
            return loss * torch.tensor([1.0, float("nan"), 1.0])
        return loss

    def held_out_loss(self):
        error = self.network(self.x[self.rows :]) - self.y[self.rows :]
        return error.square().mean((1, 2))


class ProductTypes(TorchDispatchMode):
    """The types of batched products."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in {"baddbmm", "bmm"}:
            self.seen.add(args[1].dtype)
        return func(*args, **(kwargs or {}))


def train(network, objective=None, **changes):
    config = FitConfig(**({"updates": 600, "evaluate_every": 50, "batch_size": 64} | changes))
    generator = torch.Generator().manual_seed(1)
    objective = objective or Regression(network)
    return fit(network, objective, config, generator, stage="toy")


@pytest.mark.parametrize("activation", ["silu", "tanh", "relu"])
def test_batched_networks_are_separate_networks(activation):
    network = batched(activation=activation)
    x = torch.randn((3, 50, 4), generator=torch.Generator().manual_seed(1))
    acts = {"silu": nn.SiLU, "tanh": nn.Tanh, "relu": nn.ReLU}
    for member in range(3):
        layers = []
        for weight, bias in zip(network.weights, network.biases, strict=True):
            linear = nn.Linear(*weight.shape[1:])
            linear.load_state_dict({"weight": weight[member].T, "bias": bias[member, 0]})
            layers += [linear, acts[activation]()]
        alone = nn.Sequential(*layers[:-1])
        torch.testing.assert_close(network(x)[member], alone(x[member]), rtol=1e-5, atol=1e-6)
    shared = network(x[0])
    torch.testing.assert_close(shared, network(x[0].expand(3, -1, -1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["silu", "tanh", "relu"])
def test_layer_norm_is_between_product_and_activation(activation):
    """Against `nn.LayerNorm` without gain and shift, member by member."""
    network = batched(activation=activation, layer_norm=True)
    x = torch.randn((3, 50, 4), generator=torch.Generator().manual_seed(1))
    acts = {"silu": nn.SiLU, "tanh": nn.Tanh, "relu": nn.ReLU}
    for member in range(3):
        layers = []
        for weight, bias in zip(network.weights, network.biases, strict=True):
            linear = nn.Linear(*weight.shape[1:])
            linear.load_state_dict({"weight": weight[member].T, "bias": bias[member, 0]})
            norm = nn.LayerNorm(weight.shape[2], elementwise_affine=False)
            layers += [linear, norm, acts[activation]()]
        alone = nn.Sequential(*layers[:-2])
        expected = alone(x[member])
        torch.testing.assert_close(network(x)[member], expected, rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            one = network.member(member)(x[member])
        torch.testing.assert_close(one[0], expected, rtol=1e-5, atol=1e-5)
    plain = batched(activation=activation)
    assert (network(x) - plain(x)).abs().max() > 0.01


@pytest.fixture(params=["together", "in turn"])
def order(request, monkeypatch):
    """Networks this small go through their layers together, unless no product is small."""
    if request.param == "in turn":
        monkeypatch.setattr(products, "LARGE", 0)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("sizes", [(4, 16, 16, 2), (4, 16, 1), (4, 3)])
def test_rectified_networks_have_autograds_own_gradients(sizes):
    network = batched(sizes=sizes, activation="relu")
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((3, 50, 4), generator=generator, requires_grad=True)
    wanted = torch.randn((3, 50, sizes[-1]), generator=generator)
    sources = [x, *network.parameters()]
    found = torch.autograd.grad((network(x) * wanted).sum(), sources)
    step_by_step = (network.last(network.hidden(x)) * wanted).sum()
    for mine, theirs in zip(found, torch.autograd.grad(step_by_step, sources), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_networks_without_hidden_layers_are_affine():
    network = batched(sizes=(4, 2))
    x = torch.randn((7, 4), generator=torch.Generator().manual_seed(1))
    expected = x @ network.weights[0] + network.biases[0]
    torch.testing.assert_close(network(x), expected)


def test_last_layer_stays_float32_under_autocast():
    network = batched()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(torch.randn(3, 5, 4)).dtype == torch.float32


def test_unknown_activation_is_refused():
    with pytest.raises(ConfigError, match="'swish'; it must be one of silu, tanh, relu"):
        batched(activation="swish")


def test_standardiser_leaves_constants_alone():
    rows = torch.randn((1000, 3), generator=torch.Generator().manual_seed(0)) * 7 + 100
    rows[:, 1] = 0.1
    of = Standardiser.of_chunks(rows.split([1, 300, 699]))
    z = of(rows)
    assert z[:, [0, 2]].std(0, correction=0).tolist() == pytest.approx([1, 1], rel=1e-4)
    assert z[:, 1].abs().max() < 1e-6
    torch.testing.assert_close(of.inverse(z), rows)


def test_training_learns_and_keeps_the_best_weights():
    network = batched(sizes=(1, 32, 32, 1))
    report = train(network, updates=1500)
    # The noise has variance 0.01; 200 held-out rows estimate it to a standard error of 10 %.
    assert all(loss < 0.014 for loss in report.held_out_loss)
    kept = Regression(network).held_out_loss()
    assert kept.tolist() == pytest.approx(list(report.held_out_loss), rel=1e-5)
    assert len(set(report.held_out_loss)) == 3  # members differ


def test_training_stops_when_the_held_out_loss_no_longer_falls():
    network = batched(sizes=(1, 64, 64, 1))
    objective = Regression(network, rows=8)  # over-fits at once
    report = train(network, objective, updates=20_000, patience=3, schedule="constant")
    assert report.updates < 20_000
    assert report.updates - max(report.best_update) >= 3 * 50


def test_adamw_is_torch_s_own():
    """Bit for bit, with rates that change and gradients that are missing."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((3, 5, 4), (3, 4))]
    mine, theirs = ([torch.nn.Parameter(x.clone()) for x in start] for _ in range(2))
    own = AdamW(mine, learning_rate=0.1, weight_decay=0.5)
    torch_s = torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.5, fused=True)
    for step in range(30):
        own.zero_grad()
        torch_s.zero_grad()
        own.learning_rate = torch_s.param_groups[0]["lr"] = 0.1 / (1 + step)
        for one, other in list(zip(mine, theirs, strict=True))[: 1 + (step % 3 > 0)]:
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        own.step()
        torch_s.step()
    for one, other, before in zip(mine, theirs, start, strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(one, before)


def test_divergence_names_what_diverged():
    network = batched(sizes=(1, 8, 1))
    with pytest.raises(DivergedError, match=r"toy diverged: member 2 of 3 .* by update 100"):
        train(network, Regression(network, spoil=70))


def test_bf16_training_ends_near_float32():
    losses, products = {}, {}
    for precision in ("float32", "bfloat16"):
        with ProductTypes() as watched:  # which takes longer than the products
            train(batched(sizes=(1, 32, 32, 1)), precision=precision, updates=50)
        report = train(batched(sizes=(1, 32, 32, 1)), precision=precision, updates=800)
        losses[precision], products[precision] = report.held_out_loss, watched.seen
    # The last layer's product is float32 in either.
    assert products == {
        "float32": {torch.float32},
        "bfloat16": {torch.bfloat16, torch.float32},
    }
    # bf16 keeps 8 bits: outputs of size 1 are off by about 2^-9, far below the noise of 0.1.
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.15)


@pytest.mark.parametrize(
    "wrong",
    [
        {"updates": 0},
        {"epochs": 0.0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1.0},
        {"patience": 0},
        {"schedule": "linear"},
        {"precision": "float16"},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name} is .*; it must be"):
        FitConfig(**wrong)


@pytest.mark.parametrize(
    ("rows", "updates"),
    [
        (1_000, 2_000),  # 157 by the epochs: never fewer than `MIN_UPDATES`
        (64_000, 10_000),  # 40 epochs in batches of 256
        (1_000_000, 32_000),  # 156 250 by the epochs: `updates` at most
    ],
)
def test_the_data_s_size_sets_the_number_of_updates(rows, updates):
    config = FitConfig(updates=32_000, epochs=40, batch_size=256)
    found = config.for_rows(rows)
    assert (found.updates, found.epochs) == (updates, None)
    assert found == replace(config, updates=updates, epochs=None)
    assert found.for_rows(1) == found


def test_few_updates_stay_few_whatever_the_epochs():
    assert FitConfig(updates=300, epochs=40).for_rows(10**9).updates == 300
    assert FitConfig(updates=300).for_rows(10).updates == 300


def test_epochs_are_of_the_objective_s_rows(monkeypatch):
    monkeypatch.setattr(fit_config, "MIN_UPDATES", 1)
    network = batched(sizes=(1, 8, 1))
    # 512 rows in batches of 64: 8 updates an epoch.
    report = train(network, updates=600, epochs=5, patience=None)
    assert report.updates == 40


@pytest.mark.parametrize(("units", "precision"), [(False, "float32"), (True, "bfloat16")])
def test_automatic_precision_follows_the_processor_and_is_reported(monkeypatch, units, precision):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units)
    cpu = torch.device("cpu")
    assert resolve_precision(cpu, "auto") == precision
    products_of = ProductTypes()
    with products_of:
        report = train(batched(sizes=(1, 16, 16, 1)), updates=1, precision="auto")
    assert report.precision == precision
    assert (torch.bfloat16 in products_of.seen) == units
    for named in ("float32", "bfloat16"):
        assert resolve_precision(cpu, named) == named
        named_report = train(batched(sizes=(1, 8, 1)), updates=1, precision=named)
        assert named_report.precision == named


def test_large_networks_take_turns_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    cpu, float32 = torch.device("cpu"), torch.float32
    one_each = [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert products.turns(3, 512, 256, cpu, float32) == one_each
    assert products.turns(3, 511, 256, cpu, float32) == [slice(None)]
    assert products.turns(3, 1 << 20, 256, cpu, torch.bfloat16) == [slice(None)]
    assert products.turns(3, 1 << 20, 256, torch.device("cuda"), float32) == [slice(None)]


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_rows_in_blocks_are_the_rows_together(layer_norm, precision, activation, monkeypatch):
    """Without gradients rows pass in blocks; 1000 bytes make 16 of them of 1000 rows."""
    network = batched(activation=activation, layer_norm=layer_norm)
    x = torch.randn(3, 1000, 4, generator=torch.Generator().manual_seed(1))
    monkeypatch.setitem(BLOCK_BYTES, "cpu", 1000)
    tolerance = 1e-6 if precision == torch.float32 else 2**-7
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        for rows in (x, x[0]):  # each network its own rows, or all the same
            together = network(rows).detach()
            with torch.no_grad():
                apart = network(rows)
            torch.testing.assert_close(apart, together, rtol=tolerance, atol=tolerance)


def test_low_precision_follows_the_weights():
    network, x = batched().requires_grad_(False), torch.ones(3, 5, 4)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = network(x)
        network.weights[0].mul_(2)
        assert not torch.equal(network(x), before)
        network.weights[0].mul_(0.5)
        assert torch.equal(network(x), before)
        # What trains is converted at every call: fused optimisers leave no trace in the version.
        network.requires_grad_(True)
        network.weights[0].data.mul_(2)
        assert not torch.equal(network(x), before)


def test_weights_trained_between_two_uses_are_not_the_old_ones():
    """A fused optimiser leaves no trace in the weights' version; training itself is the trace."""
    network, x = batched().requires_grad_(False), torch.ones(3, 5, 4)

    def use():
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            return network(x)

    before = use()
    network.requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)
    network(x).sum().backward()
    optimiser.step()
    network.requires_grad_(False)
    assert (use() - before).abs().min() > 0.01


def test_a_network_without_hidden_layers_stays_float32():
    network, x = batched(sizes=(11, 3)), torch.full((3, 7, 11), 1 + 2**-12)
    together = network(x).detach()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(network(x), together, rtol=1e-6, atol=1e-6)
