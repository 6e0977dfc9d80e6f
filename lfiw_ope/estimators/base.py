"""The protocol of estimators, and fits that several of them share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, overload, runtime_checkable

from lfiw_ope.core.estimand import Estimand
from lfiw_ope.core.policy_batch import check_policy
from lfiw_ope.core.protocols import Policy, Progress, silent
from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.stats.estimate import Estimate


@runtime_checkable
class Fitted(Protocol):
    """What `fit` gives: it answers for any number of policies."""

    @overload
    def estimate(self, policies: Policy, *, progress: Progress = ...) -> Estimate: ...
    @overload
    def estimate(
        self, policies: Sequence[Policy], *, progress: Progress = ...
    ) -> list[Estimate]: ...


@runtime_checkable
class Estimator(Protocol):
    """Anything that estimates. No base class, no registry: an object with these is an estimator.

    Attributes:
        estimand: what is estimated.
    """

    @property
    def estimand(self) -> Estimand: ...

    def fit(self, data: Trajectories, seed: int, *, progress: Progress = ...) -> Fitted:
        """What can be had from the log before a policy is known.

        Args:
            data: the log.
            seed: of everything that is random, now and in `estimate`.
            progress: told how far the work is.
        """
        ...


Spaces = tuple[int, int, Literal["continuous", "discrete"]]
"""S, A and the kind of actions."""


def spaces_of(data: Trajectories) -> Spaces:
    """Those of a log, which policies must share."""
    return data.state_size, data.action_size, data.action_spec.kind


class Answering(ABC):
    """`estimate` for one policy or several, checked first, from one method that takes several.

    A class that has it says what the data are, and answers in `_answer`.
    """

    @property
    @abstractmethod
    def spaces(self) -> Spaces:
        """S, A and the kind of actions, of the data."""

    @abstractmethod
    def _answer(self, policies: Sequence[Policy], progress: Progress) -> list[Estimate]:
        """One estimate a policy, in their order. They have been checked."""

    @overload
    def estimate(self, policies: Policy, *, progress: Progress = ...) -> Estimate: ...
    @overload
    def estimate(
        self, policies: Sequence[Policy], *, progress: Progress = ...
    ) -> list[Estimate]: ...
    def estimate(
        self, policies: Policy | Sequence[Policy], *, progress: Progress = silent
    ) -> Estimate | list[Estimate]:
        """The value of a policy, or of several in one batched call.

        Raises:
            PolicyError: if one is no policy for these data, or lacks what the estimator needs of
                it; nothing is computed then.
            DataError: if the log cannot tell the value over this horizon.
            DivergedError: if a training or a simulation leaves the finite numbers.
        """
        every = policies if isinstance(policies, Sequence) else [policies]
        self.check(every)
        found = self._answer(every, progress) if every else []
        return found if isinstance(policies, Sequence) else found[0]

    def check(self, policies: Sequence[Policy]) -> None:
        """That each is a policy for these data.

        Raises:
            PolicyError: if one is not.
        """
        state_size, action_size, kind = self.spaces
        for policy in policies:
            check_policy(policy, state_size=state_size, action_size=action_size, action_kind=kind)


@runtime_checkable
class SharingEstimator(Estimator, Protocol):
    """An estimator whose fit others can answer from too, with the very numbers of an own fit."""

    @property
    def sharing_key(self) -> object:
        """Equal for estimators that may share: all that the fit depends on, seed and log aside."""
        ...

    def adopt(self, fitted: Any) -> Fitted:
        """What `fit` would give, made of the fit of an estimator with an equal key.

        Args:
            fitted: what that estimator's `fit` gave, to the same log by the same seed.
        """
        ...


def settings_but(estimator: Any, *names: str) -> dict[str, Any]:
    """All that an estimator was given, without these entries of its configuration.

    What is not named counts as something that the fit depends on: a setting that is added later
    keeps estimators apart until it is said that it need not.
    """
    config = {name: of for name, of in vars(estimator.config).items() if name not in names}
    return {**vars(estimator), "config": config}


def share_fits(estimators: Mapping[str, Estimator]) -> list[dict[str, Estimator]]:
    """Estimators by name, in groups that can answer from one fit, in the order of their first."""
    groups: list[tuple[object, dict[str, Estimator]]] = []
    for name, estimator in estimators.items():
        key = estimator.sharing_key if isinstance(estimator, SharingEstimator) else None
        for known, group in groups:
            if key is not None and known is not None and _equal(known, key):
                group[name] = estimator
                break
        else:
            groups.append((key, {name: estimator}))
    return [group for _, group in groups]


def _equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):  # an array within a rule has no one answer
        return False
