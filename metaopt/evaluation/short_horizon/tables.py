"""Tables of the laboratory for a terminal, at most 80 columns, and all of it as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from metaopt.estimators.short_horizon import Interval, Offline, Online, interval
from metaopt.tasks.oracles.horizon_bias import Rule, SpectrumRow

__all__ = ["as_json", "network_table", "rules_table", "spectra_table"]


def rules_table(rules: Sequence[Rule]) -> str:
    """Return the final loss and the mean, first and last rate of each rule."""
    head = f"{'rule':<41} {'final loss':>10}  {'mean':>7} {'first':>7} {'last':>8}"
    lines = [head, "-" * len(head)]
    for rule in rules:
        rates = rule.rates
        lines.append(f"{rule.name:<41} {rule.final:>10.7f}  {rates.mean():>7.4f} {rates[0]:>7.4f} {rates[-1]:>8.5f}")
    return "\n".join(lines)


def spectra_table(rows: Sequence[SpectrumRow]) -> str:
    """Return final losses of greedy, the best constant and the optimal schedule, a line a problem."""
    head = f"{'spectrum':<10} {'batch':>6} {'greedy':>8} {'constant':>9} {'(rate)':>8} {'optimal':>8}"
    lines = [head, "-" * len(head)]
    for row in rows:
        rate = f"({row.constant_rate:.3f})"
        lines.append(f"{row.spectrum:<10} {row.batch_size:>6} {row.greedy:>8.4f} {row.constant:>9.4f} {rate:>8} {row.optimal:>8.4f}")
    return "\n".join(lines)


def network_table(offline: Offline, online: Online) -> str:
    """Return what look-aheads chose and led to, and what became of rates that were adapted online; means with 95 % intervals."""
    head = f"{'look-ahead':<11} {'start':>7} {'power':>7}  {'loss there':<19} {'loss at ' + str(offline.steps):<19}"
    lines = [head, "-" * len(head)]
    for row in offline.rows:
        there, final = (_shown(interval(offline.at(row, step))) for step in (row.look_ahead, offline.steps))
        start, power = (float(value.log().mean().exp()) for value in (row.start, row.power))
        lines.append(f"{row.look_ahead:<11} {start:>7.4f} {power:>7.3f}  {there:<19} {final:<19}".rstrip())
    head = f"{'online':<14} {'last rate':>10} {'of first':>9} {'momentum':>9}  {'loss at ' + str(online.moments[-1])}"
    lines += ["", head, "-" * (len(head) + 5)]
    for run in online.runs:
        rate, fall = (float(value.log().mean().exp()) for value in (run.rate[-1], run.collapse))
        final = _shown(interval(run.loss[-1].tolist()))
        lines.append(f"{run.name:<14} {rate:>10.5f} {fall:>9.3g} {float(run.momentum[-1].mean()):>9.3f}  {final}")
    return "\n".join(lines)


def as_json(
    rules: Sequence[Rule], spectra: Sequence[SpectrumRow] = (), offline: Offline | None = None, online: Online | None = None
) -> Any:
    """Return everything as lists and numbers; networks with every seed's values."""
    found: dict[str, Any] = {
        "nqm_100": [
            {"rule": rule.name, "family": rule.family, "horizon": rule.horizon, "final": rule.final, "mean_rate": float(rule.rates.mean())}
            for rule in rules
        ]
    }
    if spectra:
        found["spectra"] = [asdict(row) for row in spectra]
    if offline:
        rows = [
            {"look_ahead": row.look_ahead, "start": row.start.tolist(), "power": row.power.tolist(), "losses": row.losses.tolist()}
            for row in offline.rows
        ]
        found["offline"] = {"moments": list(offline.moments), "rows": rows}
    if online:
        runs = [
            {"name": run.name, "rate": run.rate.tolist(), "momentum": run.momentum.tolist(), "loss": run.loss.tolist()}
            for run in online.runs
        ]
        found["online"] = {"moments": list(online.moments), "skipped": online.skipped, "runs": runs}
    return found


def _shown(found: Interval) -> str:
    return f"{found.mean:.3f} [{found.low:.3f} {found.high:.3f}]"
