"""What the short-horizon laboratory shows: tables, JSON and figures of `tasks.oracles.horizon_bias` and `estimators.short_horizon`."""

from metaopt.evaluation.short_horizon.figures import bias_figure, horizon_figure, network_figure
from metaopt.evaluation.short_horizon.tables import as_json, network_table, rules_table, spectra_table

__all__ = ["as_json", "bias_figure", "horizon_figure", "network_figure", "network_table", "rules_table", "spectra_table"]
