"""Groups of episodes: what an action does, what is masked, who is paid, and that nothing else has a say."""

import dataclasses

import numpy as np
import pytest
import torch

from metaopt.baselines import reference
from metaopt.errors import ConfigError, TaskError
from metaopt.learners.policies.knobs import HEADS, KNOBS, find_table
from metaopt.learners.policies.observation import INPUTS, LAYOUT, NAMES
from metaopt.learners.policies.timing import measured_steps
from metaopt.tasks.halves import DECIDING, SCORING
from metaopt_envs.critic_inputs import CRITIC_INPUTS, FAMILY_SLOTS, critic_inputs, family_slot
from metaopt_envs.group import Group, inner_start
from metaopt_envs.inner_runs import InnerRuns
from metaopt_envs.settings import Bucket, Settings

RUNS = 4
BUCKET = Bucket("quadratic", "10x1-gradient", 32, 4, (1, 2))
FULL = Settings(knob_missing=0.0, eval_missing=0.0, registers_missing=0.0)
KEEP = [0, 3, 1, 1, 1, 1, 2, 1, 1]


def action(**heads):
    chosen = [heads.get(name, keep) for name, keep in zip(HEADS, KEEP, strict=True)]
    return torch.tensor(chosen).expand(RUNS, -1).clone()


def finish(group, chosen=None):
    seen = group.begin()
    seens = [seen]
    while not seen.ended.all():
        seen = group.act(action() if chosen is None else chosen)
        seens.append(seen)
    return seens


def test_episode_is_a_function_of_seed_and_actions():
    def play(seed):
        group = Group(BUCKET, Settings(), seed, RUNS)
        seens = finish(group, action(lr=5, weight_decay=0))
        return torch.stack([s.pi for s in seens]), torch.stack([s.v for s in seens]), seens[-1].reward

    one, again, other = play(1), play(1), play(2)
    assert torch.equal(one[0], again[0])
    assert torch.equal(one[1], again[1])
    assert np.array_equal(one[2], again[2])
    assert not torch.equal(one[0], other[0])


def test_shapes_and_boxes():
    seens = finish(Group(BUCKET, Settings(), 3, RUNS))
    assert len(seens) == BUCKET.decisions + 1
    for seen in seens:
        assert seen.pi.shape == (RUNS, INPUTS)
        assert seen.v.shape == (RUNS, CRITIC_INPUTS)
        assert seen.pi.dtype == seen.v.dtype == torch.float32
        assert max(seen.pi.abs().max(), seen.v.abs().max()) <= 20
        assert seen.pi.isfinite().all()
        assert seen.v.isfinite().all()


@pytest.mark.parametrize("against", ["default", "best_constant"])
def test_reward_comes_once_and_is_the_score_of_the_final_loss(against):
    group = Group(BUCKET, dataclasses.replace(FULL, against=against), 3, RUNS)
    seens = finish(group)
    assert all((seen.reward == 0).all() for seen in seens[:-1])
    for run, row in enumerate(group.scorer.rows):
        expected = reference.score(float(seens[-1].final_loss[run]), group.scorer.found[row], against)
        assert seens[-1].reward[run] == pytest.approx(float(expected), rel=1e-6)


def test_one_half_is_looked_at_and_the_other_one_paid_for(monkeypatch):
    asked = []

    def heldout(self, half):
        asked.append(half)
        return (torch.full((RUNS,), 0.7 if half == DECIDING else 0.2),) * 2

    monkeypatch.setattr(InnerRuns, "heldout", heldout)
    group = Group(BUCKET, FULL, 3, RUNS)
    last = finish(group)[-1]
    assert asked == [DECIDING] * (BUCKET.decisions + 1) + [SCORING]
    assert torch.equal(group.loss, torch.full((RUNS,), 0.7))
    assert torch.equal(last.final_loss, torch.full((RUNS,), 0.2))
    assert np.array_equal(last.reward, group.scorer.score(last.final_loss, torch.zeros(RUNS, dtype=torch.bool)))


@pytest.mark.parametrize("missing", [0.0, 1.0])
def test_a_run_without_an_evaluation_loss_sees_nothing_of_it_and_the_critic_does(monkeypatch, missing):
    real = InnerRuns.heldout

    def seen_with(factor):
        monkeypatch.setattr(InnerRuns, "heldout", lambda self, half: tuple(loss * factor for loss in real(self, half)))
        group, seens = Group(BUCKET, dataclasses.replace(FULL, eval_missing=missing), 3, RUNS), []
        seens.append(group.begin())
        for place in range(BUCKET.decisions):  # what a register's loss is, is a look at the losses too; the scale shows from the second one
            seens.append(group.act(action(registers=4 + place % 2)))
            factor *= factor
        return (torch.stack([getattr(seen, name) for seen in seens]) for name in ("pi", "v"))

    (pi, v), (other_pi, other_v) = seen_with(1.0), seen_with(1.7)
    assert torch.equal(pi, other_pi) == (missing == 1.0)
    assert not torch.equal(v, other_v)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["quadratic", "digits_mlp"])
def test_adamw_left_alone_scores_about_zero(family):
    template = {"quadratic": "8x4-minimum", "digits_mlp": "16-tanh-b32"}[family]
    runs = 64
    group = Group(Bucket(family, template, 128, 4, tuple(range(8))), FULL, 5, runs, given=inner_start("adamw"), missing=False)
    seen = group.begin()
    while not seen.ended.all():
        seen = group.act(torch.tensor(KEEP).expand(runs, -1))
    assert abs(seen.reward.mean()) < 4 * seen.reward.std() / runs**0.5 + 0.05


def test_actions_turn_the_knobs_that_adamw_has():
    group = Group(BUCKET, FULL, 3, RUNS)
    group.begin()
    before = group.values.clone()
    group.act(action(lr=2, weight_decay=2, one_minus_beta1=0, clip_ratio=0, trust_decay=2))
    ratio = group.values / before
    assert torch.allclose(ratio[:, 0], torch.tensor(0.8, dtype=torch.float64))
    assert torch.allclose(ratio[:, 1], torch.tensor(2.0, dtype=torch.float64))
    assert torch.allclose(ratio[:, 4], torch.tensor(0.5, dtype=torch.float64))
    assert (ratio[:, 5:] == 1).all()
    assert group.head_mask.tolist() == [[True] * 6 + [False] * 3] * RUNS


def test_unitless_adam_has_all_knobs():
    group = Group(dataclasses.replace(BUCKET, inner="unitless_adam"), FULL, 3, RUNS)
    assert group.head_mask.all()
    assert finish(group)[-1].final_loss.isfinite().all()


def test_starts_are_perturbed_inside_the_published_ranges_or_given():
    group = Group(BUCKET, dataclasses.replace(FULL, highest_lr=1.0), 3, 64)
    ratio = group.start[:, 0] / 1e-3
    assert ratio.min() >= 0.01
    assert ratio.max() <= 100
    assert ratio.log().std() > 1.5
    assert torch.equal(Group(BUCKET, FULL, 3, RUNS, given=inner_start("adamw")).start, inner_start("adamw").expand(RUNS, -1))
    still = Group(BUCKET, dataclasses.replace(FULL, perturbed=0.0), 3, RUNS)
    assert torch.allclose(still.start, inner_start("adamw").expand(RUNS, -1))
    half = Group(BUCKET, dataclasses.replace(FULL, perturbed=0.5), 3, 400)
    assert (half.start[:, 0] == 1e-3).double().mean() == pytest.approx(0.5, abs=0.1)


def test_rate_stays_below_its_cap():
    assert Group(BUCKET, dataclasses.replace(FULL, highest_lr=5e-3), 3, 64).start[:, 0].max() == 5e-3
    group = Group(BUCKET, dataclasses.replace(FULL, highest_lr=5e-3), 3, RUNS)
    group.begin()
    for _ in range(3):
        group.act(action(lr=6))
        assert group.values[:, 0].max() <= 5e-3


def test_what_is_missing_is_masked_at_about_its_probability():
    settings = Settings(knob_missing=0.25, eval_missing=0.5, registers_missing=0.75)
    group = Group(BUCKET, settings, 3, 400)
    assert group.knob_mask[:, :5].double().mean() == pytest.approx(0.75, abs=0.04)
    assert not group.knob_mask[:, 5:].any()
    assert group.has_eval.double().mean() == pytest.approx(0.5, abs=0.1)
    assert group.head_mask[:, 0].double().mean() == pytest.approx(0.25, abs=0.1)
    whole = Group(BUCKET, settings, 3, RUNS, missing=False)
    assert whole.has_eval.all()
    assert whole.head_mask[:, :6].all()


def test_masked_knob_keeps_its_value_and_shows_nothing():
    group = Group(BUCKET, dataclasses.replace(FULL, knobs=("weight_decay",), registers=False), 3, RUNS)
    group.begin()
    before = group.values.clone()
    seen = group.act(action(lr=6, weight_decay=0, registers=4))
    assert torch.equal(group.values[:, 0], before[:, 0])
    assert not group.filled.any()
    features = seen.pi[:, LAYOUT["action_features"]]
    assert (features[:, 0] == 0).all()
    assert (features[:, 1] != 0).all()
    lr_choices = [i for i, name in enumerate(NAMES) if name.startswith("previous_lr_")]
    assert (seen.pi[:, lr_choices] == 0).all()
    assert (seen.pi[:, NAMES.index("previous_weight_decay_0")] == 1).all()


def test_untrained_lr_starts_where_torch_has_it():
    group = Group(BUCKET, dataclasses.replace(FULL, knobs=("weight_decay",)), 3, RUNS)
    assert torch.equal(group.start[:, 0], torch.full((RUNS,), 1e-3, dtype=torch.float64))
    assert group.start[:, KNOBS.index("one_minus_beta2")].unique().numel() == RUNS, "users have their own"


def test_save_and_load_give_back_the_run():
    group = Group(BUCKET, FULL, 3, RUNS)
    group.begin()
    weights = group.inner.weights()
    group.act(action(registers=4 + 1))
    assert group.filled.tolist() == [[False, True, False]] * RUNS
    moved = group.inner.weights()
    assert not torch.equal(moved, weights)
    group._registers(action(registers=1 + 1)[:, 0])
    assert torch.equal(group.inner.weights(), weights)
    assert torch.equal(group.last_weights, weights), "the next move begins here"
    group._registers(action(registers=1 + 0)[:, 0])  # an empty one has nothing to load
    assert torch.equal(group.inner.weights(), weights)


def test_a_run_loads_nothing_from_a_register_that_only_others_have_filled():
    group = Group(BUCKET, FULL, 3, RUNS)
    group.begin()
    first = action()
    first[0, 0] = 4
    group.act(first)
    weights = group.inner.weights()
    group._registers(action(registers=1)[:, 0])
    assert torch.equal(group.inner.weights()[1:], weights[1:])
    assert not torch.equal(group.inner.weights()[0], weights[0])
    assert group.filled[:, 0].tolist() == [True, False, False, False]


def test_a_load_leaves_what_is_known_of_its_register():
    group = Group(BUCKET, FULL, 3, RUNS)
    group.begin()
    group.act(action(registers=4))
    loss, progress = group.register_loss.clone(), group.register_progress.clone()
    group.act(action(registers=1))
    assert torch.equal(group.register_loss, loss)
    assert torch.equal(group.register_progress, progress)


def test_swap_exchanges_and_saves_into_an_empty_register():
    group = Group(BUCKET, FULL, 3, RUNS)
    group.begin()
    first = group.inner.weights()
    group.act(action(registers=7))
    second = group.inner.weights()
    group._registers(action(registers=7)[:, 0])
    assert torch.equal(group.inner.weights(), first)
    group._registers(action(registers=7)[:, 0])
    assert torch.equal(group.inner.weights(), second)


def test_registers_show_their_age_and_loss():
    group = Group(BUCKET, FULL, 3, RUNS)
    group.begin()
    loss = group.loss.double()
    seen = group.act(action(registers=4))
    assert torch.equal(group.register_loss[:, 0], loss)
    assert (group.register_progress[:, 0] == group.decisions[0] / BUCKET.horizon).all()
    assert (seen.pi[:, LAYOUT["progress"]] == group.decisions[1] / BUCKET.horizon).all()
    age = seen.pi[:, LAYOUT["restart_progress"]]
    assert torch.allclose(age[:, 0].double(), group.progress - group.register_progress[:, 0], atol=1e-6)
    assert (age[:, 1:] == 1).all()
    assert (seen.pi[:, LAYOUT["restart_loss"]][:, 0] != 0).all()


def blow_up(group, run=1):
    for value in group.inner.carry["params"].values():
        value[run] = torch.nan


def test_run_that_fails_is_paid_the_least_once_and_idles():
    group = Group(BUCKET, dataclasses.replace(FULL, registers=False), 3, RUNS)
    group.begin()
    blow_up(group)
    seen = group.act(action())
    assert seen.ended.tolist() == [False, True, False, False]
    assert seen.reward.tolist() == [0, -3, 0, 0]
    assert seen.pi.isfinite().all()
    while not seen.ended.all():
        seen = group.act(action())
        assert seen.reward[1] == 0
    assert seen.failed.tolist() == [False, True, False, False]
    assert (seen.reward[[0, 2, 3]] > -3).all()


def test_filled_register_rescues_a_run_that_failed():
    group = Group(BUCKET, FULL, 3, RUNS)
    group.begin()
    group.act(action(registers=4))
    blow_up(group)
    seen = group.act(action())
    assert seen.failed.tolist() == [False, True, False, False]
    assert not seen.ended.any()
    seen = group.act(action(registers=1))
    assert not seen.failed.any()
    assert group.inner.weights().isfinite().all()


@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_a_loss_that_is_not_finite_once_ends_a_run_for_good(monkeypatch, where):
    """Its weights are sound, and so are the losses after it."""
    real, broken = InnerRuns.heldout, []

    def heldout(self, half):
        raw, normalised = real(self, half)
        if broken:
            raw = torch.where(torch.arange(RUNS) == broken.pop(), torch.inf, raw)
        return raw, normalised

    monkeypatch.setattr(InnerRuns, "heldout", heldout)
    group = Group(BUCKET, dataclasses.replace(FULL, registers=False), 3, RUNS)
    group.begin()
    if where == "training":
        group.inner.carry["seen"]["loss"][1] = torch.inf
    else:
        broken.append(1)
    seens = [group.act(action()) for _ in range(BUCKET.decisions)]
    assert all(seen.failed.tolist() == [False, True, False, False] for seen in seens)
    assert [float(seen.reward[1]) for seen in seens] == [-3, 0, 0, 0]
    assert seens[-1].final_loss.isfinite().all()


def test_a_run_that_fails_at_the_end_is_paid_the_least_whatever_its_final_loss():
    group = Group(BUCKET, FULL, 3, RUNS)
    group.begin()
    for _ in range(BUCKET.decisions - 1):
        group.act(action(registers=4))
    group.inner.carry["seen"]["loss"][1] = torch.inf
    seen = group.act(action())
    assert seen.final_loss.isfinite().all()
    assert seen.reward[1] == -3
    assert (seen.reward[[0, 2, 3]] > -3).all()


def test_without_rescue_a_filled_register_does_not_help():
    group = Group(BUCKET, dataclasses.replace(FULL, rescue=False), 3, RUNS)
    group.begin()
    group.act(action(registers=4))
    blow_up(group)
    seen = group.act(action())
    assert seen.ended.tolist() == [False, True, False, False]
    assert seen.reward.tolist() == [0, -3, 0, 0]


def test_rescue_is_one_decision_long():
    group = Group(BUCKET, FULL, 3, RUNS)
    group.begin()
    group.act(action(registers=4))
    blow_up(group)
    group.act(action())
    seen = group.act(action())
    assert seen.ended.tolist() == [False, True, False, False]
    assert seen.reward[1] == -3


@pytest.mark.parametrize("against", ["default", "best_constant"])
def test_tasks_that_cannot_be_scored_are_left_out(monkeypatch, against):
    settings, found = dataclasses.replace(FULL, against=against), reference.references(BUCKET.specs())
    broken = dataclasses.replace(found[0], **{against: dataclasses.replace(getattr(found[0], against), degenerate="the curve is flat")})
    monkeypatch.setattr(reference, "references", lambda specs, store: [broken, *found[1:]])
    group = Group(BUCKET, settings, 3, RUNS)
    assert group.scorer.rejected == ("the curve is flat",)
    assert [spec.hash for spec in group.scorer.specs] == [BUCKET.specs()[1].hash]
    monkeypatch.setattr(reference, "references", lambda specs, store: [broken] * 2)
    with pytest.raises(TaskError, match=r"no task of quadratic .* can be scored: the curve is flat"):
        Group(BUCKET, settings, 3, RUNS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decisions": 0}, "1 <= decisions <= horizon"),
        ({"decisions": 33}, "1 <= decisions <= horizon"),
        ({"draws": ()}, "at least one draw"),
        ({"inner": "sgd"}, "inner optimizer 'sgd' is unknown"),
    ],
)
def test_bad_bucket_is_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(BUCKET, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"table": "wild"}, "wild.*wide"),
        ({"knobs": ("lrr",)}, "knob 'lrr' is unknown.*lr"),
        ({"eval_missing": 1.5}, r"eval_missing must be in \[0, 1\], got 1.5"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        Settings(**fields)


def test_critic_inputs_are_finite_whatever_happens():
    bad = torch.tensor([torch.nan, torch.inf])
    found = critic_inputs(
        "quadratic", (10, 1, 32, 4), torch.zeros(2), torch.zeros(2, 8), torch.ones(2, 8), torch.ones(2, 8, dtype=torch.bool),
        torch.ones(2, dtype=torch.bool), (bad, -bad), bad, torch.full((2, 4), torch.nan),
    )  # fmt: skip
    assert found.shape == (2, CRITIC_INPUTS)
    assert found.isfinite().all()
    assert found[:, family_slot("quadratic")].tolist() == [1, 1]


def test_critic_inputs_are_what_they_say():
    values = torch.linspace(0.1, 0.9, 16, dtype=torch.float64).view(2, 8)
    noise = values.flip(0)
    turns, has_eval = values > 0.4, torch.tensor([True, False])
    losses, potential = (torch.tensor([0.5, 2.0]), torch.tensor([0.25, 3.0])), torch.tensor([-1.0, 0.5])
    references = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    progress = torch.tensor([0.25, 0.5])
    found = critic_inputs("quadratic", (10, 2, 32, 4), progress, noise, values, turns, has_eval, losses, potential, references)
    for run in range(2):
        wanted = [*torch.tensor([10.0, 2.0, 32.0, 4.0]).log().tolist(), float(progress[run])]
        wanted += (2 * noise[run] - 1).tolist() + torch.logit(values[run]).tolist() + turns[run].double().tolist() + [float(has_eval[run])]
        for loss in losses:
            wanted += [float(loss[run]), float(loss[run].log())]
        wanted += [float(potential[run]), *references[run].tolist()]
        assert found[run, FAMILY_SLOTS:].tolist() == pytest.approx(wanted, abs=1e-5)


def test_the_critic_is_told_what_the_runs_are():
    settings = dataclasses.replace(FULL, knob_missing=0.5, perturbed=0.5)
    group = Group(BUCKET, settings, 3, 16)
    mask_at, noise_at = FAMILY_SLOTS + 4 + 1 + 2 * len(KNOBS), FAMILY_SLOTS + 4 + 1
    seen = group.begin()
    assert torch.equal(seen.v[:, mask_at : mask_at + len(KNOBS)].bool(), group.knob_mask)
    still = group.start[:, 0] == 1e-3
    assert 0 < still.sum() < 16
    assert (seen.v[still, noise_at : noise_at + len(KNOBS)] == 0).all(), "what nothing was perturbed with is its middle"
    assert torch.allclose(seen.v[:, -4:].double(), group.scorer.columns().clamp(-20, 20))
    assert seen.v[0, -4:].tolist() != seen.v[1, -4:].tolist(), "runs take turns on the tasks"
    normalised = group.inner.heldout(DECIDING)[1]
    assert torch.allclose(seen.v[:, -7], normalised.clamp(max=20.0).float())
    assert torch.allclose(seen.v[:, -5].double(), torch.as_tensor(group.scorer.score(normalised, group.failed)))


def test_the_steps_before_a_decision_are_measured_as_timing_says(monkeypatch):
    advance, called = InnerRuns.advance, []

    def spy(self, values, until, measured):
        called.append((self.step, until, tuple(measured)))
        advance(self, values, until, measured)

    monkeypatch.setattr(InnerRuns, "advance", spy)
    scorer = Group(BUCKET, FULL, 3, RUNS).scorer
    group = Group(dataclasses.replace(BUCKET, horizon=96, decisions=2), FULL, 3, RUNS, scorer=scorer)
    finish(group)
    assert called == [(0, 4, measured_steps(0, 4)), (4, 50, measured_steps(4, 50)), (50, 96, ())]


def test_keep_is_a_choice_of_every_knob_but_none_of_the_register():
    assert len(KEEP) == len(find_table("wide").nvec) == len(KNOBS) + 1
