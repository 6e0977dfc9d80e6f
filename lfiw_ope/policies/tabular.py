"""Policies that are tables: discrete states, discrete actions."""

from collections.abc import Hashable, Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lfiw_ope.data.actions import ActionSpec
from lfiw_ope.errors import PolicyError
from lfiw_ope.policies.acting import HeadPolicy
from lfiw_ope.policies.heads import CategoricalHead, Output


class TabularPolicy(HeadPolicy):
    """π(a | s) from a table, at one-hot states.

    A state that is nearly one-hot, as a learned model draws them, is read as the nearest one.

    Args:
        table: `[S, A]` probabilities; or `[P, S, A]`, of P policies.
        deterministic: act by the likeliest action.

    Raises:
        PolicyError: if its rows are no distributions.
    """

    table: Tensor

    def __init__(self, table: ArrayLike | Tensor, *, deterministic: bool = False) -> None:
        super().__init__(CategoricalHead(), deterministic=deterministic)
        rows = torch.as_tensor(table).detach().double()
        if rows.dim() not in (2, 3):
            raise PolicyError(f"The table has shape {tuple(rows.shape)}; expected [S, A].")
        sums = rows.sum(-1)
        if not ((rows >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-6)):
            raise PolicyError(
                "The table holds rows that are no distributions: each row's probabilities must be "
                "0 or more and sum to 1."
            )
        self.register_buffer("table", (rows if rows.dim() == 3 else rows[None]).float())

    @property
    def state_size(self) -> int:
        return self.table.shape[1]

    @property
    def action_size(self) -> int:
        return self.table.shape[2]

    @property
    def action_spec(self) -> ActionSpec:
        return ActionSpec.discrete(self.action_size)

    @property
    def stack_key(self) -> Hashable:
        return "table", *self.table.shape[1:], self.deterministic

    def stack(self, others: Sequence["TabularPolicy"]) -> "TabularPolicy":
        """One policy of all these policies' axes P, one after the other; a copy."""
        tables = torch.cat([one.table for one in (self, *others)])
        return TabularPolicy(tables, deterministic=self.deterministic)

    def outputs(self, state: Tensor) -> Output:
        nearest = nn.functional.one_hot(state.argmax(-1), self.state_size).to(state.dtype)
        table = self.table if state.dim() == 3 else self.table[0]
        return Output(torch.log(nearest @ table.to(state.dtype)))
