"""The same flow in JAX: diffrax, jitted, on the CPU."""

import math
from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import torch
from harness import TOLERANCE
from torch import Tensor, nn

from cnflib.nets import MLP
from peers import Probe

Weights = list[tuple[jax.Array, jax.Array]]


class Diffrax:
    """diffrax's Dopri5 with its PID controller, the trace by ``jax.vjp``, the gradient by its checkpointed adjoint."""

    def __init__(self, mlp: MLP, probe: Probe, tolerance: float = TOLERANCE) -> None:
        layers = [layer for layer in mlp.net if isinstance(layer, nn.Linear)]
        self.weights: Weights = [
            tuple(jnp.array(p.detach().numpy()) for p in (m.weight, m.bias)) for m in layers
        ]
        self.estimated, self.key = probe is not None, jax.random.PRNGKey(0)
        self.control = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        self.moments = (jax.tree.map(jnp.zeros_like, self.weights),) * 2
        self._log_prob, self._sample, self._train = map(jax.jit, (self.density, self.decode, self.update))

    def density(self, weights: Weights, x: jax.Array, eta: jax.Array) -> tuple[jax.Array, jax.Array]:
        solution = self.solve(self.rates, (x, jnp.zeros(len(x))), (weights, eta), 1.0, 0.0)
        z, logdet = (y[0] for y in solution.ys)
        log_normal = -0.5 * ((z**2).sum(1) + z.shape[1] * math.log(2 * math.pi))
        return log_normal + logdet, solution.stats["num_steps"]

    def decode(self, weights: Weights, z: jax.Array) -> jax.Array:
        return self.solve(lambda t, x, w: velocity(w, t, x), z, weights, 0.0, 1.0).ys[0]

    def rates(self, t: float, state: tuple, parts: tuple[Weights, jax.Array]) -> tuple[jax.Array, jax.Array]:
        (weights, eta), (x, _) = parts, state
        v, pull = jax.vjp(lambda y: velocity(weights, t, y), x)
        if self.estimated:
            return v, (pull(eta)[0] * eta).sum(1)
        axes = jnp.broadcast_to(jnp.eye(x.shape[1])[:, None], (x.shape[1], *x.shape))
        return v, jnp.einsum("ibi->b", jax.vmap(pull)(axes)[0])

    def solve(self, rates: Callable, state: object, parts: object, start: float, end: float) -> object:
        term = diffrax.ODETerm(rates)
        return diffrax.diffeqsolve(
            term, diffrax.Dopri5(), start, end, None, state, parts, stepsize_controller=self.control
        )

    def update(self, weights: Weights, moments: tuple, x: jax.Array, key: jax.Array) -> tuple:
        """A step of Adam at a learning rate of 0."""
        eta = jax.random.rademacher(key, x.shape, dtype=x.dtype)
        gradient = jax.grad(lambda w: -self.density(w, x, eta)[0].mean())(weights)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
        second = jax.tree.map(lambda m, g: 0.999 * m + 0.001 * g**2, moments[1], gradient)
        step = jax.tree.map(lambda w, m, s: w - 0.0 * m / (jnp.sqrt(s) + 1e-8), weights, first, second)
        return step, (first, second)

    def log_prob(self, x: Tensor, eta: Tensor | None = None) -> Tensor:
        rows = jnp.array(x.numpy())
        self.key, key = jax.random.split(self.key)
        eta = (
            jax.random.rademacher(key, rows.shape, dtype=rows.dtype)
            if eta is None
            else jnp.array(eta.numpy())
        )
        value, self.steps = self._log_prob(self.weights, rows, eta)
        return torch.from_numpy(np.array(value.block_until_ready()))

    def sample(self, z: Tensor) -> Tensor:
        return torch.from_numpy(
            np.array(self._sample(self.weights, jnp.array(z.numpy())).block_until_ready())
        )

    def training_step(self, x: Tensor) -> Callable[[], None]:
        rows = jnp.array(x.numpy())

        def step() -> None:
            self.key, key = jax.random.split(self.key)
            self.weights, self.moments = jax.block_until_ready(
                self._train(self.weights, self.moments, rows, key)
            )

        return step

    def evaluations(self, x: Tensor) -> int:
        """Six a step, and one or two before the first, which diffrax does not count."""
        self.log_prob(x)
        return 6 * int(self.steps) + 2


def velocity(weights: Weights, t: float, x: jax.Array) -> jax.Array:
    h = jnp.concatenate([x, jnp.full((len(x), 1), t)], 1)
    for W, b in weights[:-1]:
        h = jnp.tanh(h @ W.T + b)
    W, b = weights[-1]
    return h @ W.T + b
