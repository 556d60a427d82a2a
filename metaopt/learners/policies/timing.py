"""When a policy looks and when it acts: the same steps in training and in deployment.

A run has steps 0, 1, .. total_steps - 1. Decision k falls before step s_k: `PROBE_STEPS` steps come first, so that decision 0 has something
to look at, and the rest is cut into as many segments as there are decisions, of lengths that differ by one at most. A run that is too short
for the decisions that were asked for gets fewer: no segment is shorter than `SHORTEST_SEGMENT` steps. The last segment ends with the run.

Statistics are measured at every `EVERY`-th step before a decision, at one at least and at `MOST` at most: where decisions are far apart
the measured steps are too, so that measuring costs a long run next to nothing. They are evenly spaced and the last one is the very step
before the decision. After the last decision nothing is measured, because nothing reads it.

Source: Almeida et al., 2021, "A generalizable approach to learning optimizers" (2106.00958) and its code: decisions evenly spaced,
statistics every 4th step. Differs: the probe steps, the bound `MOST`.
"""

from metaopt.errors import ConfigError

__all__ = ["EVERY", "MOST", "PROBE_STEPS", "SHORTEST_SEGMENT", "decision_steps", "measured_steps"]

PROBE_STEPS = 4
SHORTEST_SEGMENT = 4
EVERY = 4
MOST = 4


def decision_steps(total_steps: int, decisions: int) -> tuple[int, ...]:
    """Return s_0 < s_1 < .. < total_steps; decision k falls when s_k steps have been taken.

    The number of decisions is `decisions`, or what fits: at most one for `SHORTEST_SEGMENT` steps after the probe steps, which are half
    of a run of less than 8 steps. A run of one step has no decision.

    Args:
        total_steps: length of the run, >= 1.
        decisions: how many are wanted, >= 1.

    Raises:
        ConfigError: an argument that is no such count.
    """
    for name, value in (("total_steps", total_steps), ("decisions", decisions)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} must be an integer >= 1, got {value!r}")
    if total_steps == 1:
        return ()
    probe = min(PROBE_STEPS, total_steps // 2)
    rest = total_steps - probe
    count = min(decisions, max(1, rest // SHORTEST_SEGMENT))
    return tuple(probe + k * rest // count for k in range(count))


def measured_steps(begin: int, end: int) -> tuple[int, ...]:
    """Return the steps in [begin, end), ascending, that statistics are measured at, for a decision that falls before step `end`.

    Step i is the update that i others came before. The first decision has begin = 0.
    """
    length = end - begin
    count = min(MOST, max(1, length // EVERY))
    return tuple(begin + (j + 1) * length // count - 1 for j in range(count))
