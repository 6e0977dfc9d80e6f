"""The density ratio of two sets of samples, by classification: what needs no density."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfiw_ope.classifier import ClassifierConfig, ClassifierEnsemble, ClassifierReport
from lfiw_ope.errors import DataError
from lfiw_ope.nn.ensemble import Standardiser
from lfiw_ope.nn.fit_config import FitReport


class DensityRatio(nn.Module):
    """log p(x) / q(x), where p and q are known by samples alone.

    The classifiers tell samples of p from samples of q; see `ClassifierEnsemble`. Build it with
    `lfiw_ope.fit_density_ratio`.

    Args:
        config: the classifiers.
        inputs: standardises a sample `[..., D]`.
        generator: draws the initial weights; see `BatchedMLP`.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        inputs: Standardiser,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.inputs = inputs
        self.classifiers = ClassifierEnsemble(config, inputs.mean.numel(), generator)

    @property
    def report(self) -> ClassifierReport | None:
        """How well the classifiers tell held-out samples apart; None before they are fitted."""
        return self.classifiers.report

    @property
    def fit_report(self) -> FitReport | None:
        """How their training went."""
        return self.classifiers.fit_report

    @torch.no_grad()
    def log_ratio(self, x: Tensor | NDArray[Any]) -> Tensor:
        """Of samples `[..., D] -> [...]`, in nats, on the classifiers' device.

        Where `average` is "estimates", each classifier's own: `[C, ...]`.

        Raises:
            DataError: if the last axis is not D, or an entry is NaN, infinite or too large for
                float32.
        """
        mean = self.inputs.mean
        rows = torch.as_tensor(x, dtype=mean.dtype, device=mean.device)
        if rows.shape[-1:] != mean.shape:
            raise DataError(
                f"The samples have the shape {list(rows.shape)}; the ratio was fitted to samples "
                f"of {mean.numel()} entries, so the last axis must be {mean.numel()}."
            )
        bad = int((~rows.isfinite()).sum())
        if bad:
            raise DataError(
                f"{bad} of the samples' {rows.numel()} entries are NaN, infinite or too large for "
                "float32; they have no log-ratio, so drop or repair them."
            )
        return self.classifiers.log_ratio(self.inputs(rows))
