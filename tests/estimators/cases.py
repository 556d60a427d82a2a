"""Every bundled estimator under every option that changes what it does, with windows short enough to be fast."""

from metaopt.estimators import ESTIMATORS, Recipe

WINDOW = 3

OPTIONS: dict[str, tuple[dict[str, object], ...]] = {
    "nres": ({}, {"difference": "sign"}, {"difference": "normalised", "difference_clip": 1.0}),
    "pes": ({}, {"difference": "normalised"}),
    "gpes": ({}, {"reuse_steps": 2 * WINDOW}),
    "es_single": ({},),
    "truncated_es": ({}, {"difference": "sign"}),
    "full_es": ({}, {"objective": "last", "difference": "sign"}),
    "truncated_backprop": ({}, {"objective": "last", "clip": 0.01}),
    "full_backprop": ({}, {"objective": "last", "checkpoint_steps": 2}),
    "forward_mode": ({}, {"tangents": 2, "clip": 0.01, "objective": "last"}),
    "uoro": ({},),
}

CASES: dict[str, Recipe] = {
    " ".join([name, *(f"{key}={value}" for key, value in options.items())]): ESTIMATORS[name](window=WINDOW, **options)
    for name, variants in OPTIONS.items()
    for options in variants
}
