"""Rivers: a probabilistic program that draws a river, which forks and joins again on its way down.

The picture shows every random choice of the program, so that its distribution is known exactly.

    first row: one arm in one of W columns, all equally likely
    one arm:   with probability f, it forks into one arm a column to the left and one a column to the right, if there is
               room; otherwise it flows down to the left, straight or to the right
    two arms:  first the left one flows, then the right one, which does not cross it; in the same column, they join
    direction: as in the row before with probability a, otherwise one of the other two, equally likely
    H[x] = log W + sum_t sum_s p_t(s) H[row t + 1 | s],    s: columns of the arms and their last directions

Directions that leave the frame are excluded, and the probabilities of the others are scaled to sum to one.

Density: exact; -inf for images that are not rivers.
Sampling: exact; row by row.
Completion: exact, from any mask. A pass from the bottom computes the probability of the known pixels in each row and
below, given the state in that row. A pass from the top draws the rows, weighted with these probabilities.
Differs from the paper: there is no paper.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.capabilities import ClosedForm, Completable, KnownEntropy
from zoo.config import Between, ImageShape
from zoo.errors import ConfigError, DataError
from zoo.nn.precision import widest, widest_dtype
from zoo.random import Source, Streams, rand


class Rivers(ClosedForm, KnownEntropy, Completable):
    """The program that draws rivers. It has no weights, and nothing is fitted.

    Args:
        event_shape: (1, H, W); values are in {0, 1}.
        fork: Probability f that a single arm forks.
        inertia: Probability a that an arm keeps its direction.
    """

    levels = 2
    fixed = "it is a program without weights"

    real = ("log_prob",)  # accepts any real numbers: images that are not rivers have probability 0

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        fork: Annotated[float, Between(0, 0.99)] = 0.1,
        inertia: Annotated[float, Between(0.01, 0.99)] = 0.6,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        channels, self.height, self.width = self.event_shape = tuple(event_shape)
        if channels != 1:
            raise ConfigError(f"Rivers: expected one channel, found event_shape {list(event_shape)}")
        self.fork = fork
        self.inertia = inertia

    def _log_flows(self, columns: Tensor, last: Tensor) -> Tensor:
        """Log-probabilities of the directions of the left arm and of the right one: [..., 2], [..., 2] -> [..., 3, 3].

        A direction is 0, 1 or 2: left, straight, right. If there is one arm, both columns are the same.
        """
        ways = torch.arange(3, device=columns.device)
        onward = torch.where(ways == last[..., None], math.log(self.inertia), math.log((1 - self.inertia) / 2))
        to = columns[..., None] + ways - 1  # [..., 2, 3]
        onward = onward.where((to >= 0) & (to < self.width), -math.inf)
        left, right = onward.unbind(-2)
        left = left.log_softmax(-1)[..., None]
        right = right[..., None, :].where(to[..., 1, None, :] >= to[..., 0, :, None], -math.inf)
        two = left + right.log_softmax(-1).nan_to_num(-math.inf)  # nan if the left arm cannot go there
        column = columns[..., 0, None, None]
        fork = torch.where((column > 0) & (column < self.width - 1), self.fork, 0.0)
        apart = (ways[:, None] == 0) & (ways == 2)
        together = left + (-fork).log1p()
        one = torch.where(apart, fork.log(), together.where(ways[:, None] == ways, -math.inf))
        return torch.where((columns[..., 0] == columns[..., 1])[..., None, None], one, two)

    @staticmethod
    def _flow(columns: Tensor, ways: Tensor) -> tuple[Tensor, Tensor]:
        """Columns in the next row and the last directions there, [..., 2] each; arms that have joined flow straight."""
        to = columns + ways - 1
        joined = (to[..., 0] == to[..., 1]) & (columns[..., 0] != columns[..., 1])
        return to, ways.where(~joined[..., None], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        rows = (x[:, 0] > 0.5).long()  # [B, H, W]
        left, right = rows.argmax(-1), self.width - 1 - rows.flip(-1).argmax(-1)
        columns = torch.stack([left, right], -1)  # [B, H, 2]
        is_binary = (x == rows[:, None]).flatten(1).all(1)
        is_river = is_binary & (rows.sum(-1) == 1 + (left < right)).all(-1) & (left == right)[:, 0]
        ways = columns.diff(dim=1) + 1
        _, last = self._flow(columns[:, :-1], ways)
        last = F.pad(last[:, :-1], (0, 0, 1, 0), value=1)[:, : self.height - 1]
        is_near = (ways >= 0) & (ways <= 2)
        place = (3 * ways[..., :1] + ways[..., 1:]).clamp(0, 8)
        flows = self._log_flows(columns[:, :-1], last).flatten(-2).gather(-1, place)[..., 0]
        log_prob = flows.where(is_near.all(-1), -math.inf).sum(-1) - math.log(self.width)
        return log_prob.where(is_river, -math.inf)

    def draw(self, streams: Streams) -> Tensor:
        uniforms = rand((len(streams), self.height), streams, self.device)
        columns = (uniforms[:, :1] * self.width).long().expand(-1, 2)
        last = torch.ones_like(columns)
        rows = [F.one_hot(columns, self.width).amax(1)]
        for u in uniforms[:, 1:].T:
            cumulative = self._log_flows(columns, last).flatten(-2).exp().cumsum(-1)
            place = (u[:, None] * cumulative[:, -1:] >= cumulative).sum(-1)
            columns, last = self._flow(columns, torch.stack([place // 3, place % 3], -1))
            rows.append(F.one_hot(columns, self.width).amax(1))
        return torch.stack(rows, 1)[:, None].float()

    def _states(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All S states of the program.

        Returns:
            Columns of the arms, [S, 2]; log-probabilities of the directions, float64, [S, 9]; numbers of the states to
            which they lead, [S, 9], arbitrary for impossible directions; numbers of the states of the first row, [W].
        """
        width, ways = (torch.arange(size, device=self.device) for size in (self.width, 3))
        states = torch.cartesian_prod(width, width, ways, ways)  # columns, last directions
        columns, last = states[states[:, 0] <= states[:, 1]].split(2, -1)
        log_flows = widest(self._log_flows(columns, last).flatten(-2))
        to, after = self._flow(columns[:, None], torch.cartesian_prod(ways, ways))
        number = torch.zeros(self.width, self.width, 3, 3, dtype=torch.int64, device=self.device)
        number[(*columns.T, *last.T)] = torch.arange(len(columns), device=self.device)
        place = number[(*to.clamp(0, self.width - 1).unbind(-1), *after.unbind(-1))]
        return columns, log_flows, place, number[width, width, 1, 1]

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        columns, log_flows, place, first = self._states()
        left, right = columns.T
        probs = log_flows.exp().float()
        on, off = ((known & (x == value))[:, 0] for value in (1, 0))  # [B, H, W]
        num_known = known[:, 0].sum(-1)  # [B, H]
        onward, messages = probs.new_ones(len(x), len(columns)), []
        for t in reversed(range(self.height)):
            # number of known pixels of the row that agree with each state
            wet, dry = on[:, t].int(), off[:, t].int()
            agree = dry.sum(-1, keepdim=True) + (wet - dry)[:, left] + ((wet - dry)[:, right] * (left != right))
            message = onward * (agree == num_known[:, t, None])  # of the known pixels in this row and below
            messages.append(message / message.amax(1, keepdim=True).clamp(min=1e-30))
            onward = (messages[-1][:, place] * probs).sum(-1)
        rows, uniforms = [], widest(rand((len(x), self.height), streams, self.device))
        options, weights = first.expand(len(x), -1), messages[-1][:, first]
        if not weights.any(1).all():
            raise DataError("complete: expected known pixels that some river has, found an image that no river fits")
        for t in range(self.height):
            cumulative = widest(weights).cumsum(1)
            choice = (uniforms[:, t, None] * cumulative[:, -1:] >= cumulative).sum(1, keepdim=True)
            state = options.gather(1, choice)[:, 0]
            rows.append(F.one_hot(columns[state], self.width).amax(1))
            options = place[state]
            if t + 1 < self.height:
                weights = probs[state] * messages[-2 - t].gather(1, options)
        return torch.stack(rows, 1)[:, None].to(x)

    def entropy(self) -> float:
        columns, log_flows, place, first = self._states()
        probs = log_flows.exp()
        entropies = -(probs * log_flows.where(probs > 0, 0)).sum(-1)
        state = torch.zeros(len(columns), dtype=widest_dtype(self.device), device=self.device)
        state[first] = 1 / self.width
        entropy = math.log(self.width)
        for _ in range(self.height - 1):
            entropy += float(state @ entropies)
            state = torch.zeros_like(state).index_add_(0, place.flatten(), (state[:, None] * probs).flatten())
        return entropy

    def gather(self, x: Tensor, *, generator: Source = None) -> dict[str, Tensor]:
        return {}

    def finish(self, statistics: dict[str, Tensor]) -> None:
        """Does nothing, since nothing is fitted."""
