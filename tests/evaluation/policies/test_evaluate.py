"""The whole evaluation, on a policy that does nothing: it is AdamW, on the same seeds."""

import dataclasses
import json

import numpy as np
import pytest

from metaopt.artifacts import load
from metaopt.baselines.reference import references
from metaopt.errors import ConfigError
from metaopt.evaluation.policies import PolicyEvaluationSetup, TaskSet, default_sets, evaluate_policy, report_text
from metaopt.evaluation.policies.rivals import DEFAULT, GRID
from metaopt.evaluation.policies.rows import (
    COSINE,
    POLICY,
    RANDOM,
    REPLAY_CHANGES,
    REPLAY_RATES,
    TUNED,
    UNGUARDED,
    UNTRAINED,
    WIDE_COSINE,
)
from tests.evaluation.policies.made_policies import SMALL, constant, loud


def losses(found, who):
    own = found.runs[found.runs.who == who].sort_values(["task", "seed"])
    return own.loss.to_numpy()


def test_a_policy_that_keeps_everything_is_adamw_on_the_same_seeds(kept):
    assert losses(kept, POLICY) == pytest.approx(losses(kept, DEFAULT), rel=1e-5)


@pytest.mark.parametrize("who", [UNGUARDED, REPLAY_CHANGES, REPLAY_RATES])
def test_so_are_its_variants(kept, who):
    assert losses(kept, who) == pytest.approx(losses(kept, POLICY), rel=1e-6)
    assert (kept.rewards[kept.rewards.who == who].wins == 0.5).all()


def test_it_needs_as_many_steps_as_adamw(kept):
    row = kept.factors[(kept.factors.family == "all") & (kept.factors.against == "AdamW 0.001")].iloc[0]
    assert row.factor <= 1.0 + 1e-6  # the same run, and its curve may have been as low before
    assert row["median"] > 0.5


def test_everybody_runs_on_every_task_and_seed(kept):
    counts = kept.runs.groupby("who").size()
    assert set(counts) == {4}
    assert {POLICY, UNTRAINED, RANDOM, COSINE, WIDE_COSINE, TUNED, *GRID} < set(counts.index)
    assert kept.runs.task.nunique() == 2
    assert losses(kept, RANDOM) != pytest.approx(losses(kept, POLICY))


def test_the_table_counts_what_the_rows_say(kept):
    row = kept.comparison[kept.comparison.family == "all"].iloc[0]
    means = kept.runs[kept.runs.who.isin(GRID)].groupby("who").reward.mean()
    mine = kept.runs[kept.runs.who == POLICY].reward.mean()
    assert row.reward == pytest.approx(mine)
    assert row.median_reward == pytest.approx(np.median(means))
    assert row.best_reward == pytest.approx(means.max())
    assert row.beaten == pytest.approx((means < mine - 1e-9).mean())
    shown = kept.rewards[kept.rewards.family == "all"].set_index("who")
    for who in (COSINE, TUNED, RANDOM):
        won = np.mean(losses(kept, POLICY) < losses(kept, who))
        assert shown.wins[who] == pytest.approx(won)
        assert shown.reward_best[who] == pytest.approx(kept.runs[kept.runs.who == who].reward_best.mean())
        assert shown.ahead_best[who] == pytest.approx(shown.reward_best[POLICY] - shown.reward_best[who])
    best = {who: np.mean(losses(kept, who)) for who in (COSINE, WIDE_COSINE)}
    assert best[WIDE_COSINE] <= best[COSINE]


def test_json_is_plain_and_the_same_again(kept, tmp_path):
    content = json.loads(kept.to_json())
    assert content["about"]["artifact"].startswith("kept@")
    assert {"rewards", "comparison", "factors", "grid", "rejected"} < content.keys()
    assert "runs" not in content
    written = kept.save(tmp_path)
    assert written[0].read_text() == kept.to_json()
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == len(kept.runs) + 1


@pytest.mark.slow
def test_no_number_depends_on_the_pool(kept, baseline_store):
    from metaopt.cluster import LocalPool

    again = evaluate_policy(constant("kept", registers=False), [SMALL], 2, baseline_store, LocalPool(PolicyEvaluationSetup(), 1))
    assert again.to_json() == kept.to_json()


@pytest.mark.slow
def test_what_a_policy_is_given_it_sees(baseline_store):
    def found(**options):
        return [losses(evaluate_policy(loud(seed), [SMALL], 1, baseline_store, **options), POLICY).tolist() for seed in range(3)]

    without = found()
    assert without != found(eval_loss=True)
    assert without != found(registers=True)


@pytest.mark.slow
def test_long_runs_have_no_grid_but_a_cosine(baseline_store):
    light = TaskSet("long", SMALL.buckets, full=False)
    found = evaluate_policy(constant(), [light], 2, baseline_store)
    assert found.factors.empty
    assert found.grid.empty
    assert TUNED not in set(found.rewards.who)
    assert {COSINE, WIDE_COSINE} < set(found.rewards.who)
    assert found.rewards.wins.notna().all()


def test_bad_input_is_one_line():
    with pytest.raises(ConfigError, match=r"seeds must be in 1 .. 5, got 6"):
        evaluate_policy(constant(), [SMALL], seeds=6)
    with pytest.raises(ConfigError, match="names no families"):
        default_sets(constant())
    with pytest.raises(ConfigError, match="is of kind update_rule, no policy"):
        evaluate_policy(load("celo2-base"), [SMALL])


def unscored(which):
    """References of which those at the given places cannot be inverted."""

    def found(specs, store=None, pool=None):
        every = references(specs, store, pool)
        bad = [dataclasses.replace(one, default=dataclasses.replace(one.default, degenerate="the curve is flat")) for one in every]
        return [bad[i] if i in which else one for i, one in enumerate(every)]

    return found


def test_a_task_that_cannot_be_scored_counts_in_everything_else(kept, baseline_store, monkeypatch):
    monkeypatch.setattr("metaopt.evaluation.policies.rivals.references", unscored({0}))
    found = evaluate_policy(constant("kept", registers=False), [SMALL], 2, baseline_store)
    assert found.rejected == {"small": {"default": {"the curve is flat": 1}, "best_constant": {}}}
    mine = found.runs[found.runs.who == POLICY]
    assert mine.reward.isna().tolist().count(True) == 2
    assert mine.reward_best.notna().all()
    assert losses(found, POLICY).tolist() == losses(kept, POLICY).tolist()
    assert found.factors.factor.tolist() == pytest.approx(kept.factors.factor.tolist())
    row = found.comparison[found.comparison.family == "all"].iloc[0]
    assert row.reward == pytest.approx(mine.reward.dropna().mean())
    assert row.tasks == 2
    json.loads(found.to_json())


def test_without_any_reward_the_rest_is_told(baseline_store, monkeypatch):
    monkeypatch.setattr("metaopt.evaluation.policies.rivals.references", unscored({0, 1}))
    found = evaluate_policy(constant("kept", registers=False), [SMALL], 2, baseline_store)
    assert found.rewards.reward.isna().all()
    assert found.rewards.wins.notna().all()
    assert "2 tasks cannot be scored" in report_text(found)
    assert "nan" not in report_text(found)
