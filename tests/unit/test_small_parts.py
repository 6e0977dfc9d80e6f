"""Estimand, seeding, results, import."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from lfiw_ope import ConfigError, DataError, Estimand, Estimate
from lfiw_ope.core import NonFiniteError, RefusedError, derive, numpy_generator, torch_generator


@pytest.mark.parametrize("horizon", [0, -1, 2.5, True, "10", None])
def test_a_horizon_is_a_positive_whole_number(horizon):
    with pytest.raises(ConfigError, match="horizon is"):
        Estimand(horizon)


@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan"), "0.9", None])
def test_a_discount_lies_between_zero_and_one(discount):
    with pytest.raises(ConfigError, match="discount is"):
        Estimand(10, discount)


def test_numpy_numbers_are_numbers():
    estimand = Estimand(np.int64(5), np.float32(0.5))
    assert estimand == Estimand(5, 0.5)
    assert json.dumps([estimand.horizon, estimand.discount]) == "[5, 0.5]"
    assert derive(np.int64(3), "a") == derive(3, "a")


def test_streams_differ_by_name_and_seed_and_repeat():
    draws = {
        (seed, name): torch.rand(4, generator=torch_generator(seed, name)).tolist()
        for seed in (0, 1)
        for name in ("a", "b")
    }
    assert len({tuple(draw) for draw in draws.values()}) == 4
    assert torch.rand(4, generator=torch_generator(1, "b")).tolist() == draws[1, "b"]
    assert derive(0, "ab", "c") != derive(0, "a", "bc")
    assert numpy_generator(3, "x").random() == numpy_generator(3, "x").random()


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ConfigError, match="seed is"):
        derive(seed, "a")


def estimate(**changes):
    fields = {
        "estimator": "LFIW",
        "estimand": Estimand(100, 0.99),
        "value": 32.0512,
        "mc_standard_error": 0.234,
        "seed": 3,
        "rollouts": 1000,
        "ess": 412.3,
        "raw_ess": 7.5,
        "bounded_share": 0.0012,
        "classifier_log_loss": 0.61,
        "classifier_accuracy": 0.66,
        "seconds": {"dynamics": 1.5},
        "warnings": ("Something.",),
        "returns": np.array([1.0, 2.0]),
        "log_weights": np.log([0.25, 0.75]),
        "ess_by_step": np.array([2.0, 1.6]),
    }
    return Estimate(**(fields | changes))


def test_an_estimate_reads_as_one_line():
    assert str(estimate()) == (
        "LFIW 32.05  simulation noise ± 0.23  ESS 412/1000  T = 100, γ = 0.99  "
        "classifier 66% accurate  0.12% of states bounded  1 warning"
    )
    assert "simulation noise unknown" in str(estimate(mc_standard_error=None))
    assert "ESS 412/1000  k̂ 0.31  T = 100" in str(estimate(pareto_k=0.31))
    assert estimate().label == "LFIW"
    assert estimate(fell_back=True).label == "LFIW → model"
    fell = str(estimate(fell_back=True))
    assert "LFIW (the plain model's: weights mean nothing here) 32.05  sim" in fell


def test_an_estimate_survives_json(tmp_path):
    before = estimate()
    text = before.to_json(tmp_path / "deep" / "estimate.json")
    after = Estimate.from_json(text)
    assert after == before
    assert after.returns.tolist() == before.returns.tolist()
    assert after.log_weights.tolist() == before.log_weights.tolist()
    assert json.loads((tmp_path / "deep" / "estimate.json").read_text()) == json.loads(text)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["estimate.json"]


@pytest.mark.parametrize("text", ["{", "{}", '{"estimand": 3}', "[1]"])
def test_foreign_json_is_refused(text):
    with pytest.raises(DataError, match="This is no"):
        Estimate.from_json(text)


def test_import_loads_nothing_heavier_than_torch_and_training_no_compiler():
    heavy = ["gymnasium", "mujoco", "minari", "stable_baselines3", "matplotlib", "h5py", "pandas"]
    heavy += ["jax", "typer", "rich", "safetensors", "sklearn", "arviz_stats", "scipy.stats"]
    code = (
        "import sys, logging, torch, random, numpy as np\n"
        "before = (torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed(),\n"
        "          random.getstate(), np.random.get_state()[1].tolist(),\n"
        "          len(logging.getLogger().handlers), dict(np.geterr()))\n"
        "import lfiw_ope\n"
        "after = (torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed(),\n"
        "         random.getstate(), np.random.get_state()[1].tolist(),\n"
        "         len(logging.getLogger().handlers), dict(np.geterr()))\n"
        "assert before == after\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\n"
        "fit = lfiw_ope.FitConfig(updates=2, evaluate_every=1)\n"
        "small = lfiw_ope.ClassifierConfig(members=2, hidden=(4,), fit=fit)\n"
        "rows = torch.randn((40, 1), generator=torch.Generator().manual_seed(0))\n"
        "lfiw_ope.fit_density_ratio(rows, 2 * rows, small, seed=0)\n"
        "from lfiw_ope.policies.heads import Bounds\n"
        "from lfiw_ope.ratios.behaviour_cloning import marginal_normal\n"
        "bounds = Bounds(-torch.ones(1), torch.ones(1))\n"
        "marginal_normal(rows.clamp(-1, 1), bounds, censored=True)\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]


def test_errors_come_out_of_another_process_as_they_went_in():
    refused = pickle.loads(pickle.dumps(RefusedError(("Too few.", "Too far."))))
    assert refused.reasons == ("Too few.", "Too far.")
    assert str(refused) == "The data cannot tell this value: Too few. Too far."
    broken = pickle.loads(pickle.dumps(NonFiniteError({"rewards": (2, 7)}, data=None)))
    assert broken.counts == {"rewards": 2}
    assert "rewards holds 2 entries" in str(broken)
