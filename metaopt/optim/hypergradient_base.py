"""What the hypergradient optimizers share: a step, its state, checkpoints, and reports.

Legend: S scopes of towers, J learned hyperparameters.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.hypergradients.stationarity import Stationarity
from metaopt.optim.hypergradient_groups import check_group, check_layouts, check_untouched, flat, starts
from metaopt.optim.hypergradient_pieces import MASTER, Batch, Layout, Member, make_batches, read
from metaopt.optim.hypergradient_steps import BASE_STEPS, BaseStep
from metaopt.optim.hypergradient_towers import Evidence, Scopes, check_settings, make_settings
from metaopt.optim.loading import load_exactly

__all__ = ["Bounds", "Hyper", "HypergradientOptimizer", "Params"]

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
Hyper = str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]
Pair = tuple[float, float]
Bounds = Pair | Mapping[str, Pair] | None


_WATCH_EVERY = 10  # steps: two more dot products a tensor in one of them are not felt


class HypergradientOptimizer(torch.optim.Optimizer):
    """A base optimizer whose hyperparameters are learned by towers, from one-step hypergradients in closed form.

    A step: the new gradients are multiplied with how the last step changed with each learned hyperparameter; those sums move the towers;
    then the base optimizer takes its step with what has just been learned.

    - `group["lr"]` is the user's and the schedulers': the rate of a group is `lr * learned / start`. Groups keep their ratio; where `lr`
      is 0 nothing moves, bit for bit, and nothing is learned. Other learned hyperparameters are the same for all groups of a scope.
    - A non-finite gradient reaches the base step as it is, as in `torch.optim`. It is counted in `nonfinite_gradients`, one warning names
      the first step that had one, and the towers of its scope stay as they are.
    - 16-bit parameters are stepped in float32, from a copy in the state; dot products are taken in the parameter's dtype, float32 at least.
    - A parameter without gradient or without elements is skipped. A sparse gradient is refused by name.
    - With one global tower, a warning says once when noise is about to take the rate to its floor. It looks at every step with
      `update="cosine"`, which has the norms that this needs, and at every tenth one else.

    State of a parameter, beside the base optimizer's: one tensor for each learned hyperparameter; none for `lr` where the momentum buffer
    is the direction of the step.
    """

    _name: ClassVar[str]  # in BASE_STEPS

    def __init__(
        self, params: Params, defaults: dict[str, Any], hyper: Hyper, learn: Any, link: Any, bounds: Any, mode: str, update: str
    ) -> None:
        self._nonfinite = 0
        self._told: set[str] = set()
        self._scopes: Scopes | None = None
        super().__init__(params, defaults)
        hyper = hyper if isinstance(hyper, str | Mapping) else list(hyper)
        names = [learn] if isinstance(learn, str) else list(learn)
        if "lr" in names and not any(float(group["start"]["lr"]) for group in self.param_groups):
            raise ConfigError("lr=0 cannot be learned: start above 0, or take 'lr' out of learn")
        self.param_groups[0]["tower"] = make_settings(self._name, starts(self.param_groups, mode), hyper, names, link, bounds, mode, update)
        self._derive()
        self.param_groups[0]["tower_state"] = self._towers.fresh()
        if self._watches:
            self.param_groups[0]["stationarity"] = self._watch.state_dict()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Any:
        """Learn from the present gradients, take one step, and return the closure's loss, else `loss`.

        Args:
            closure: computes the loss and the gradients again; called once, with gradients enabled.
            loss: returned as it is.

        Raises:
            ConfigError: somebody has changed a group's hyperparameter that is learned.
            RuntimeError: a sparse gradient; nothing has been changed.
        """
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        check_untouched(self.param_groups, self._towers.learn)
        check_layouts(self.param_groups)
        members = self._members()
        batches = make_batches(members)
        self._observe(batches, members)
        values = self.hyperparameters()
        found: dict[tuple[int, int], tuple[float, tuple[float, ...]]] = {}
        for member in members:
            key = member.layout.group, member.scope
            if key not in found:
                found[key] = self._rate(*key, values[member.scope])
            member.state["coefficients"] = found[key][1]
        for batch in batches:
            self._advance(batch, values[batch.scope], found[batch.layout.group, batch.scope][0])
        if members:
            torch._foreach_add_([member.state["step"] for member in members], torch.tensor(1.0), alpha=1.0)
        return loss

    def hyperparameters(self) -> list[dict[str, float]]:
        """Return the present values of what is learned, a dict for each scope: one, one a group, or one a parameter in their order.

        The rate is that of the first group (of the scope) where schedulers leave `lr` as it began.
        """
        return self._towers.values(self.param_groups[0]["tower_state"])

    def tower_rates(self) -> list[list[float]]:
        """Return the present rates of the levels of each scope's tower, lowest first; the last is the one that nothing moves."""
        return self._towers.rates(self.param_groups[0]["tower_state"])

    @property
    def nonfinite_gradients(self) -> int:
        """How many gradient tensors with NaN or infinity this object has been given."""
        return self._nonfinite

    @property
    def skipped(self) -> int:
        """How many updates of towers were left out because what they would have learned from was not finite; summed over scopes."""
        return int(self.param_groups[0]["tower_state"]["skipped"].sum())

    @property
    def stationarity(self) -> Stationarity | None:
        """What the cosines so far say about the rate; None unless one global tower learns it."""
        return self._watch if self._watches else None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; a group starts where its hyperparameters are now, its accumulators at zero.

        With one global tower it takes the learned factor of the rate at once; else it gets towers of its own.

        Raises:
            ConfigError: a hyperparameter out of range, or a parameter that cannot be stepped; nothing has been added.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check_group(group, self._base.hyperparameters)
            group["start"] = flat(group, self._base.hyperparameters)
            if self._scopes is not None and self._mode != "global":
                self._extend()
        except ConfigError:
            self.param_groups.pop()
            raise

    def state_dict(self) -> dict[str, Any]:
        """Return state and groups as torch does; the towers are in the first group."""
        if self._watches:
            self.param_groups[0]["stationarity"] = self._watch.state_dict()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned: groups, state and towers with all numbers; every tensor keeps the dtype that it was saved with.

        Raises:
            IncompatibleCheckpointError: saved with another height, other parts, or anything else that has a name; nothing has been changed.
        """

        def check(incoming: dict[str, Any]) -> None:
            check_settings(incoming["param_groups"][0].get("tower"), self.param_groups[0]["tower"])

        load_exactly(self, lambda: super(HypergradientOptimizer, self).load_state_dict(state_dict), check)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and other processes need: groups and state hold the towers."""
        if self._watches:
            self.param_groups[0]["stationarity"] = self._watch.state_dict()
        return {**super().__getstate__(), "_nonfinite": self._nonfinite, "_told": self._told}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of `__getstate__`, or the groups and state that torch loads."""
        super().__setstate__(state)
        self._derive()

    @property
    def _base(self) -> BaseStep:
        return BASE_STEPS[self._name]

    @property
    def _mode(self) -> str:
        return str(self.param_groups[0]["tower"]["mode"])

    @property
    def _towers(self) -> Scopes:
        assert self._scopes is not None
        return self._scopes

    @property
    def _watches(self) -> bool:
        settings = self.param_groups[0].get("tower", {"learn": ()})
        return "lr" in settings["learn"] and settings["mode"] == "global"

    def _derive(self) -> None:
        """Make again what follows from the groups."""
        settings = self.param_groups[0]["tower"]
        begun = starts(self.param_groups, settings["mode"])
        self._scopes, self._start_rates = Scopes(settings, begun), [start["lr"] for start in begun]
        self._watch = Stationarity(1 if settings["update"] == "cosine" else _WATCH_EVERY)
        if "stationarity" in self.param_groups[0]:
            self._watch.load_state_dict(self.param_groups[0]["stationarity"])

    def _extend(self) -> None:
        """Give a group that was added later towers of its own."""
        first, count = self.param_groups[0], len(self._start_rates)
        self._derive()
        fresh = self._towers.fresh(count)
        first["tower_state"] = {name: torch.cat([value, fresh[name]]) for name, value in first["tower_state"].items()}

    def _members(self) -> list[Member]:
        """Return the parameters that take this step, with a state."""
        members: list[Member] = []
        layouts: dict[tuple[Any, ...], Layout] = {}
        still, scope = (0.0,) * len(self._towers.learn), 0
        per_group, per_tensor = self._mode == "per_group", self._mode == "per_tensor"
        for number, group in enumerate(self.param_groups):
            for param in group["params"]:
                grad = param.grad
                if grad is not None and param.numel():
                    state = self.state[param]
                    # What the last step left decides where this one finds its direction.
                    kind = (number, "step" in state, "momentum_buffer" in state, "direction" in state, MASTER in state)
                    if not kind[1]:
                        kind = (*kind[:-1], self._begin(param, state))
                    if kind not in layouts:
                        layouts[kind] = self._layout(*kind)
                    layout = layouts[kind]
                    if not (kind[1] and all(map(state.__contains__, layout.keys))):
                        like = state.get(MASTER, param)
                        state.update({key: torch.zeros_like(like) for key in layout.keys if key not in state})
                    members.append(Member(param, grad, layout, scope, int(state["step"]) + 1, state.get("coefficients", still), state))
                scope += per_tensor
            scope += per_group
        return members

    def _begin(self, param: Tensor, state: dict[str, Any]) -> bool:
        """Give a parameter its counter, and a float32 copy if it has 16 bits; return whether it has."""
        state["step"] = torch.tensor(0.0)
        if short := param.dtype not in (torch.float32, torch.float64):
            state[MASTER] = param.detach().float()
        return short

    def _layout(self, number: int, begun: bool, has_buffer: bool, has_direction: bool, has_master: bool) -> Layout:
        """Return what tensors of a group with such states have in common."""
        group, learn = self.param_groups[number], self._towers.learn
        momentum = "momentum" in self._base.hyperparameters and (group["momentum"] != 0 or "momentum" in learn)
        base = (*self._base.accumulators, *(("momentum_buffer",) if momentum else ()))
        # The buffer is the direction of the step, unless a step without momentum, or with Nesterov's, has needed another tensor.
        lean = momentum and not group.get("nesterov") and not has_direction
        out = {name: f"d_{name}" for name in learn if name != "lr"} | ({"lr": "direction"} if "lr" in learn and not lean else {})
        stored = "momentum_buffer" if not has_direction and (has_buffer or lean) else "direction"
        changes = tuple(stored if name == "lr" else f"d_{name}" for name in learn)
        keys = tuple(dict.fromkeys((*base, *changes, *out.values(), *((MASTER,) if has_master else ()))))
        h = {**flat(group, self._base.hyperparameters), "nesterov": float(group.get("nesterov", False))}
        return Layout(number, bool(group["maximize"]), h, base, out, changes, keys)

    def _observe(self, batches: list[Batch], members: list[Member]) -> None:
        """Let the towers learn from the gradients."""
        learn, cosines = self._towers.learn, self._towers.update == "cosine"
        watched = self._watches and bool(members) and (cosines or members[0].t % _WATCH_EVERY == 0)
        norms = cosines or watched
        early = self._turn if learn == ["lr"] and self._base.direction is not None else None
        evidence = [Evidence([0.0] * len(learn), [0.0] * len(learn)) for _ in self._start_rates]
        for member, numbers in read(batches, members, norms, early):
            one = evidence[member.scope]
            if any(member.coefficients):
                one.usable = True
                for j, coefficient in enumerate(member.coefficients):
                    one.dots[j] += coefficient * numbers[j]
                    one.sizes[j] += coefficient**2 * numbers[len(learn) + j] if norms else 0.0
                one.square += numbers[-1] if norms else 0.0
            if not all(map(math.isfinite, numbers if cosines else numbers[: len(learn)])):
                one.dots[0] = math.nan  # an overflow is no evidence either
                self._count_nonfinite(member)
        if watched and (warning := self._watch.update(self._towers.cosine(evidence[0]))):
            warnings.warn(warning, stacklevel=5)
        first = self.param_groups[0]
        first["tower_state"] = self._towers.observe(first["tower_state"], evidence)

    def _turn(self, batch: Batch, grads: list[Tensor]) -> None:
        """Compute the direction of the step where it does not depend on what is learned: its gradient is in the cache now."""
        assert self._base.direction is not None
        batch.follow_params()
        out = batch.out
        batch.direction = self._base.direction(batch.layout.h, batch.working_params(), grads, batch.base, out)
        batch.direction = out.get("lr", batch.direction)  # rather than the gradient, which may be a copy

    def _advance(self, batch: Batch, values: Mapping[str, float], rate: float) -> None:
        """Take the base step of a batch with the present values."""
        params = batch.working_params()
        largest = torch.finfo(params[0].dtype).max
        rate = _fit(rate, largest)
        if batch.direction is None:
            batch.follow_params()
            h = {**batch.layout.h, **{name: _fit(value, largest) for name, value in values.items()}}
            self._base.step(h, rate, batch.t, params, batch.working_grads(), batch.base, batch.out)
        elif rate:
            torch._foreach_add_(params, batch.direction, alpha=-rate)
        if rate:
            batch.round_params()

    def _rate(self, group: int, scope: int, values: Mapping[str, float]) -> tuple[float, tuple[float, ...]]:
        """Return the rate of a step, and how the step will have changed with what is learned, over what is stored."""
        rate = float(self.param_groups[group]["lr"])
        factor = rate / self._start_rates[scope] if "lr" in values else 0.0
        if "lr" in values:
            rate *= values["lr"] / self._start_rates[scope]  # 1.0 exactly before anything is learned
        return rate, tuple(-factor if name == "lr" else -rate for name in self._towers.learn)

    def _count_nonfinite(self, member: Member) -> None:
        if bool(torch.isfinite(member.grad).all()):
            return
        self._nonfinite += 1
        if "non-finite" not in self._told:
            self._told.add("non-finite")
            what = f"a gradient had NaN or infinity at step {member.t}"
            warnings.warn(
                f"{what}; it is passed on as it is, and nothing is learned from it (see nonfinite_gradients, GradScaler, clipping)",
                stacklevel=6,
            )


def _fit(value: float, largest: float) -> float:
    """Return a number as a dtype has it: what is beyond the largest one is infinite there, where torch would raise."""
    return value if abs(value) <= largest else math.copysign(math.inf, value)
