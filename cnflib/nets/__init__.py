"""Networks: the conditioners of a coupling and the vector field of a continuous flow."""

from cnflib.nets.conditioners import Conditioner, ConvNet
from cnflib.nets.embeddings import FourierFeatures, TimeEmbedding
from cnflib.nets.field import MLP, VectorField
from cnflib.nets.layers import Tanh, feedforward, intercepted, narrowest
from cnflib.nets.tangents import push
from cnflib.nets.unet import UNet

__all__ = [
    "MLP",
    "Conditioner",
    "ConvNet",
    "FourierFeatures",
    "Tanh",
    "TimeEmbedding",
    "UNet",
    "VectorField",
    "feedforward",
    "intercepted",
    "narrowest",
    "push",
]


def __dir__() -> list[str]:
    return sorted(__all__)
