"""The raw loss that a well-tuned known optimizer reaches on each family: the zero of its normalised loss.

A normaliser is `(raw - floor) / (reference - floor)`, where the reference is the loss of the trivial predictor, so that initialisation is
near 1 and a tuned optimizer near 0. One measured constant a family, by `scripts/measure_floors.py`; a family without one has 0.
"""

__all__ = ["FLOORS", "floor"]

FLOORS: dict[str, float] = {}


def floor(family: str) -> float:
    """Return the floor of a family in units of its raw loss, 0.0 unless one was measured."""
    return FLOORS.get(family, 0.0)
