"""The one protocol of every estimator: fit to a log, then answer for one policy or several."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Protocol, overload, runtime_checkable

from lfiw_ope.data.trajectories import Trajectories
from lfiw_ope.estimand import Estimand
from lfiw_ope.policies.stacking import check_policy
from lfiw_ope.results import Estimate
from lfiw_ope.types import Policy, Progress, silent


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
