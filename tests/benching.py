"""A ladder of one's own on CartPole that is quick, importable by processes that run it."""

import json
import os
import threading
import time
from dataclasses import replace

import pytest
import torch
from lfiw_envs import Ladder, Question

import lfiw_ope as ope
from lfiw_ope.benchmark import Suite, digest, made_by, run_suite
from lfiw_ope.policies import CategoricalHead

GAINS = {"falls": -2.0, "idles": 0.0, "leans": 1.0, "holds": 4.0}
"""How strongly a policy pushes against the lean of the pole."""

TRUTHS = {"falls": 8.5, "idles": 15.0, "leans": 19.0, "holds": 19.9}


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    """Logs are kept in the test's own folder."""
    monkeypatch.setenv("LFIW_OPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def policies(tmp_path):
    """A folder for those of a ladder."""
    folder = tmp_path / "policies"
    folder.mkdir()
    return folder


def ladder(folder, gains=GAINS):
    """Four linear policies, two data sets, and files of values and support."""
    for policy, gain in gains.items():
        path = folder / f"{policy}.safetensors"
        if path.exists():
            continue
        lean = torch.tensor([0.0, 0.0, 5.0, 1.0])
        weights = torch.stack((-gain * lean, gain * lean), 1)
        actor = ope.MLPPolicy.from_layers(
            [weights], [torch.zeros(2)], CategoricalHead(), activation="tanh"
        )
        ope.save_actor(actor, path)
    found = Ladder(
        name="short_pole",
        env_id="CartPole-v1",
        targets=tuple(GAINS),
        recipes={"noise": ("idles",), "mixed": ("idles", "leans")},
        folder=folder,
        episode=20,
        questions={"T10": Question(10, 1.0), "T20": Question(20, 1.0)},
    )
    one = {"standard_error": 0.1, "spread": 1.0, "quantiles": {}, "episodes": 100}
    values = {
        policy: {"stochastic": {question: {"mean": true, **one} for question in found.questions}}
        for policy, true in TRUTHS.items()
    }
    head = made_by(found, "a test")
    head["files"] = {policy: digest(found.policy_path(policy)) for policy in gains}
    found.values_path.write_text(json.dumps({**head, "values": values}))
    support = dict(zip(GAINS, (0.3, 0.95, 0.9, 0.5), strict=True))
    told = {**head, "recipes": found.recipes, "support": dict.fromkeys(found.recipes, support)}
    found.support_path.write_text(json.dumps(told))
    return found


def suite(folder, **changes):
    """Quick: nothing is trained."""
    found = Suite(
        name="quick",
        about="A test.",
        ladders=(ladder(folder),),
        data=("noise", "mixed"),
        transitions=(200,),
        questions={"short_pole": ("T20",)},
        seeds=(0, 1),
        estimators=("behaviour", "pdis", "wis"),
        refuse=None,
    )
    return replace(found, **changes)


class Mine:
    """An estimator of one's own: the log's mean return, halved."""

    def __init__(self, estimand):
        self.estimand = estimand

    def fit(self, data, seed, *, progress=None):  # noqa: ARG002
        self.mean = data.returns(self.estimand.horizon, self.estimand.discount).mean()
        return self

    def estimate(self, policies, *, progress=None):  # noqa: ARG002
        said = ope.Estimate(
            estimator="mine", estimand=self.estimand, value=float(self.mean) / 2, seed=0
        )
        return [said] * len(policies)


class Blind(Mine):
    """One that takes nothing that tells how far it is."""

    def fit(self, data, seed):
        return super().fit(data, seed)


class Broken(Mine):
    """One whose fit raises."""

    def fit(self, data, seed, *, progress=None):  # noqa: ARG002
        raise ZeroDivisionError("it divides by nothing")


class Scribbling(Mine):
    """One that writes into the log and the policies, as `r -= r.mean()` does."""

    def fit(self, data, seed, *, progress=None):
        data.rewards[:] = 77.0
        return super().fit(data, seed, progress=progress)

    def estimate(self, policies, *, progress=None):
        for policy in policies:
            for parameter in policy.parameters():
                parameter.data.zero_()
        return super().estimate(policies, progress=progress)


class Odd(Mine):
    """One whose estimates have something in a field that no row can hold."""

    field, content = "value", None

    def estimate(self, policies, *, progress=None):
        said = super().estimate(policies, progress=progress)
        return [replace(one, **{self.field: self.content}) for one in said]


class Unsettling(Mine):
    """One that leaves torch otherwise than it found it."""

    def fit(self, data, seed, *, progress=None):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().fit(data, seed, progress=progress)


class Wandering(Mine):
    """One that goes to another folder."""

    def fit(self, data, seed, *, progress=None):
        os.chdir(os.environ["BENCHING_ELSEWHERE"])
        return super().fit(data, seed, progress=progress)


class Unsendable(Mine):
    """One that no other process can have."""

    def __init__(self, estimand):
        super().__init__(estimand)
        self.lock = threading.Lock()


class Leaving(Mine):
    """One that ends the program."""

    def fit(self, data, seed, *, progress=None):  # noqa: ARG002
        raise SystemExit(3)


class LeavingLate(Mine):
    """One that ends the program when it is asked."""

    def estimate(self, policies, *, progress=None):  # noqa: ARG002
        raise SystemExit(3)


class Mended(Mine):
    """One that raises what the package does, or has no number, until it is mended."""

    def estimate(self, policies, *, progress=None):
        state = os.environ["BENCHING_STATE"]
        if state == "raises":
            raise ope.DataError("it is not\nready")
        said = super().estimate(policies, progress=progress)
        return [replace(one, value=float("nan")) if state == "nan" else one for one in said]


class Elsewhere(Mine):
    """One that answers what was not asked."""

    def estimate(self, policies, *, progress=None):
        said = super().estimate(policies, progress=progress)
        return [replace(one, estimand=ope.Estimand(3)) for one in said]


class Counting(Mine):
    """One that notes each fit in a file that the environment names."""

    def fit(self, data, seed, *, progress=None):
        with open(os.environ["BENCHING_FITS"], "a") as file:
            file.write(f"{seed}\n")
        return super().fit(data, seed, progress=progress)


class Slow(Mine):
    """One that takes its time, so that a run can be stopped in it."""

    def fit(self, data, seed, *, progress=None):
        time.sleep(0.3)
        return super().fit(data, seed, progress=progress)


def table(results):
    """Rows without what differs from run to run."""
    timed = {"seconds": None, "judging_seconds": None}
    return [{**row.to_dict(), **timed} for row in results.rows]


def run(folder, output, resume=False, **changes):
    """The quick suite, for a process that may be killed."""
    return run_suite(suite(folder, **changes), output=output, resume=resume)
