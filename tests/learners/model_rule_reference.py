"""The rules that see all tensors once more, in float64 NumPy with loops over tensors, from the published formulas; no code is shared.

A reference is made with (theta, shapes, options) and gives `step(params, grads, t, loss, horizon)`: what is subtracted, by name.
"""

import numpy as np

from tests.learners.reference import TIMES, AdamReference, Factored


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def affine(theta, name, x):
    return theta[f"{name}_weight"] @ x + theta[f"{name}_bias"]


def lstm(theta, prefix, x, h, c):
    """Gates i, g, f, o; the forget gate has +1."""
    gates = theta[f"{prefix}input_weight"] @ x + theta[f"{prefix}hidden_weight"] @ h + theta[f"{prefix}gate_bias"]
    i, g, f, o = np.split(gates, 4)
    c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def mlp(theta, x):
    """A column for every weight: x [features, n]."""
    hidden = np.maximum(theta["w0"] @ x + theta["b0"][:, None], 0)
    hidden = np.maximum(theta["w1"] @ hidden + theta["b1"][:, None], 0)
    return theta["w2"] @ hidden + theta["b2"][:, None]


class LossBufferReference:
    """Averages as explicit weighted sums over all losses so far; weight of loss j now = (1 - d_j) times the decays of all later steps."""

    def __init__(self):
        self.losses, self.decays, self.minimum = [], [], np.full(10, 1e12)

    def weights(self, count):
        """[count, 10]."""
        found = []
        for j in range(count):
            later = np.prod(np.array(self.decays[j + 1 :]).reshape(-1, 10), axis=0)
            found.append((1 - self.decays[j]) * later)
        return np.array(found).reshape(-1, 10)

    def update(self, loss, horizon):
        self.decays.append(np.exp(-1 / np.logspace(1, np.log10(horizon), 10)))
        weights = self.weights(len(self.decays))
        if self.losses:
            # as released: the sum over the losses before as it was then, but over weights that include the new step's
            largest = np.max((weights[:-1] / self.decays[-1]).T @ np.array(self.losses) / weights.sum(0))
            loss = min(2 * abs(largest), loss)
        self.losses.append(loss)
        average = weights.T @ np.array(self.losses) / weights.sum(0)
        self.minimum = np.minimum(self.minimum, average)
        if len(self.losses) <= 2:
            return np.zeros(9)
        return np.array(
            [np.clip((average[i] - self.minimum[i]) / max(1e-8, average[i + 1] - self.minimum[i]) - 1, -1, 1) for i in range(9)]
        )


class Accumulators:
    """Three momenta, a second moment, factored moments, and the 30 features."""

    def __init__(self, shape):
        self.m, self.v, self.factored = [np.zeros(shape) for _ in range(3)], np.zeros(shape), Factored(shape, (0.9, 0.99, 0.999))

    def tensor_features(self, param):
        """mean_rms, rank, var_m, var_rms."""

        def size(x):
            return 0.5 * np.clip(np.log(1e-8 + abs(10 * x)), -5, 5)

        scale = 1 / np.sqrt(max(1e-9, np.mean(param**2)))
        m, v = [scale * m for m in self.m], scale * self.v
        rank = [0.0] * 5
        rank[sum(s > 1 for s in param.shape)] = 1.0
        variances = [size(np.mean((x - np.mean(x)) ** 2)) for x in m]
        return [size(np.mean(v)), *rank, *variances, *(size(np.mean((v - np.mean(x)) ** 2)) for x in m)]

    def features(self, param, grad):
        self.m = [b * m + (1 - b) * grad for b, m in zip((0.9, 0.99, 0.999), self.m, strict=True)]
        self.v = 0.999 * self.v + 0.001 * grad**2
        factored = self.factored.update(grad)
        rows, columns = [r for _, r, _ in factored], [c for _, _, c in factored]
        inverse = 1 / np.sqrt(self.v + 1e-6)
        features = [grad, np.clip(grad, -0.1, 0.1), param, *self.m, self.v, *(m * inverse for m in self.m), inverse]
        features += [*(grad * f for f, _, _ in factored), grad * inverse, *rows, *columns]
        features += [*(1 / np.sqrt(x + 1e-8) for x in rows), *(1 / np.sqrt(x + 1e-8) for x in columns)]
        if param.ndim >= 2:
            features += [m * f for m, (f, _, _) in zip(self.m, factored, strict=True)]
        else:
            features += [m / np.sqrt(v) for m, v in zip(self.m, rows, strict=True)]
        assert len(features) == 30
        return np.stack([(f / np.sqrt(1e-5 + np.mean(f**2))).reshape(-1) for f in features])


def fraction(t, horizon):
    return [np.tanh(10 * (t / horizon - c)) for c in (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)]


class VeLOReference:
    def __init__(self, theta, shapes, options):
        self.theta, self.options = theta, {"parameter_scale": True, "mixture_factor": 100.0, "step_mult": 1e-3, **options}
        self.accumulators = {name: Accumulators(shape) for name, shape in shapes.items()}
        self.lstm = dict.fromkeys(shapes, (theta["lstm_initial_hidden"], theta["lstm_initial_cell"]))
        self.losses = LossBufferReference()

    def step(self, params, grads, t, loss, horizon):
        grads = {name: np.clip(grad, -1000, 1000) for name, grad in grads.items()}
        from_loss = self.losses.update(loss, horizon)
        inputs = {}
        for name, param in params.items():
            inputs[name] = np.array([*fraction(t, horizon), *from_loss, *self.accumulators[name].tensor_features(param)])
            assert len(inputs[name]) == 30
        pooled = np.max([np.maximum(affine(self.theta, "lstm_pool", x), 0) for x in inputs.values()], axis=0)
        steps = {}
        for name, x in inputs.items():
            self.lstm[name] = lstm(self.theta, "lstm_", affine(self.theta, "lstm_project", x) + pooled, *self.lstm[name])
            h = self.lstm[name][0]
            coefficients, (rate,) = affine(self.theta, "mixture", h), affine(self.theta, "rate", h)
            network = {
                part: self.options["mixture_factor"]
                * np.mean([c * one for c, one in zip(coefficients, self.theta[f"bank_{part}"], strict=True)], axis=0)
                for part in ("w0", "b0", "w1", "b1", "w2", "b2")
            }
            steps[name] = rate * direction(network, params[name], self.accumulators[name].features(params[name], grads[name]), self.options)
        return steps


def direction(network, param, features, options):
    way, magnitude, _ = mlp(network, features)
    scale = np.sqrt(np.mean(param**2) + 1e-9) if options["parameter_scale"] else 1.0
    return (options["step_mult"] * way * np.exp(1e-3 * magnitude) * scale).reshape(param.shape)


class CeloReference:
    """As released: the scheduler runs for every tensor, with a maximum over tensors, though all see the same."""

    def __init__(self, theta, shapes, options):
        self.theta, self.options = theta, {"parameter_scale": True, "step_mult": 1e-3, "direction": "learned", **options}
        self.network = {part: theta.get(f"rule_{part}") for part in ("w0", "b0", "w1", "b1", "w2", "b2")}
        self.accumulators = {name: Accumulators(shape) for name, shape in shapes.items()}
        self.adam = {name: AdamReference(0.9, 0.999, 1e-8, shape) for name, shape in shapes.items()}
        self.lstm = dict.fromkeys(shapes, (theta["schedule_initial_hidden"], theta["schedule_initial_cell"]))
        self.losses = LossBufferReference()

    def step(self, params, grads, t, loss, horizon):
        x = np.array([*fraction(t, horizon), *self.losses.update(loss, horizon)])
        pooled = np.max([np.maximum(affine(self.theta, "schedule_pool", x), 0) for _ in params], axis=0)
        steps, self.multipliers = {}, []
        for name, param in params.items():
            grad = np.clip(grads[name], -1000, 1000)
            self.lstm[name] = lstm(self.theta, "schedule_", affine(self.theta, "schedule_project", x) + pooled, *self.lstm[name])
            (h,) = affine(self.theta, "schedule_head", self.lstm[name][0])
            self.multipliers.append(0.1 * np.exp(h))
            if self.options["direction"] == "adam":
                step = self.options["step_mult"] * self.adam[name].step(param, grad)
            else:
                step = direction(self.network, param, self.accumulators[name].features(param, grad), self.options)
            steps[name] = 0.1 * np.exp(h) * step
        return steps


class RNNMLPReference:
    """Corrections by powers of the decays, as released."""

    decays = (0.5, 0.9, 0.99, 0.999, 0.9999)

    def __init__(self, theta, shapes, options):
        self.theta = theta
        self.m = {name: np.zeros((5, *shape)) for name, shape in shapes.items()}
        self.v = {name: np.zeros((5, *shape)) for name, shape in shapes.items()}
        self.lstm = dict.fromkeys(shapes, (theta["initial_hidden"], theta["initial_cell"]))
        self.from_mlp = dict.fromkeys(shapes, theta["initial_from_mlp"])
        self.from_lstms, self.clip = theta["initial_from_lstms"], 0.01
        self.mean = self.variance = 0.0

    def loss_features(self, t, loss):
        self.mean = 0.9 * self.mean + 0.1 * loss
        self.variance = 0.9 * self.variance + 0.1 * (self.mean - loss) ** 2
        correction = 1 / (1 - 0.9 ** (t + 1))
        return [np.clip((x - self.mean * correction) / np.sqrt(self.variance * correction + 1e-8), -5, 5) for x in (loss, 0.0)]

    def step(self, params, grads, t, loss, horizon):
        def size(x):
            return np.clip(np.log(1e-8 + abs(x)), -5, 5)

        train, valid = self.loss_features(t, loss)
        limit = 10 * self.clip / (1 - 0.99 ** (t + 1))
        grads = {name: np.clip(grad, -limit, limit) for name, grad in grads.items()}
        self.clip = 0.99 * self.clip + 0.01 * np.sqrt(1e-8 + np.mean([np.mean(grad**2) for grad in grads.values()]))
        steps, for_all = {}, []
        for name, param in params.items():
            grad = grads[name]
            for k, b in enumerate(self.decays):
                self.m[name][k] = b * self.m[name][k] + (1 - b) * grad
                self.v[name][k] = b * self.v[name][k] + (1 - b) * grad**2
            m, v = self.m[name], self.v[name]
            values = {"from_lstm": self.from_lstms, "from_mlp": self.from_mlp[name], "g_norm": size(np.linalg.norm(grad))}
            values |= {"mean_ms_mag": size(np.mean(m)), "mean_ms_sign": np.sign(np.mean(m)), "var_ms": size(np.var(m))}
            values |= {"mean_rms": size(np.mean(v)), "mean_sign": np.sign(np.mean(v)), "var_rms": size(np.var(v))}
            values |= {"mean_v_mag": size(np.mean(param)), "mean_v_sign": np.sign(np.mean(param)), "var_v": size(np.var(param))}
            values |= {"norm_weight": size(np.linalg.norm(param)), "is_scalar": 1.0 if param.shape in ((), (1,)) else -1.0}
            values |= {"train_loss_feat": train, "valid_loss_feat": valid}
            values |= {f"shape_{j}": np.log(([*param.shape] + [1.0] * 4)[j]) - 1 for j in range(4)}
            x = np.concatenate([np.atleast_1d(values[key]) for key in sorted(values)])
            assert len(x) == 52
            self.lstm[name] = lstm(self.theta, "", x, *self.lstm[name])
            h = self.lstm[name][0]
            for_all.append(affine(self.theta, "to_lstms", h))
            root = 1 / np.sqrt(v + 1e-6)
            columns = {"flat_g": [grad], "flat_v": [param], "log_abs_v": [np.log(abs(param) + 1e-8)], "m": m, "rms": v}
            columns |= {"rms_scaled_g": m * root, "rsqrt": root}
            flat = np.stack([np.reshape(one, -1) for key in sorted(columns) for one in columns[key]])
            assert len(flat) == 23
            flat = flat / np.sqrt(1e-5 + np.mean(flat**2, axis=1, keepdims=True))
            known = [np.log(len(params)) - 1, np.log(np.linalg.norm(param) + 1e-8), np.log(param.size)]
            rest = [*(np.sin(t / (np.pi * c)) for c in TIMES), *known, *affine(self.theta, "to_mlp", h)]
            out = mlp(self.theta, np.concatenate([flat, np.tile(np.array(rest)[:, None], (1, param.size))]))
            steps[name] = (1e-3 * out[0] * np.exp(1e-3 * out[1])).reshape(param.shape)
            self.from_mlp[name] = out[2:].mean(1)
        self.from_lstms = np.mean(for_all, axis=0)
        return steps


class HierarchicalRNNReference:
    """One weight at a time."""

    def __init__(self, theta, shapes, options):
        self.theta, self.model = theta, theta["model_initial"]
        self.tensor = dict.fromkeys(shapes, theta["tensor_initial"])
        self.weights = {
            (name, i): {
                "m": [0.0] * 4,
                "v": [0.0] * 4,
                "d": 0.0,
                "s": 0.0,
                "rate": theta["initial_log_rate"][0],
                "h": theta["weight_initial"],
            }
            for name, shape in shapes.items()
            for i in np.ndindex(shape)
        }

    def gru(self, level, x, h, bias):
        n = len(h)
        r, u = np.split(sigmoid(affine(self.theta, f"{level}_gates", np.concatenate([x, h])) + bias[: 2 * n]), 2)
        return u * h + (1 - u) * np.tanh(affine(self.theta, f"{level}_candidate", np.concatenate([x, r * h])) + bias[2 * n :])

    def step(self, params, grads, t, loss, horizon):
        steps, momentum = {}, sigmoid(self.theta["rate_momentum"][0])
        from_model = {below: affine(self.theta, f"model_to_{below}", self.model) for below in ("weight", "tensor")}
        for name, param in params.items():
            places = list(np.ndindex(param.shape))
            mean_rate = np.mean([self.weights[name, i]["rate"] for i in places])
            inputs, outputs, rates = [], [], []
            for i in places:
                w = self.weights[name, i]
                decays = [w["d"] ** (0.5**k) if w["d"] else 0.0 for k in range(4)]
                w["m"] = [(1 - d) * grads[name][i] + d * m for d, m in zip(decays, w["m"], strict=True)]
                w["v"] = [(1 - w["s"]) * (m**2 + 1e-12) + w["s"] * v for m, v in zip(w["m"], w["v"], strict=True)]
                scaled = [np.arcsinh(m / np.sqrt(v + 1e-16)) for m, v in zip(w["m"], w["v"], strict=True)]
                sizes = np.log(np.array(w["v"]) + 1e-16)
                x = np.array([*scaled, *(sizes - sizes.mean()), w["rate"] - mean_rate])
                w["h"] = self.gru("weight", x, w["h"], affine(self.theta, "tensor_to_weight", self.tensor[name]) + from_model["weight"])
                outputs.append((self.theta["direction_weight"] @ w["h"])[0] + self.theta["shortcut"] @ scaled)
                w["d"], w["s"] = (sigmoid(affine(self.theta, f"{key}_decay", w["h"]))[0] for key in ("input", "scale"))
                wanted = np.clip(w["rate"] + affine(self.theta, "rate", w["h"])[0], -33, 33)
                w["rate"] = momentum * w["rate"] + (1 - momentum) * wanted
                rates.append(wanted)
                inputs.append(x)
            unit = np.array(outputs) / np.sqrt(np.mean(np.square(outputs)) + 1e-16)
            steps[name] = (np.exp(np.array(rates) + self.theta["rate_offset"][0]) * unit).reshape(param.shape)
            means = np.concatenate([np.mean([self.weights[name, i]["h"] for i in places], axis=0), np.mean(inputs, axis=0)])
            self.tensor[name] = self.gru("tensor", means, self.tensor[name], from_model["tensor"])
        self.model = self.gru("model", np.mean(list(self.tensor.values()), axis=0), self.model, np.zeros(3 * len(self.model)))
        return steps
