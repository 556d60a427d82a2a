"""The learned rules once more, in float64 NumPy, one weight at a time, from the published formulas; shares no code with the rules.

A reference is made with (theta, shape, options) and gives `step(param, grad)`, what is subtracted from the parameter.
"""

import itertools

import numpy as np
import torch

TIMES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)


def _network(theta, inputs):
    hidden = np.asarray(inputs)
    layers = sum(name[0] == "w" and name[1:].isdigit() for name in theta)
    for i in range(layers):
        hidden = theta[f"w{i}"] @ hidden + theta[f"b{i}"]
        if i < layers - 1:
            hidden = np.maximum(hidden, 0.0)
    return hidden


def _outputs(theta, features, constants=()):
    """The network's outputs for every weight: a list of arrays of the tensor's shape."""
    shape = features[0].shape
    found = {i: _network(theta, [f[i] for f in features] + list(constants)) for i in np.ndindex(shape)}
    count = len(next(iter(found.values())))
    return [np.array([found[i][k] for i in np.ndindex(shape)]).reshape(shape) for k in range(count)]


def _rms_normalised(feature, eps):
    return feature / np.sqrt(eps + np.mean(feature**2))


def _time(t):
    return [np.tanh(t / c - 1) for c in TIMES]


class MLPReference:
    """19 features, 32-32 hidden units: step = 1e-3 direction exp(1e-3 magnitude)."""

    decays = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)

    def __init__(self, theta, shape, options):
        self.theta, self.m, self.t = theta, [np.zeros(shape) for _ in self.decays], 0

    def step(self, param, grad):
        self.m = [b * m + (1 - b) * grad for b, m in zip(self.decays, self.m, strict=True)]
        features = [_rms_normalised(f, 1e-5) for f in (grad, param, *self.m)]
        direction, magnitude = _outputs(self.theta, features, _time(self.t))
        self.t += 1
        return 1e-3 * direction * np.exp(1e-3 * magnitude)


class Factored:
    """Adafactor's moments: a dictionary of mean squares over lines of the two largest axes; dense for rank <= 1."""

    def __init__(self, shape, decays):
        self.shape, self.decays = shape, decays
        self.second = [{} for _ in decays]  # index -> accumulated mean square: whole index, or the index without one axis
        order = np.argsort(shape, kind="stable")
        self.largest, self.next = (int(order[-1]), int(order[-2])) if len(shape) >= 2 else (None, None)

    @staticmethod
    def _without(index, axis):
        return (axis, *index[:axis], *index[axis + 1 :])

    def update(self, grad):
        """For each decay: (fac factor, row, column), arrays of the tensor's shape."""
        result = []
        for b, store in zip(self.decays, self.second, strict=True):
            factor, row, column = np.zeros(self.shape), np.zeros(self.shape), np.zeros(self.shape)
            if self.largest is None:
                for i in np.ndindex(self.shape):
                    store[i] = b * store.get(i, 0.0) + (1 - b) * grad[i] ** 2
                    factor[i], row[i], column[i] = 1 / np.sqrt(max(store[i] + 1e-9, 1e-9)), store[i], store[i]
                result.append((factor, row, column))
                continue
            sums = {}
            for i in np.ndindex(self.shape):
                for axis in (self.largest, self.next):
                    sums.setdefault(self._without(i, axis), []).append(grad[i] ** 2 + 1e-30)
            for place, values in sums.items():
                store[place] = b * store.get(place, 0.0) + (1 - b) * sum(values) / len(values)
            for i in np.ndindex(self.shape):
                row[i], column[i] = store[self._without(i, self.largest)], store[self._without(i, self.next)]
                line = [store[self._without((*i[: self.next], k, *i[self.next + 1 :]), self.largest)] for k in range(self.shape[self.next])]
                rho = sum(line) / len(line)
                factor[i] = 1 / np.sqrt(max(row[i] / (rho + 1e-9), 1e-9)) / np.sqrt(max(column[i], 1e-9))
            result.append((factor, row, column))
        return result


class SmallFCReference:
    """39 features through any network; the seven decays are shifted by offsets."""

    def __init__(self, theta, shape, options):
        self.theta, self.shape, self.options, self.t = theta, shape, options, 0
        self.b_m, self.b_v, self.b_f = (
            [1 - np.exp(10 * (np.log(1 - b) / 10 + offset)) for b, offset in zip(decays, self.offsets(name, len(decays)), strict=True)]
            for name, decays in (("momentum", (0.9, 0.99, 0.999)), ("second", (0.999,)), ("factored", (0.9, 0.99, 0.999)))
        )
        self.m, self.v = [np.zeros(shape) for _ in range(3)], np.zeros(shape)
        self.moments = Factored(shape, self.b_f)

    def offsets(self, name, count):
        return self.theta.get(f"{name}_offset", [0.0] * count)

    def outputs(self, param, grad):
        self.m = [b * m + (1 - b) * grad for b, m in zip(self.b_m, self.m, strict=True)]
        self.v = self.b_v[0] * self.v + (1 - self.b_v[0]) * grad**2
        root = 1 / np.sqrt(self.v + 1e-6)
        self.adam = [m * root for m in self.m]
        factored = self.moments.update(grad)
        rows, columns = [r for _, r, _ in factored], [c for _, _, c in factored]
        if len(self.shape) >= 2:
            factored_m = [m * f for m, (f, _, _) in zip(self.m, factored, strict=True)]
        else:
            factored_m = [m / np.sqrt(v + 1e-6) for m, v in zip(self.m, rows, strict=True)]
        features = [grad, param, *self.m, self.v, *self.adam, root, *(grad * f for f, _, _ in factored), *rows, *columns]
        features += [*(1 / np.sqrt(x + 1e-8) for x in rows), *(1 / np.sqrt(x + 1e-8) for x in columns), *factored_m]
        assert len(features) == 28
        found = _outputs(self.theta, [_rms_normalised(f, self.options.get("norm_eps", 1e-5)) for f in features], _time(self.t))
        self.root, self.t = root, self.t + 1
        return found

    def step(self, param, grad):
        direction, magnitude = self.outputs(param, grad)
        return self.options.get("step_mult", 1e-3) * direction * np.exp(1e-3 * magnitude)


class StarReference(SmallFCReference):
    """Learned step over the root of the second moment, AggMo-Adam, and decay."""

    def step(self, param, grad):
        direction, magnitude, nominal, decay = self.outputs(param, grad)
        learned = 1e-3 * direction * np.exp(1e-3 * magnitude) * self.root
        shrunk = self.options.get("decay", 1e-5) * np.exp(1e-3 * decay) * param
        return learned + 1e-3 * np.exp(1e-3 * nominal) * sum(self.adam) / 3 + shrunk


class Celo2BaseReference:
    """30 features (15 for rank <= 1), 8-8 hidden units; whole-tensor normalisation, scale-free clipping, learned log steps."""

    def __init__(self, theta, shape, options):
        self.theta, self.shape, self.output = theta, shape, options["output"]
        self.decays = (0.9, 0.99, 0.999)
        self.m = [np.zeros(shape) for _ in self.decays]
        self.v = np.zeros(shape)
        self.moments = Factored(shape, self.decays)

    def learned(self, param, grad):
        """The network's output and the RMS of Adam's update."""
        self.m = [b * m + (1 - b) * grad for b, m in zip(self.decays, self.m, strict=True)]
        self.v = 0.95 * self.v + 0.05 * grad**2
        inverse = 1 / np.sqrt(self.v + 1e-8)
        limit = 0.1 * np.sqrt(np.mean(grad**2))
        factored = self.moments.update(grad)
        features = [grad, np.clip(grad, -limit, limit), param, *self.m, self.v, *(m * inverse for m in self.m), inverse]
        features += [grad * f for f, _, _ in factored] + [grad * inverse]
        if len(self.shape) >= 2:
            rows, columns = [r for _, r, _ in factored], [c for _, _, c in factored]
            features += rows + columns + [1 / np.sqrt(x + 1e-8) for x in itertools.chain(rows, columns)]
            features += [m * f for m, (f, _, _) in zip(self.m, factored, strict=True)]
        inputs = [_rms_normalised(f, 1e-9) for f in features]
        inputs += [np.zeros(self.shape)] * (30 - len(inputs))  # the first layer's other columns see nothing
        return _outputs(self.theta, inputs)[0], np.sqrt(1e-9 + np.mean((self.m[0] * inverse) ** 2))

    def step(self, param, grad):
        out, adam_size = self.learned(param, grad)
        size = adam_size if self.output == "graft" else 1.0
        log_step = self.theta["log_step"][0 if len(self.shape) >= 2 else 1]
        return np.exp(log_step) * size * _rms_normalised(out, 1e-9)


def quintic(matrix):
    """What five rounds of Newton-Schulz do to the singular values."""
    left, values, right = np.linalg.svd(matrix / np.hypot(np.linalg.norm(matrix), 1e-8), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right


class Celo2Reference(Celo2BaseReference):
    """The output of a matrix through the odd polynomial of its singular values; Adam at 20 times the rate for the rest."""

    def __init__(self, theta, shape, options):
        super().__init__(theta, shape, options)
        embedding = options.get("embedding", False)
        self.adam = AdamReference(0.9, 0.95, 1e-8, shape) if len(shape) < 2 or embedding else None

    def step(self, param, grad):
        if self.adam is not None:
            return 20 * np.exp(self.theta["log_step"]) * self.adam.step(param, grad)
        out, adam_size = self.learned(param, grad)
        size = adam_size if self.output == "graft" else 1.0
        unit = _rms_normalised(quintic(out.reshape(self.shape[0], -1)), 1e-9)
        return np.exp(self.theta["log_step"]) * size * unit.reshape(self.shape)


class AdamReference:
    """Adam by the book."""

    def __init__(self, b1, b2, eps, shape):
        self.b1, self.b2, self.eps = b1, b2, eps
        self.m, self.v, self.t = np.zeros(shape), np.zeros(shape), 0

    def step(self, param, grad):
        self.t += 1
        self.m, self.v = self.b1 * self.m + (1 - self.b1) * grad, self.b2 * self.v + (1 - self.b2) * grad**2
        return (self.m / (1 - self.b1**self.t)) / (np.sqrt(self.v / (1 - self.b2**self.t)) + self.eps)


class LearnableAdamReference:
    """Adam with 1 - beta, eps and the rate as exponentials."""

    def __init__(self, theta, shape, options):
        self.lr = np.exp(theta["log_lr"])
        betas = [1 - np.exp(theta[f"log_one_minus_beta{i}"]) for i in (1, 2)]
        self.adam = AdamReference(*betas, np.exp(theta["log_eps"]), shape)

    def step(self, param, grad):
        return self.lr * self.adam.step(param, grad)


class LSTMReference:
    """Every weight's own LSTM, one weight at a time; gates i, g, f, o, and the forget gate begins at one."""

    def __init__(self, theta, shape, options):
        self.theta, self.t = theta, 0
        self.inputs = options.get("inputs", "rnnprop")
        self.scale = options.get("output_scale") or (0.1 if self.inputs == "rnnprop" else 0.01)
        self.eps = options.get("eps", 1e-8)
        layers, hidden = options.get("layers", 2), options.get("hidden", 20)
        self.cells = {i: [(np.zeros(hidden), np.zeros(hidden)) for _ in range(layers)] for i in np.ndindex(shape)}
        self.m, self.v = np.zeros(shape), np.zeros(shape)

    def features(self, grad):
        if self.inputs == "raw":
            return [grad]
        if self.inputs == "dm":
            size, edge = np.abs(grad), np.exp(-10)
            with np.errstate(divide="ignore"):
                return [np.where(size >= edge, np.log(size) / 10, -1), np.where(size >= edge, np.sign(grad), grad / edge)]
        self.m, self.v = 0.95 * self.m + 0.05 * grad, 0.95 * self.v + 0.05 * grad**2
        correction = 1 - 0.95**self.t
        divisor = np.sqrt(self.v / correction) + self.eps
        return [self.m / correction / divisor, grad / divisor]

    def step(self, param, grad):
        self.t += 1
        features = self.features(np.asarray(grad))
        found = np.zeros(np.shape(grad))
        for i in np.ndindex(np.shape(grad)):
            found[i] = self.scale * self.one(i, np.array([feature[i] for feature in features]))
        return found

    def one(self, place, x):
        theta = self.theta
        linear = theta["skip_weight"] @ x if "skip_weight" in theta else 0.0
        if self.inputs == "rnnprop":
            x = theta["embedding_weight"] @ x + theta["embedding_bias"]
            x = np.where(x > 0, x, np.exp(x) - 1)
        for layer, (h, c) in enumerate(self.cells[place]):
            gates = theta[f"input_weight{layer}"] @ x + theta[f"hidden_weight{layer}"] @ h + theta[f"gate_bias{layer}"]
            i, g, f, o = np.split(gates, 4)
            c = c / (1 + np.exp(-f - 1)) + np.tanh(g) / (1 + np.exp(-i))
            x = np.tanh(c) / (1 + np.exp(-o))
            self.cells[place][layer] = (x, c)
        read = theta["output_weight"] @ x + theta["output_bias"][0]
        return linear + (np.tanh(read) if self.inputs == "rnnprop" else read)


class NNAdamReference:
    """Adam under controls that an LSTM moves; bias corrections are one minus the products of the betas used so far."""

    def __init__(self, theta, shape, options):
        self.theta, self.shape = theta, shape
        self.controls = theta["initial_controls"].copy()
        self.h, self.c = theta["initial_hidden"], theta["initial_cell"]
        self.m, self.v, self.products = np.zeros(shape), np.zeros(shape), np.ones(2)

    def statistics(self, param, grad):
        """By name, read in alphabetical order."""

        def size(x):
            return 0.5 * np.clip(np.log(1e-8 + abs(x)), -5, 5)

        values = {"lr": 0.2 * np.clip(self.controls[0], -5, 5), "epsilon": 0.2 * np.clip(self.controls[3], -5, 5)}
        values |= {f"beta{i}": 0.2 * np.clip(self.controls[i], -5, 5) for i in (1, 2)}
        for letter, tensor in (("m", self.m), ("p", param), ("g", grad)):
            values |= {f"mean_{letter}_mag": size(np.mean(tensor)), f"mean_{letter}_sign": np.sign(np.mean(tensor))}
            values[f"var_{letter}"] = size(np.mean((tensor - np.mean(tensor)) ** 2))
        values |= {"mean_rms": size(np.mean(self.v)), "mean_sign": np.sign(np.mean(self.v))}
        values["var_rms"] = size(np.mean((self.v - np.mean(self.v)) ** 2))
        values["mean_gabs_mag"] = size(np.mean(np.abs(grad)))
        values |= {"is_scalar": 1.0 if self.shape == () else -1.0, "is_bias": 1.0 if len(self.shape) == 1 else -1.0}
        assert len(values) == 19
        return np.array([values[name] for name in sorted(values)])

    def step(self, param, grad):
        logs = 10 * self.controls
        lr, eps = np.clip(np.exp(logs[0]), 1e-8, 1e3), np.clip(np.exp(logs[3]), 1e-11, 1e4)
        b1, b2 = (1 - np.exp(np.clip(x, -10, 0)) for x in logs[1:3])
        self.m, self.v = b1 * self.m + (1 - b1) * grad, b2 * self.v + (1 - b2) * grad**2
        self.products = self.products * [b1, b2]
        step = lr * self.m / (1 - self.products[0]) / (np.sqrt(self.v / (1 - self.products[1])) + eps)
        weight = np.concatenate([self.theta["input_weight"], self.theta["hidden_weight"]], 1)
        gates = weight @ np.concatenate([self.statistics(param, grad), self.h]) + self.theta["gate_bias"]
        i, g, f, o = np.split(gates, 4)

        def sigmoid(x):
            return 1 / (1 + np.exp(-x))

        self.c = sigmoid(f + 1) * self.c + sigmoid(i) * np.tanh(g)
        self.h = sigmoid(o) * np.tanh(self.c)
        self.controls = self.controls + 0.01 * (self.theta["output_weight"] @ self.h + self.theta["output_bias"])
        return step


class MuonReference:
    """Nesterov momentum with its singular values through the polynomial; AdamW for vectors and scalars."""

    def __init__(self, theta, shape, options):
        self.shape, self.m, self.adam = shape, np.zeros(shape), AdamReference(0.9, 0.95, 1e-8, shape)

    def step(self, param, grad):
        if len(self.shape) < 2:
            return self.adam.step(param, grad) + 0.1 * param
        self.m = 0.95 * self.m + 0.05 * grad
        ahead = (0.95 * self.m + 0.05 * grad).reshape(self.shape[0], -1)
        direction = 0.2 * np.sqrt(max(ahead.shape)) * quintic(ahead)
        return direction.reshape(self.shape) + 0.1 * param


class LionReference:
    """The sign of an interpolation."""

    def __init__(self, theta, shape, options):
        self.m = np.zeros(shape)

    def step(self, param, grad):
        direction = np.sign(0.9 * self.m + 0.1 * grad)
        self.m = 0.99 * self.m + 0.01 * grad
        return direction


class TorchReference:
    """The class of `torch.optim` that a classic rule is, in float64."""

    def __init__(self, make, shape, lr):
        self.param, self.lr = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)), lr
        self.optimizer = make([self.param])
        self.optimizer.param_groups[0]["lr"] = lr

    def step(self, param, grad):
        with torch.no_grad():
            self.param.copy_(torch.as_tensor(param))
        self.param.grad = torch.as_tensor(grad).clone()
        self.optimizer.step()
        return (param - self.param.detach().numpy()) / self.lr
