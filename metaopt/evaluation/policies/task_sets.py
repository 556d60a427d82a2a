"""On what a policy is evaluated: new tasks of what it was trained on, families that it never met, tiny tables, and much longer runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from metaopt.artifacts import Artifact
from metaopt.errors import ConfigError
from metaopt.learners.policies.timing import decision_steps
from metaopt.names import nearest
from metaopt.seeds import stable_hash
from metaopt.tasks import get as get_family
from metaopt.tasks import names as family_names
from metaopt_envs.settings import Bucket
from metaopt_envs.task_pool import PoolFamily, TaskPool

__all__ = [
    "DECISIONS",
    "HELD_OUT",
    "SETS",
    "TINY",
    "TaskSet",
    "held_out_draws",
    "held_out_families",
    "long_horizons",
    "named_set",
    "tiny_tables",
    "trained_families",
]

SETS = ("draws", "families", "tiny", "10x", "100x")

DECISIONS = 32
SEED = 1  # training draws its tasks with 0
TINY = ("tabular_classification", "tabular_regression")
# Cheap ones of every kind of loss: those that the policy was not trained on are used.
HELD_OUT = ("digits_autoencoder", "mnist_mlp", "textures_mlp", "matrix_completion", "binary_addition", "text_transformer")


@dataclass(frozen=True)
class TaskSet:
    """Tasks that are reported together.

    Attributes:
        name: as in tables.
        buckets: which runs; each has all tasks of one template and horizon.
        full: whether to compare with the whole grid and with other budgets. Long runs leave them out: they cost four hundred times the run.
    """

    name: str
    buckets: tuple[Bucket, ...]
    full: bool = True


def trained_families(artifact: Artifact) -> tuple[PoolFamily, ...]:
    """Return the families that a policy was trained on, from its card.

    Raises:
        ConfigError: the card has none.
    """
    entries = artifact.card["training"]["distribution"]
    if not entries:
        raise ConfigError(f"artifact {artifact.name!r}: its card names no families that it was trained on; give the sets of tasks yourself")
    return tuple(PoolFamily(one["family"], tuple(one["horizon"]), one["weight"], one.get("templates") or 0) for one in entries)


def named_set(name: str, trained: Sequence[PoolFamily], tasks: int = 1, templates: int = 4, decisions: int = DECISIONS) -> TaskSet:
    """Return one of `SETS`; arguments as of `held_out_draws`, but that the long horizons have one task each, of two families and of one.

    Raises:
        ConfigError: no such set.
    """
    makers: dict[str, Callable[[], TaskSet]] = {
        "draws": lambda: held_out_draws(trained, tasks, templates, decisions),
        "families": lambda: held_out_families(trained, tasks=tasks, templates=templates, decisions=decisions),
        "tiny": lambda: tiny_tables(trained, tasks, templates, decisions),
        "10x": lambda: long_horizons(trained, 10, decisions=decisions),
        "100x": lambda: long_horizons(trained, 100, 1, decisions=decisions),
    }
    if name not in makers:
        raise ConfigError(f"set of tasks {name!r} is unknown{nearest(name, SETS)}")
    return makers[name]()


def held_out_draws(
    trained: Sequence[PoolFamily], tasks: int = 1, templates: int = 4, decisions: int = DECISIONS, inner: str = "adamw"
) -> TaskSet:
    """Return other tasks of the templates of training, at other horizons of the same range.

    Args:
        trained: families with their horizons.
        tasks: of each template and horizon; there are two horizons a template.
        templates: at most so many of each family, 0 for all.
        decisions: of each run, as far as it has room for them.
        inner: inner optimizer.
    """
    families = tuple(replace(one, templates=min(filter(None, (templates, one.templates)), default=0)) for one in trained)
    pool = TaskPool(families, tasks=tasks, seed=SEED)
    return TaskSet("held-out draws", _buckets(pool, decisions, inner))


def held_out_families(
    trained: Sequence[PoolFamily],
    names: Sequence[str] = HELD_OUT,
    tasks: int = 1,
    templates: int = 4,
    decisions: int = DECISIONS,
    inner: str = "adamw",
) -> TaskSet:
    """Return tasks of the `meta_test` templates of families that training did not have, over its horizons.

    Raises:
        ConfigError: none is left.
    """
    known = {one.name for one in trained}
    horizon = min(one.horizon[0] for one in trained), max(one.horizon[1] for one in trained)
    families = tuple(PoolFamily(name, horizon, 1.0, templates) for name in names if name not in known and name in family_names())
    if not families:
        raise ConfigError(f"no family is held out: the policy was trained on {', '.join(sorted(known))}")
    return TaskSet("held-out families", _buckets(TaskPool(families, tasks=tasks, split="meta_test", seed=SEED), decisions, inner))


def tiny_tables(
    trained: Sequence[PoolFamily], tasks: int = 1, templates: int = 4, decisions: int = DECISIONS, inner: str = "adamw"
) -> TaskSet:
    """Return nets on tables of some hundred rows, `meta_test` templates, over the horizons of training: their training loss goes to 0."""
    horizon = min(one.horizon[0] for one in trained), max(one.horizon[1] for one in trained)
    families = tuple(PoolFamily(name, horizon, 1.0, templates) for name in TINY)
    return TaskSet("tiny tables", _buckets(TaskPool(families, tasks=tasks, split="meta_test", seed=SEED), decisions, inner))


def long_horizons(
    trained: Sequence[PoolFamily], factor: int, families: int = 2, tasks: int = 1, decisions: int = DECISIONS, inner: str = "adamw"
) -> TaskSet:
    """Return tasks of the first families of training that run `factor` times as long as its longest runs."""
    longest = factor * max(one.horizon[1] for one in trained)
    buckets = []
    for one in trained[:families]:
        template = get_family(one.name).templates("meta_train")[0]
        draws = tuple(stable_hash("long run", one.name, factor, i) for i in range(tasks))
        buckets.append(Bucket(one.name, template, longest, 1, draws, inner))
    return TaskSet(f"{factor}x horizon", tuple(_planned(bucket, decisions) for bucket in buckets), full=False)


def _buckets(pool: TaskPool, decisions: int, inner: str) -> tuple[Bucket, ...]:
    return tuple(_planned(replace(bucket, inner=inner), decisions) for buckets in pool.kinds.values() for bucket in buckets)


def _planned(bucket: Bucket, decisions: int) -> Bucket:
    return replace(bucket, decisions=len(decision_steps(bucket.horizon, decisions)))
