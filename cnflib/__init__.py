"""Normalizing flows, from change of variables to stochastic interpolants.

A bijection turns data into latent and reports its log-determinant; a flow is a bijection and a base density.
Submodules load on first use: ``cnflib.models``, ``cnflib.continuous``, ``cnflib.data`` and so on.
"""

from importlib import import_module
from types import ModuleType

from cnflib.bijection import Bijection, Chain, Inverse, Standardize
from cnflib.density import Density, as_density
from cnflib.distributions import DiagonalNormal, GaussianMixture, StandardNormal
from cnflib.flow import Flow, tempered

__version__ = "0.1.0"

_SUBMODULES = (
    "adapters",
    "audit",
    "continuous",
    "data",
    "discrete",
    "interpolants",
    "metrics",
    "models",
    "nets",
    "ode",
    "plot",
    "train",
)

__all__ = [
    "Bijection",
    "Chain",
    "Density",
    "DiagonalNormal",
    "Flow",
    "GaussianMixture",
    "Inverse",
    "StandardNormal",
    "Standardize",
    "as_density",
    "tempered",
]


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return import_module(f"cnflib.{name}")
    # A name at the wrong address; plot, which loads matplotlib, is not searched.
    searched = [m for m in _SUBMODULES if m != "plot" and not name.startswith("_")]
    homes = [m for m in searched if name in import_module(f"cnflib.{m}").__all__]
    hint = f"it is cnflib.{homes[0]}.{name}" if homes else f"its submodules are {', '.join(_SUBMODULES)}"
    raise AttributeError(f"module 'cnflib' has no attribute {name!r}; {hint}.")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES, "__version__"])
