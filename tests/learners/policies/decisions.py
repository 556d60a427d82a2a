"""Decisions to observe, and a second implementation of what is seen at them."""

import math
from dataclasses import dataclass, field

import torch

from metaopt.learners.policies import (
    END_WEIGHTS,
    INPUT_LIMIT,
    INPUTS,
    KNOBS,
    LOSS_LIMIT,
    MOVE_LIMIT,
    NAMES,
    STATISTICS,
    TABLES,
    Measured,
    head_mask,
    observation_start,
    observe,
    perturbed,
    start_values,
    turned,
)
from metaopt.learners.policies.observation import ROUNDING

NAN, INF = math.nan, math.inf
COLUMN = {name: index for index, name in enumerate(NAMES)}
CDFS = [index for index, name in enumerate(NAMES) if name.endswith(tuple(f"_cdf_{end:g}" for end in END_WEIGHTS))]


def measured(**given):
    """A decision in the middle of an uneventful run, with what is given in its place."""
    defaults = {
        "statistics": torch.linspace(-1, 1, 13),
        "train_loss": 1.0,
        "eval_loss": 1.1,
        "has_eval": True,
        "update_norm": 0.5,
        "param_norm": 3.0,
        "progress": 0.5,
        "values": start_values(),
        "start": start_values(),
        "action": torch.full((9,), -1),
        "head_mask": head_mask(),
        "register_loss": torch.zeros(3),
        "register_filled": torch.zeros(3, dtype=torch.bool),
        "register_progress": torch.zeros(3),
    }
    return Measured(**{name: torch.as_tensor(value) for name, value in (defaults | given).items()})


def play(decisions, **options):
    """Rows [k, I] at all decisions."""
    state, rows = observation_start(), []
    for decision in decisions:
        state, row = observe(state, decision, **options)
        assert row.shape == (INPUTS,)
        assert row.dtype == torch.float32
        assert row.isfinite().all()
        assert row.abs().max() <= INPUT_LIMIT
        rows.append(row)
    return torch.stack(rows)


def column(rows, name):
    return rows[..., COLUMN[name]].tolist()


def cdf_columns(rows, of):
    return rows[..., [COLUMN[f"{of}_cdf_{end:g}"] for end in END_WEIGHTS]]


def episode(decisions=12, seed=0, bad=0.1, mask=None, eval_share=0.8, table=TABLES["wide"]):
    """A run with all that can happen to one: losses, norms and statistics that break, evaluations that are left out, registers in use."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def broken(x):
        worst = torch.tensor([NAN, INF, 0.0, -0.5])[torch.randint(4, x.shape, generator=generator)]
        return torch.where(draw(*x.shape) < bad, worst, x)

    mask = head_mask() if mask is None else mask
    start = perturbed(start_values(), draw(8), mask[1:])
    values, action, result = start, torch.full((9,), -1), []
    filled, progress = torch.zeros(3, dtype=torch.bool), torch.zeros(3)
    for k in range(decisions):
        losses = broken(torch.exp(-2 * k / decisions + 0.3 * draw(2)).float())
        result.append(
            measured(
                statistics=broken((4 * draw(13) - 2).float()),
                train_loss=losses[0],
                eval_loss=losses[1],
                has_eval=draw() < eval_share,
                update_norm=torch.zeros(()) if k == 0 else broken(draw().float()).abs(),
                param_norm=broken((3 + draw()).float()).abs(),
                progress=k / decisions,
                values=values,
                start=start,
                action=action,
                head_mask=mask,
                register_loss=broken(draw(3).float()),
                register_filled=filled,
                register_progress=progress,
            )
        )
        action = torch.stack([torch.randint(n, (), generator=generator) for n in table.nvec])
        values = turned(table, values, action, mask[1:])
        new = draw(3) < 0.3
        filled, progress = filled | new, torch.where(new, k / decisions, progress)
    return result


# A second implementation, in Python floats, from lists of everything that was seen.


@dataclass
class History:
    values: list[float] = field(default_factory=list)
    skipped: int = 0

    def push(self, x):
        """CDFs with x as the next value; None takes the last one's place and is told as 1/2, not finite likewise and is told as 1."""
        usable = x is not None and math.isfinite(x)
        if not self.values and not usable:
            self.skipped += 1
        else:
            self.values += [x] * (1 + self.skipped) if usable else [self.values[-1]]
            self.skipped = 0
        if x is None:
            return [0.5] * len(END_WEIGHTS)
        return self.cdfs() if usable else [1.0] * len(END_WEIGHTS)

    def cdfs(self):
        k, result = len(self.values), []
        moved = [x - self.values[-1] for x in self.values]
        for end in END_WEIGHTS:
            weights = [1 + (end - 1) * (i + 0.5) / k for i in range(k)]
            mean = math.fsum(w * x for w, x in zip(weights, moved, strict=True)) / math.fsum(weights)
            variance = math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, moved, strict=True)) / math.fsum(weights)
            z = -mean / math.sqrt(variance + ROUNDING**2) if variance else 0.0
            result.append(0.5 * math.erfc(-z / math.sqrt(2)))
        return result


def log_ratio(over, under, limit):
    if over == under:
        return 0.0
    return math.log(min(max(over / under if under else INF, 1 / limit), limit)) if under != INF else -math.log(limit)


def reference(decisions, table=TABLES["wide"]):
    histories = {name: History() for name in (*STATISTICS, "ratio", "move", "norm", "train", "eval")}
    first, last = {}, {}
    rows = []
    for k, m in enumerate(decisions):
        nothing = bool(m.statistics.isnan().all())
        cdfs = {name: histories[name].push(None if nothing else float(x)) for name, x in zip(STATISTICS, m.statistics, strict=True)}
        train, evaluation = float(m.train_loss), float(m.eval_loss) if m.has_eval else None
        logs = {}
        for name, loss in (("train", train), ("eval", evaluation)):
            if loss is None or not math.isfinite(loss):
                logs[name] = loss and NAN
                continue
            if loss > 0:
                first.setdefault(name, loss)
            logs[name] = log_ratio(loss, first[name], LOSS_LIMIT) if loss > 0 else -math.log(LOSS_LIMIT)
        ratio, no_ratio = None, False
        if evaluation is not None:
            no_ratio = not (math.isfinite(train) and math.isfinite(evaluation))
            ratio = NAN if no_ratio else log_ratio(max(evaluation, 0.0), max(train, 0.0), LOSS_LIMIT)
        moves = {}
        for name, norm in (("move", float(m.update_norm)), ("norm", float(m.param_norm))):
            if name == "move" and k == 0:
                moves[name] = None
                continue
            moves[name] = INF
            if math.isfinite(norm):
                moves[name] = log_ratio(norm, last[name], MOVE_LIMIT) if name in last else None
                last[name] = norm
        cdfs |= {name: histories[name].push(x) for name, x in {"ratio": ratio, **moves, **logs}.items()}
        now = train if evaluation is None else evaluation
        restart = []
        for loss, filled in zip(m.register_loss.tolist(), m.register_filled.tolist(), strict=True):
            stored, present = (max(x, 0.0) if math.isfinite(x) else INF for x in (loss, now))
            restart.append(math.tanh(log_ratio(stored, present, LOSS_LIMIT)) if filled and m.head_mask[0] else 0.0)
        kept = [
            float(m.progress) - float(p) if filled and m.head_mask[0] else 1.0
            for p, filled in zip(m.register_progress, m.register_filled, strict=True)
        ]
        changes = []
        for knob, (now_at, began_at, acts) in enumerate(zip(m.values.tolist(), m.start.tolist(), m.head_mask[1:].tolist(), strict=True)):
            odds = [x / (1 - x) if KNOBS[knob] == "clip_ratio" else x for x in (now_at, began_at)]
            changes.append(math.log(odds[0] / odds[1]) if acts else 0.0)
        previous = []
        keeps = {"clip_ratio": 0.0}
        widths = TABLES["published"].nvec
        for head, (choice, acts) in enumerate(zip(m.action.tolist(), m.head_mask.tolist(), strict=True)):
            part, choices = [0.0] * table.nvec[head], () if head == 0 else table.factors[head - 1]
            if choice >= 0 and acts:
                part[choice] = 1.0
            if len(part) > widths[head]:
                del part[choices.index(keeps.get(KNOBS[head - 1], 1.0))]
            previous += part
        rows.append(
            [0.0 if math.isnan(x) else x for x in m.statistics.tolist()]
            + [x for name in STATISTICS for x in cdfs[name]]
            + [float(m.progress), *previous]
            + [float(no_ratio), 0.0 if ratio is None or no_ratio else math.tanh(ratio), *cdfs["ratio"]]
            + [math.tanh(moves["move"] or 0.0), *cdfs["move"], math.tanh(moves["norm"] or 0.0), *cdfs["norm"]]
            + [float(math.isnan(train)), float(math.isinf(train)), *cdfs["train"]]
            + [float(evaluation is not None and bad(evaluation)) for bad in (math.isnan, math.isinf)]
            + [*cdfs["eval"], *restart, *kept, *changes]
        )
    return torch.tensor(rows).clamp(-INPUT_LIMIT, INPUT_LIMIT)


MASKS = {
    "all": head_mask(),
    "adamw": head_mask(("lr", "weight_decay", "epsilon", "one_minus_beta2", "one_minus_beta1")),
    "lr": head_mask(("lr",), registers=False),
}
