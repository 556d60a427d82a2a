"""The raw loss that a well-tuned known optimizer reaches on each family: the zero of its normalised loss.

A normaliser is `(raw - floor) / (reference - floor)`, where the reference is the loss of the trivial predictor, so that initialisation is
near 1 and a tuned optimizer near 0. One measured constant a family, by `scripts/measure_floors.py`; a family without one has 0.

`digits_mlp` (0.0397) and `digits_conv` (0.286) stay at 0: shipped artifacts, suites and published results rest on their scale.
"""

__all__ = ["FLOORS", "floor"]

FLOORS: dict[str, float] = {
    "digits_mlp_mu": 0.0446,
    "digits_logistic": 0.127,
    "digits_resnet": 0.355,
    "digits_vit": 0.217,
    "mnist_mlp": 0.32,
    "mnist_conv": 0.325,
    "faces_mlp": 0.00182,
    "faces_conv": 0.00116,
    "textures_mlp": 0.917,
    "textures_conv": 0.621,
    "mnist1d_mlp": 1.4,
    "mnist1d_conv": 1.05,
    "tabular_classification": 0.0301,
    "tabular_regression": 0.463,
    "digits_autoencoder": 0.19,
    "digits_log_autoencoder": 0.31,
    "digits_vae": 1.14,
    "mnist_autoencoder": 0.209,
    "mnist_vae": 1.4,
    "faces_autoencoder": 0.0677,
    "text_rnn": 2.3,
    "text_gru": 2.39,
    "text_lstm": 2.38,
    "text_transformer": 2.4,
    "text_transformer_mu": 2.43,
    "neural_field": 0.053,
}


def floor(family: str) -> float:
    """Return the floor of a family in units of its raw loss, 0.0 unless one was measured."""
    return FLOORS.get(family, 0.0)
