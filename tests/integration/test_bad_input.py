"""Bad calls, configs and artifacts: the exact line on standard error, exit status 2, and nothing written."""

import importlib.util
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from metaopt import tasks
from metaopt.artifacts import Artifact, new_card
from metaopt.cli.main import cli
from metaopt.config import bundled_configs
from metaopt.devices import available_devices
from metaopt.estimators import ESTIMATORS
from metaopt.learners.update_rules import CLASSIC, MODEL_RULES, RULES
from metaopt.outer.run_directory import RunDirectory

GOOD = """\
name: good
learner:
  rule: celo2_base
tasks:
  - family: quadratic
    shards: 2
    horizon: [10, 20]
outer:
  steps: 2
  shard_particles: 1
  estimator:
    name: pes
    window: 5
    sigma: 1e-2
  optimizer:
    lr: 1e-3
"""

CONFIGS = ", ".join(bundled_configs())
LEARNED = ", ".join([*(name for name in RULES if name not in CLASSIC), *MODEL_RULES])
FAMILIES = ", ".join(sorted(tasks.names()))
KEYS_OF_OUTER = "steps, shard_particles, shards_per_step, threads_per_worker, estimator, optimizer, max_skipped, phases, curriculum, average, mixing, costs"
NAME_RULE = "1 to 100 letters, digits, single dots, dashes and underscores, the first a letter or digit"

# What bad.yaml changes in GOOD: (old, new, message). The place in each message is the line of what is wrong.
FILES = {
    "misspelt key": ("  steps: 2", "  stpes: 2", "unknown key outer.stpes; did you mean outer.steps? (bad.yaml:9)"),
    "key in the wrong section": ("name: good", "name: good\nsigma: 0.1", "unknown key sigma; did you mean outer.estimator.sigma? (bad.yaml:2)"),
    "key unlike any": ("  steps: 2", "  steps: 2\n  zzz: 2", f"unknown key outer.zzz; allowed: {KEYS_OF_OUTER} (bad.yaml:10)"),
    "option of another rule": ("celo2_base", "celo2_base\n  hidden: [8]", "unknown key learner.hidden; allowed: rule, schedule, weight_decay, start, output (bad.yaml:4)"),
    "key without a value": ("  steps: 2", "  steps:", "outer.steps must be a whole number, got null (bad.yaml:9)"),
    "key that is missing": ("  steps: 2\n", "", "outer.steps is missing (bad.yaml:8)"),
    "kind that is missing": ("    name: pes\n", "", "outer.estimator.name is missing (bad.yaml:11)"),
    "zero where positive": ("1e-2", "0.0", "outer.estimator.sigma must be > 0, got 0.0 (bad.yaml:14)"),
    "not a number": ("1e-2", ".nan", "outer.estimator.sigma must be a finite number, got nan (bad.yaml:14)"),
    "infinite": ("1e-3", "-.inf", "outer.optimizer.lr must be a finite number, got -inf (bad.yaml:16)"),
    "overflows": ("1e-3", "1e999", "outer.optimizer.lr must be a finite number, got inf (bad.yaml:16)"),
    "text for a number": ("1e-3", "1e-3x", "outer.optimizer.lr must be a number, got '1e-3x' (bad.yaml:16)"),
    "bool for an integer": ("steps: 2", "steps: true", "outer.steps must be a whole number, got true (bad.yaml:9)"),
    "float for an integer": ("steps: 2", "steps: 1e3", "outer.steps must be a whole number, got 1000.0 (bad.yaml:9)"),
    "bool of YAML 1.1": ("name: good", "name: good\ncompile: off", "compile must be true or false, got 'off' (bad.yaml:2)"),
    "unknown rule": ("celo2_base", "celo2base", f"learner.rule must be one of {LEARNED}, got 'celo2base'; did you mean celo2_base? (bad.yaml:3)"),
    "code for a name": ("celo2_base", "os.system", f"learner.rule must be one of {LEARNED}, got 'os.system' (bad.yaml:3)"),
    "unknown family": ("quadratic", "quadratics", f"tasks.0.family must be one of {FAMILIES}, got 'quadratics'; did you mean quadratic? (bad.yaml:5)"),
    "family for evaluation": ("quadratic", "digits_conv", "tasks.0.family must have meta_train templates, got 'digits_conv', which is for evaluation only (bad.yaml:5)"),
    "unknown estimator": ("name: pes", "name: persistent", f"outer.estimator.name must be one of {', '.join(ESTIMATORS)}, got 'persistent' (bad.yaml:12)"),
    "unknown precision": ("name: good", "name: good\nprecision: fp16", "precision must be one of float32, got 'fp16' (bad.yaml:2)"),
    "range backwards": ("[10, 20]", "[20, 10]", "tasks.0.horizon must be [low, high] with low <= high, got [20, 10] (bad.yaml:7)"),
    "range of three": ("[10, 20]", "[1, 2, 3]", "tasks.0.horizon must have 2 elements, got [1, 2, 3] (bad.yaml:7)"),
    "range of one": ("[10, 20]", "[10]", "tasks.0.horizon.1 is missing (bad.yaml:7)"),
    "window above the horizon": ("window: 5", "window: 11", "outer.estimator.window must be <= 10, the shortest horizon of the tasks, got 11 (bad.yaml:13)"),
    "more shards than there are": ("steps: 2", "steps: 2\n  shards_per_step: 3", "outer.shards_per_step must be <= 2, the shards of all tasks, got 3 (bad.yaml:10)"),
    "open end of a range": ("lr: 1e-3", "lr: 1e-3\n    betas: [0.9, 1.0]", "outer.optimizer.betas.1 must be < 1, got 1.0 (bad.yaml:17)"),
    "share of nothing": ("steps: 2", "steps: 2\n  phases: [{share: 0.0}]", "outer.phases.0.share must be > 0, got 0.0 (bad.yaml:10)"),
    "phase without a step": ("steps: 2", "steps: 2\n  phases:\n    - share: 9\n    - share: 1", "outer.phases.1.share must give the phase a step of the 2, got 1.0 (bad.yaml:12)"),
    "phase that trains nothing": ("steps: 2", "steps: 2\n  phases: [{train: []}]", "outer.phases.0.train must have 1 or more elements, got [] (bad.yaml:10)"),
    "pattern of a phase that is near": ("steps: 2", "steps: 2\n  phases: [{train: ['*', w9]}]", "outer.phases.0.train.1 must match an entry of theta, got 'w9'; nearest: w2; there are w0, b0, w1, b1, w2, b2, log_step (bad.yaml:10)"),
    "pattern of a phase unlike any": ("steps: 2", "steps: 2\n  phases: [{train: [lstm.*]}]", "outer.phases.0.train.0 must match an entry of theta, got 'lstm.*'; nearest: log_step; there are w0, b0, w1, b1, w2, b2, log_step (bad.yaml:10)"),
    "phase shorter than the window": ("steps: 2", "steps: 2\n  phases: [{horizon: [4, 9]}]", "outer.phases.0.horizon.0 must be >= 5, the window of the estimator, got 4 (bad.yaml:10)"),
    "horizon of a phase backwards": ("steps: 2", "steps: 2\n  phases: [{horizon: [9, 8]}]", "outer.phases.0.horizon must be [low, high] with low <= high, got [9, 8] (bad.yaml:10)"),
    "misspelt key of a phase": ("steps: 2", "steps: 2\n  phases: [{tain: [w0]}]", "unknown key outer.phases.0.tain; did you mean outer.phases.0.train? (bad.yaml:10)"),
    "curriculum that begins late": ("steps: 2", "steps: 2\n  curriculum: [{from_frac: 0.5}]", "outer.curriculum.0.from_frac must be 0 in the first stage, got 0.5 (bad.yaml:10)"),
    "curriculum out of order": ("steps: 2", "steps: 2\n  curriculum:\n    - from_frac: 0\n    - from_frac: 0.5\n    - from_frac: 0.5", "outer.curriculum.2.from_frac must be > 0.5, that of the stage before, got 0.5 (bad.yaml:13)"),
    "stage without templates": ("steps: 2", "steps: 2\n  curriculum: [{from_frac: 0, template_frac: 0}]", "outer.curriculum.0.template_frac must be > 0, got 0 (bad.yaml:10)"),
    "stage past all horizons": ("steps: 2", "steps: 2\n  curriculum: [{from_frac: 0, horizon_frac: 1.5}]", "outer.curriculum.0.horizon_frac must be <= 1, got 1.5 (bad.yaml:10)"),
    "average that grows": ("steps: 2", "steps: 2\n  average: {decay: 1.1}", "outer.average.decay must be <= 1, got 1.1 (bad.yaml:10)"),
    "average that never starts": ("steps: 2", "steps: 2\n  average: {start_frac: 1.0}", "outer.average.start_frac must be < 1, got 1.0 (bad.yaml:10)"),
    "average that is no section": ("steps: 2", "steps: 2\n  average: 0.9", "outer.average must be a mapping of keys to values, got 0.9 (bad.yaml:10)"),
    "mixing of all shards": ("steps: 2", "steps: 2\n  mixing: equal_time", "outer.mixing must be equal_shards while outer.shards_per_step is null (all work), got 'equal_time' (bad.yaml:10)"),
    "costs without a use": ("steps: 2", "steps: 2\n  costs: {quadratic: 1.0}", "outer.costs must be null unless outer.mixing is equal_time, got it with 'equal_shards' (bad.yaml:10)"),
    "costs of others": ("steps: 2", "steps: 2\n  shards_per_step: 1\n  mixing: equal_time\n  costs: {digits: 1.0}", "outer.costs must have a cost for each family of tasks (quadratic), got digits (bad.yaml:12)"),
    "cost of nothing": ("steps: 2", "steps: 2\n  shards_per_step: 1\n  mixing: equal_time\n  costs: {quadratic: 0.0}", "outer.costs.quadratic must be > 0, got 0.0 (bad.yaml:12)"),
    "validation without a period": ("name: good", "name: good\nvalidation: {}", "validation.every_steps is missing (bad.yaml:2)"),
    "validation of what is no objective": ("name: good", "name: good\nvalidation: {every_steps: 1, objective: test}", "validation.objective must be one of heldout, train, got 'test' (bad.yaml:2)"),
    "validation with one particle": ("name: good", "name: good\nvalidation: {every_steps: 1, particles: 1}", "validation.particles must be >= 2, got 1 (bad.yaml:2)"),
    "validation without patience": ("name: good", "name: good\nvalidation: {every_steps: 1, patience: 0}", "validation.patience must be >= 1, got 0 (bad.yaml:2)"),
    "validation on an evaluation family": ("name: good", "name: good\nvalidation: {every_steps: 1, tasks: [digits_conv]}", "validation.tasks.0 must have meta_valid templates, got 'digits_conv', which has none (bad.yaml:2)"),
    "options that do not go together": ("name: pes\n", "name: gpes\n    reuse_steps: 7\n", "outer.estimator cannot be used: reuse_steps must be a multiple of window=5, got 7 (bad.yaml:11)"),
    "name that leaves the folder": ("name: good", "name: ../good", f"name must be {NAME_RULE}, got '../good' (bad.yaml:1)"),
    "set twice": ("steps: 2", "steps: 2\n  steps: 3", "outer.steps is set twice, first on line 9 (bad.yaml:10)"),
    "alias": ("name: good", "name: &n good\nseed: *n", "aliases (*name) are not allowed in a config (bad.yaml:2)"),
    "tag": ("celo2_base", "!!python/name:os.system", "tags (tag:yaml.org,2002:python/name:os.system) are not allowed in a config (bad.yaml:3)"),
    "list for a section": ("name: good", "name: good\ncheckpoint: [5]", "checkpoint must be a mapping of keys to values, got [5] (bad.yaml:2)"),
}  # fmt: skip

# Calls of the command: (arguments, message).
CALLS = {
    "config unlike any": (["train", "quikstart"], f"config 'quikstart' is unknown; did you mean 'quickstart'? known: {CONFIGS}; or give the path of a .yaml file"),
    "config file that is not there": (["train", "no/such.yaml"], "config file 'no/such.yaml' does not exist"),
    "config that is a folder": (["train", "./folder"], f"config './folder' is unknown; known: {CONFIGS}; or give the path of a .yaml file"),
    "config that is empty": (["train", "empty.yaml"], "a config must be a mapping of keys to values, got null (empty.yaml)"),
    "config that is binary": (["train", "binary.yaml"], "config file binary.yaml is not UTF-8 text"),
    "negative steps": (["train", "good.yaml", "outer.steps=-1"], "outer.steps must be >= 1, got -1 (override outer.steps=-1)"),
    "misspelt override": (["train", "good.yaml", "outer.sigma=1"], "unknown key outer.sigma; did you mean outer.estimator.sigma? (override outer.sigma=1)"),
    "override without a value": (["train", "good.yaml", "outer.steps"], "an override must be key=value, got 'outer.steps'"),
    "override without a key": (["train", "good.yaml", "=3"], "an override must be key=value with a key like outer.steps, got '=3'"),
    "override that is no YAML": (["train", "good.yaml", "tasks.0.horizon=[1"], "while parsing a flow sequence, expected ',' or ']', but got '<stream end>' (override tasks.0.horizon=[1)"),
    "override below a value": (["train", "good.yaml", "outer.steps.x=1"], "outer.steps is 2, which has no x (override outer.steps.x=1)"),
    "override past a list": (["train", "good.yaml", "tasks.1.shards=1"], "tasks has elements 0 to 0, got 1 (override tasks.1.shards=1)"),
    "estimator that cannot be compiled": (["train", "good.yaml", "outer.estimator={name: forward_mode, window: 5, tangents: 1}", "compile=true"], "estimator forward_mode runs uncompiled only, got compile=true; set compile: false"),
    "backend that cannot run the rule": (["train", "good.yaml", "outer.estimator={name: full_backprop, backend: higher}"], "backend higher runs the rules sgd, momentum, adam, got 'celo2_base'; use backend own"),
    "option and override": (["train", "good.yaml", "--seed", "3", "seed=4"], "seed is set twice: --seed 3 and seed=4"),
    "override twice": (["train", "good.yaml", "seed=3", "seed=3"], "seed is set twice: seed=3 and seed=3"),
    "override and its section": (["train", "good.yaml", "checkpoint={}", "checkpoint.keep_last=1"], "checkpoint is set twice: checkpoint={} and checkpoint.keep_last=1"),
    "negative seed": (["train", "good.yaml", "--seed", "-3"], "seed must be >= 0, got -3 (--seed)"),
    "seed that is no number": (["train", "good.yaml", "--seed", "x"], "Invalid value for '--seed': 'x' is not a valid integer."),
    "artifact name as a path": (["train", "good.yaml", "artifact.name=a/b"], f"artifact.name must be {NAME_RULE}, got 'a/b' (override artifact.name=a/b)"),
    "device unlike any": (["train", "good.yaml", "--device", "gpu"], "device 'gpu' is unknown; did you mean 'cpu'? known: auto, cpu, cuda, cuda:0, mps"),
    "device that is not there": (["train", "good.yaml", "--device", "cuda:99"], f"device 'cuda:99' is not on this machine; there are: {', '.join(available_devices())}"),
    "negative workers": (["train", "good.yaml", "--workers", "-1"], "Invalid value for '--workers': -1 is not in the range x>=0."),
    "address without workers": (["train", "good.yaml", "--address", "h:1"], "address 'h:1' needs workers >= 1, got 0: give the number of workers to start on that cluster"),
    "resume of nothing": (["train", "good.yaml", "--resume"], "resume needs the run directory to continue, got none: give run_dir (--run-dir)"),
    "run directory of others": (["train", "good.yaml", "--run-dir", "folder"], "run directory folder is not empty; continue it with --resume or give another path"),
    "resume of what is no run": (["train", "good.yaml", "--run-dir", "folder", "--resume"], "folder is no run directory (no config.yaml); give another path"),
    "run directory that is a file": (["train", "good.yaml", "--run-dir", "empty.yaml"], "run directory empty.yaml is a file; give another path"),
    "misspelt option": (["train", "good.yaml", "--sed", "3"], "No such option '--sed'. Did you mean '--seed'?"),
    "misspelt command": (["trian", "good.yaml"], "command 'trian' is unknown; did you mean 'train'? known: train, evaluate, list, show, doctor"),
    "command without its argument": (["train"], "Missing argument 'CONFIG'."),
    "list of what is no kind": (["list", "config"], "'config' cannot be listed; did you mean 'configs'? known: tasks, learners, configs, suites, baselines, artifacts"),
    "show of a foreign folder": (["show", "folder"], "'folder' is neither a run directory (config.yaml) nor an artifact (card.json)"),
    "evaluation of nothing": (["evaluate"], "Missing argument 'LEARNER...'."),
    "no seeds": (["evaluate", "adamw", "--seeds", "0"], "Invalid value for '--seeds': 0 is not in the range x>=1."),
    "unknown baseline": (["evaluate", "adamw", "--baselines", "sgd,adam_w"], "baseline 'adam_w' is unknown; did you mean 'adamw'? known: sgd, sgd_momentum, adamw, nadam, adam, radam, adafactor, muon, lion, schedule_free_adamw, prodigy, lbfgs, dog, ldog, hypergradient_sgd, hypergradient_momentum, hypergradient_adam, hypergradient_adamw, metaoptimize, hdm_best"),
    "unknown start": (["evaluate", "mlp@adam"], "learner 'mlp@adam': after '@' mlp takes start or random, got 'adam'"),
    "report over foreign files": (["evaluate", "adamw", "--out", "folder"], "out 'folder' exists and holds no report; give another folder or empty it"),
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAOPT_CACHE", str(tmp_path / "cache"))
    Path("good.yaml").write_text(GOOD)
    Path("empty.yaml").write_text("# nothing\n")
    Path("binary.yaml").write_bytes(b"name: \xff\xfe\n")
    Path("folder").mkdir()
    Path("folder/theirs.txt").write_text("precious")
    return tmp_path


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in root.rglob("*") if not p.is_symlink()}


def assert_refused(arguments: list[str], message: str, root: Path, status: int = 2) -> None:
    before = snapshot(root)
    result = CliRunner().invoke(cli, arguments)
    assert result.stderr == f"metaopt: {message}\n"
    assert (result.exit_code, result.stdout) == (status, "")
    assert snapshot(root) == before


@pytest.mark.parametrize("case", FILES)
def test_bad_config_file(case: str, here: Path) -> None:
    old, new, message = FILES[case]
    assert GOOD.count(old) == 1
    Path("bad.yaml").write_text(GOOD.replace(old, new))
    assert_refused(["train", "bad.yaml"], message, here)


@pytest.mark.parametrize("case", CALLS)
def test_bad_call(case: str, here: Path) -> None:
    arguments, message = CALLS[case]
    assert_refused(arguments, message, here)


def test_options_may_stand_anywhere(here: Path) -> None:
    message = "outer.steps must be >= 1, got 0 (override outer.steps=0)"
    for arguments in (["--seed", "1", "good.yaml", "outer.steps=0"], ["good.yaml", "outer.steps=0", "-q", "--seed", "1"]):
        assert_refused(["train", *arguments], message, here)


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_two_drivers_on_one_run_directory(resume: list[str], here: Path) -> None:
    with RunDirectory("held"):
        owner = f"process {os.getpid()} on {socket.gethostname()}"
        message = f"run directory held is in use by {owner}; wait for it or give another path"
        assert_refused(["train", "good.yaml", "--run-dir", "held", *resume], message, here)


def test_absurd_size_is_refused_with_the_estimate(here: Path) -> None:
    before = snapshot(here)
    result = CliRunner().invoke(cli, ["train", "good.yaml", "outer.shard_particles=1000000000"])
    assert result.exit_code == 2
    assert result.stderr.startswith("metaopt: outer.shard_particles = 1000000000 pairs in 2 shards need about ")
    assert result.stderr.endswith(" GiB: lower outer.shard_particles or tasks.*.shards\n")
    assert snapshot(here) == before


# What happens to an artifact that was good, and the message that `evaluate` and `show` give.


def _cut(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def _flip_weights(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))


def _edit_card(**fields: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps({**card, **fields}))

    return edit


def _add_pickle(folder: Path) -> None:
    (folder / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")


def _link_weights(folder: Path) -> None:
    (folder / "weights.safetensors").rename(folder.parent / "elsewhere")
    (folder / "weights.safetensors").symlink_to(folder.parent / "elsewhere")


ARTIFACTS = {
    "weights that are cut": (_cut, "art/weights.safetensors: has {less} bytes where the card says {bytes}; the file is cut or not its own"),
    "weights with a flipped bit": (_flip_weights, "art/weights.safetensors: differs from the card's sha256; the file is damaged, get a fresh copy"),
    "card from the future": (_edit_card(schema_version=9), "art/card.json: card schema 9 is newer than 1, the newest known here; upgrade metaopt"),
    "card that was edited": (_edit_card(licence="MIT"), "art/card.json: card_sha256: damaged or edited, the card differs from its hash; save it again with metaopt"),
    "weights that are gone": (lambda folder: (folder / "weights.safetensors").unlink(), "art: weights.safetensors is missing; an artifact is a folder with card.json and weights.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("verb", ["evaluate", "show"])
@pytest.mark.parametrize("case", ARTIFACTS)
def test_bad_artifact(case: str, verb: str, here: Path) -> None:
    damage, message = ARTIFACTS[case]
    size = _save_artifact().stat().st_size
    damage(Path("art"))
    assert_refused([verb, "./art"], message.format(bytes=size, less=size - 1), here)


@pytest.mark.parametrize("damage", [_add_pickle, _link_weights])
def test_artifact_with_what_does_not_belong(damage: Callable[[Path], None], here: Path) -> None:
    _save_artifact()
    damage(here / "art")
    before = snapshot(here)
    result = CliRunner().invoke(cli, ["evaluate", "./art"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("metaopt: art")
    assert snapshot(here) == before


@pytest.mark.parametrize("name", ["../art", "/etc/passwd/x", "a\x00b", "..", ".hidden", "a" * 5000, "~/art", "art; rm -rf /", ""])
def test_hostile_artifact_names(name: str, here: Path) -> None:
    _save_artifact()
    before = snapshot(here)
    result = CliRunner().invoke(cli, ["show", name])
    assert (result.exit_code, result.stderr.count("\n"), result.stdout) == (2, 1, "")
    assert snapshot(here) == before


def _save_artifact() -> Path:
    weights = {name: torch.tensor(-7.0) for name in ("log_lr", "log_one_minus_beta1", "log_one_minus_beta2", "log_eps")}
    Artifact(new_card("art", "learnable_adam"), weights).save("art")
    return Path("art/weights.safetensors")


def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else found(name, *rest))
    for call in (["train", "quickstart"], ["evaluate", "celo2-base"]):
        result = CliRunner().invoke(cli, [*call, "--workers", "2"])
        assert result.exit_code == 2
        assert result.stderr == "metaopt: workers=2 needs ray, which is not installed: pip install 'ray[default]>=2.54', or use 0 workers\n"
    assert not list(tmp_path.iterdir())
