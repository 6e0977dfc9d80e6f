"""Estimators that can answer from one fit: which they are, and how they get theirs."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from lfiw_ope.answering import Estimator, Fitted


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
