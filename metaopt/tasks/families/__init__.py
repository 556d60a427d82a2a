"""Task families: distributions over tasks. `FAMILIES` holds the bundled ones, a line for each."""

from metaopt.tasks.families.autoencoders import (
    DIGITS_AUTOENCODER,
    DIGITS_LOG_AUTOENCODER,
    DIGITS_VAE,
    FACES_AUTOENCODER,
    MNIST_AUTOENCODER,
    MNIST_VAE,
)
from metaopt.tasks.families.class_means import CLASS_MEANS
from metaopt.tasks.families.digits import DIGITS_CONV, DIGITS_LOGISTIC, DIGITS_MLP, DIGITS_RESNET, DIGITS_VIT
from metaopt.tasks.families.faces import FACES_CONV, FACES_MLP
from metaopt.tasks.families.fields import NEURAL_FIELD
from metaopt.tasks.families.language import TEXT_GRU, TEXT_LSTM, TEXT_RNN, TEXT_TRANSFORMER
from metaopt.tasks.families.learned_optimizer import LEARNED_OPTIMIZER_TASK
from metaopt.tasks.families.matrix_completion import MATRIX_COMPLETION
from metaopt.tasks.families.mnist import MNIST_CONV, MNIST_MLP
from metaopt.tasks.families.mnist1d import MNIST1D_CONV, MNIST1D_MLP
from metaopt.tasks.families.modular import MODULAR_ARITHMETIC
from metaopt.tasks.families.mu import DIGITS_MLP_MU, TEXT_TRANSFORMER_MU
from metaopt.tasks.families.physics_informed import PHYSICS_INFORMED
from metaopt.tasks.families.quadratic import QUADRATIC
from metaopt.tasks.families.sequences import BINARY_ADDITION, XOR
from metaopt.tasks.families.tabular import TABULAR_CLASSIFICATION, TABULAR_REGRESSION
from metaopt.tasks.families.textures import TEXTURES_CONV, TEXTURES_MLP
from metaopt.tasks.task import Family

__all__ = ["FAMILIES"]

FAMILIES: tuple[Family, ...] = (
    QUADRATIC,
    DIGITS_MLP,
    DIGITS_MLP_MU,
    DIGITS_CONV,
    DIGITS_LOGISTIC,
    DIGITS_RESNET,
    DIGITS_VIT,
    MNIST_MLP,
    MNIST_CONV,
    FACES_MLP,
    FACES_CONV,
    TEXTURES_MLP,
    TEXTURES_CONV,
    MNIST1D_MLP,
    MNIST1D_CONV,
    TABULAR_CLASSIFICATION,
    TABULAR_REGRESSION,
    DIGITS_AUTOENCODER,
    DIGITS_LOG_AUTOENCODER,
    MNIST_AUTOENCODER,
    FACES_AUTOENCODER,
    DIGITS_VAE,
    MNIST_VAE,
    TEXT_RNN,
    TEXT_GRU,
    TEXT_LSTM,
    TEXT_TRANSFORMER,
    TEXT_TRANSFORMER_MU,
    XOR,
    BINARY_ADDITION,
    LEARNED_OPTIMIZER_TASK,
    MODULAR_ARITHMETIC,
    MATRIX_COMPLETION,
    NEURAL_FIELD,
    PHYSICS_INFORMED,
    CLASS_MEANS,
)
