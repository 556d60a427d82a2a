"""The learned rules once more, in float64 NumPy, one weight at a time, from the published formulas; shares no code with the rules."""

import itertools

import numpy as np


def _network(theta, inputs):
    hidden = np.asarray(inputs)
    layers = sum(name.startswith("w") for name in theta)
    for i in range(layers):
        hidden = theta[f"w{i}"] @ hidden + theta[f"b{i}"]
        if i < layers - 1:
            hidden = np.maximum(hidden, 0.0)
    return hidden


def _rms_normalised(feature, eps):
    return feature / np.sqrt(eps + np.mean(feature**2))


class MLPReference:
    """19 features, 32-32 hidden units: step = 1e-3 direction exp(1e-3 magnitude)."""

    decays = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)

    def __init__(self, theta, shape):
        self.theta, self.m, self.t = theta, [np.zeros(shape) for _ in self.decays], 0

    def step(self, param, grad):
        self.m = [b * m + (1 - b) * grad for b, m in zip(self.decays, self.m, strict=True)]
        features = [_rms_normalised(f, 1e-5) for f in (grad, param, *self.m)]
        time = [np.tanh(self.t / c - 1) for c in (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)]
        out = np.zeros(param.shape)
        for i in np.ndindex(param.shape):
            direction, magnitude = _network(self.theta, [f[i] for f in features] + time)
            out[i] = 1e-3 * direction * np.exp(1e-3 * magnitude)
        self.t += 1
        return out


class Celo2Reference:
    """30 features (15 for rank <= 1), 8-8 hidden units; whole-tensor normalisation, scale-free clipping, learned log steps."""

    def __init__(self, theta, shape, output):
        self.theta, self.shape, self.output = theta, shape, output
        self.decays = (0.9, 0.99, 0.999)
        self.m = [np.zeros(shape) for _ in self.decays]
        self.v = np.zeros(shape)
        self.second = [{} for _ in self.decays]  # index -> accumulated mean square: whole index, or the index without one axis
        order = np.argsort(shape, kind="stable")
        self.largest, self.next = (int(order[-1]), int(order[-2])) if len(shape) >= 2 else (None, None)

    @staticmethod
    def _without(index, axis):
        return (axis, *index[:axis], *index[axis + 1 :])

    def _factored(self, grad):
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

    def step(self, param, grad):
        self.m = [b * m + (1 - b) * grad for b, m in zip(self.decays, self.m, strict=True)]
        self.v = 0.95 * self.v + 0.05 * grad**2
        inverse = 1 / np.sqrt(self.v + 1e-8)
        limit = 0.1 * np.sqrt(np.mean(grad**2))
        factored = self._factored(grad)
        features = [grad, np.clip(grad, -limit, limit), param, *self.m, self.v, *(m * inverse for m in self.m), inverse]
        features += [grad * f for f, _, _ in factored] + [grad * inverse]
        if self.largest is not None:
            rows, columns = [r for _, r, _ in factored], [c for _, _, c in factored]
            features += rows + columns + [1 / np.sqrt(x + 1e-8) for x in itertools.chain(rows, columns)]
            features += [m * f for m, (f, _, _) in zip(self.m, factored, strict=True)]
        inputs = [_rms_normalised(f, 1e-9) for f in features]
        inputs += [np.zeros(self.shape)] * (30 - len(inputs))  # the first layer's other columns see nothing
        out = np.zeros(self.shape)
        for i in np.ndindex(self.shape):
            out[i] = _network(self.theta, [f[i] for f in inputs])[0]
        size = np.sqrt(1e-9 + np.mean((self.m[0] * inverse) ** 2)) if self.output == "graft" else 1.0
        log_step = self.theta["log_step"][0 if len(self.shape) >= 2 else 1]
        return np.exp(log_step) * size * out / np.sqrt(1e-9 + np.mean(out**2))


class LearnableAdamReference:
    """Adam with 1 - beta, eps and the rate as exponentials."""

    def __init__(self, theta, shape):
        self.lr, self.eps = np.exp(theta["log_lr"]), np.exp(theta["log_eps"])
        self.betas = [1 - np.exp(theta[f"log_one_minus_beta{i}"]) for i in (1, 2)]
        self.m, self.v, self.t = np.zeros(shape), np.zeros(shape), 0

    def step(self, param, grad):
        self.t += 1
        b1, b2 = self.betas
        self.m, self.v = b1 * self.m + (1 - b1) * grad, b2 * self.v + (1 - b2) * grad**2
        return self.lr * (self.m / (1 - b1**self.t)) / (np.sqrt(self.v / (1 - b2**self.t)) + self.eps)
