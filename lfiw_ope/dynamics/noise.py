"""Noise of a simulated step, in units of the targets' standard deviation."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lfiw_ope.core.errors import ConfigError
from lfiw_ope.core.validation import choice, real

NoiseKind = Literal["none", "gaussian", "bootstrap", "heteroscedastic"]
"""What is added to the mean of the drawn member at every simulated step."""

NOISE_KINDS: tuple[str, ...] = get_args(NoiseKind)

MAX_BANK_ENTRIES = 1 << 25
"""Numbers in a bank of residuals, 128 MB; a larger one is a random part of the residuals."""

MAX_BANK_ROWS = 1 << 14
"""Transitions in a bank of residuals."""


class Noise(nn.Module):
    """Noise e of a simulated step: (s' − s, r) = scale · (μ_m(s, a) + c e) + mean.

    - ``"none"``: e = 0. Right where the environment is deterministic: residuals are then the
      model's own error, which is not independent from step to step.
    - ``"gaussian"``: e ~ N(0, Σ), Σ the second moment of held-out residuals.
    - ``"bootstrap"``: e is the whole residual vector of one held-out transition, of the member that
      predicts. With c = 1 it has the residuals' marginal distribution: their tails and the
      dependence between entries (Efron 1979, applied to regression residuals). It does not know
      how residuals depend on (s, a): that is what a density ratio learns.
    - ``"heteroscedastic"``: e ~ N(0, diag σ_m²(s, a)), a scale that each member predicts.

    Args:
        kind: one of the above.
        residuals: `[M, R, D]`, held-out residuals of each member, standardised; None for
            ``"heteroscedastic"``.
        scale: c, which multiplies the noise.

    Raises:
        ConfigError: if the kind is unknown, c is negative, or residuals are missing.
    """

    residuals: Tensor
    factor: Tensor

    def __init__(
        self, kind: NoiseKind, residuals: Tensor | None = None, *, scale: float = 1.0
    ) -> None:
        super().__init__()
        choice("noise", kind, NOISE_KINDS)
        if kind in ("gaussian", "bootstrap") and residuals is None:
            raise ConfigError(
                f"noise={kind!r} needs held-out residuals, and the networks were trained with a "
                "scale of their own; train them with noise='gaussian', 'bootstrap' or 'none'."
            )
        self.kind: NoiseKind = kind
        self.scale = real("noise_scale", scale, least=0.0)
        size = 0 if residuals is None else residuals.shape[-1]
        bank = torch.zeros((1, 0, size)) if residuals is None else residuals
        self.register_buffer("residuals", bank)
        self.register_buffer("factor", cholesky_factor(bank))

    def with_kind(self, kind: NoiseKind, scale: float | None = None) -> "Noise":
        """Noise of another kind from the same residuals."""
        residuals = self.residuals if self.residuals.shape[1] else None
        return Noise(kind, residuals, scale=self.scale if scale is None else scale)

    def of_member(self, member: int) -> "Noise":
        """The noise of one member in the ensemble: its own residuals, all members' Σ."""
        residuals = self.residuals[member : member + 1] if self.residuals.shape[1] else None
        one = Noise(self.kind, residuals, scale=self.scale)
        one.factor = self.factor
        return one

    def draw(
        self,
        member: Tensor,
        size: int,
        generator: torch.Generator,
        log_scale: Tensor | None = None,
    ) -> Tensor | None:
        """Independent draws of c e for n rows; None where there is no noise.

        Args:
            member: `[n]` int64, the member that predicts each row.
            size: D.
            generator: of the draws.
            log_scale: `[..., n, D]`, log σ_m(s, a), for ``"heteroscedastic"``.

        Returns:
            `[n, D]`, or the shape of `log_scale`.
        """
        if self.kind == "none" or self.scale == 0.0:
            return None
        n, device = len(member), member.device
        if self.kind == "bootstrap":
            members, rows = self.residuals.shape[:2]
            row = torch.randint(rows, (n,), generator=generator, device=device)
            drawn = self.residuals.view(members * rows, size)[member * rows + row]
        else:
            dtype = self.factor.dtype
            drawn = torch.randn((n, size), generator=generator, device=device, dtype=dtype)
            if self.kind == "gaussian":
                drawn = drawn @ self.factor.T
            elif log_scale is not None:
                drawn = drawn * log_scale.exp()
        return drawn if self.scale == 1.0 else self.scale * drawn


def cholesky_factor(residuals: Tensor) -> Tensor:
    """Lower Cholesky factor `[D, D]` of the second moment of residuals `[M, R, D]`."""
    size = residuals.shape[-1]
    rows = residuals.double().flatten(0, 1)
    if not len(rows):
        return torch.eye(size, device=residuals.device)
    moment = rows.T @ rows / len(rows)
    # A thousandth of each variance is added: entries that move as one (a sine and its cosine, a
    # constant) leave the matrix singular up to rounding.
    ridge = torch.diag(1e-3 * moment.diagonal() + 1e-12)
    factor: Tensor = torch.linalg.cholesky(moment + ridge)
    return factor.float()
