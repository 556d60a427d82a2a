"""An artifact comes back bit for bit, or not at all: every damage is one line that says what is wrong."""

import json
import os
import pickle
import shutil
from pathlib import Path

import jsonschema
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import metaopt
from metaopt.artifacts import Artifact, list_artifacts, load, new_card
from metaopt.artifacts.card import card_bytes, seal_card
from metaopt.errors import UnsafeArtifactError

WEIGHTS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(0.5, dtype=torch.float64), "n": torch.tensor([1, 2])}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METAOPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "artifacts"


@pytest.fixture
def artifact() -> Artifact:
    return Artifact(new_card("small-one", "mlp", options={"graft": True}, training={"seeds": [0], "outer_steps": 50}), WEIGHTS)


@pytest.fixture
def folder(artifact: Artifact, tmp_path: Path) -> Path:
    return artifact.save(tmp_path / "runs" / "artifact")


def refusal(place: object) -> str:
    with pytest.raises(UnsafeArtifactError) as caught:
        load(place)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def rewrite_card(folder: Path, **fields: object) -> None:
    """Change the card and seal it again, as somebody with bad intentions or another version would."""
    card = json.loads((folder / "card.json").read_text())
    card = seal_card({**card, **fields}, (folder / "weights.safetensors").read_bytes())
    (folder / "card.json").write_bytes(card_bytes({**card, "schema_version": fields.get("schema_version", 1)}))


def test_round_trip_is_exact(folder: Path) -> None:
    again = load(folder)
    assert again.name == "small-one"
    assert again.card["rule"] == {"name": "mlp", "version": 1, "options": {"graft": True}}
    assert again.card["training"]["outer_steps"] == 50
    assert again.card["training"]["device_hours"] == 0.0
    assert again.card["metaopt_version"] == metaopt.__version__
    assert set(again.weights) == set(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        assert again.weights[name].dtype == tensor.dtype
        assert torch.equal(again.weights[name], tensor)


def test_equal_artifacts_give_equal_bytes(artifact: Artifact, folder: Path, tmp_path: Path) -> None:
    reordered = Artifact(dict(reversed(artifact.card.items())), dict(reversed(WEIGHTS.items())))
    for other in (reordered.save(tmp_path / "second"), load(folder).save(tmp_path / "third")):
        assert sorted(os.listdir(other)) == ["card.json", "weights.safetensors"]
        for member in os.listdir(other):
            assert (other / member).read_bytes() == (folder / member).read_bytes()


def test_views_and_shared_storage_are_kept(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    again = load(Artifact(new_card("views", "mlp"), {"base": base, "row": base[1], "turned": base.T}).save(tmp_path / "v"))
    assert torch.equal(again.weights["turned"], base.T)
    assert torch.equal(again.weights["row"], base[1])


def test_no_weights_at_all(tmp_path: Path) -> None:
    assert load(Artifact(new_card("classic", "sgd"), {}).save(tmp_path / "c")).weights == {}


def test_saving_replaces_an_artifact_but_nothing_else(artifact: Artifact, folder: Path, tmp_path: Path) -> None:
    Artifact({**artifact.card, "licence": "MIT"}, {"other": torch.ones(1)}).save(folder)
    assert load(folder).card["licence"] == "MIT"
    assert os.listdir(folder.parent) == ["artifact"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UnsafeArtifactError, match="no artifact"):
        artifact.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_a_failed_save_leaves_the_old_artifact(artifact: Artifact, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Artifact(artifact.card, {}).save(folder)
    assert set(load(folder).weights) == set(WEIGHTS)
    assert os.listdir(folder.parent) == ["artifact"]


def test_every_flipped_bit_is_noticed(folder: Path) -> None:
    good = load(folder)
    for member in ("card.json", "weights.safetensors"):
        content = (folder / member).read_bytes()
        for index in range(0, len(content) * 8, 37):  # 37 and 8 have no common factor: every bit place is met
            broken = bytearray(content)
            broken[index // 8] ^= 1 << index % 8
            (folder / member).write_bytes(broken)
            try:
                read = load(folder)
            except UnsafeArtifactError:
                continue
            # Only another spelling of the same card can pass, such as 1E-3 for 1e-3.
            assert member == "card.json", f"bit {index} of the weights"
            assert read.card == good.card, f"bit {index} of the card"
        (folder / member).write_bytes(content)


def test_every_cut_is_noticed(folder: Path) -> None:
    for member in ("card.json", "weights.safetensors"):
        content = (folder / member).read_bytes()
        for sixteenth in range(16):
            (folder / member).write_bytes(content[: len(content) * sixteenth // 16])
            assert "cut" in refusal(folder)
        (folder / member).unlink()
        assert f"{member} is missing" in refusal(folder)
        (folder / member).write_bytes(content)


def test_a_newer_schema_says_upgrade(folder: Path) -> None:
    rewrite_card(folder, schema_version=2, something_new={"later": True})
    assert "card schema 2 is newer than 1" in (message := refusal(folder))
    assert "upgrade metaopt" in message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "optimizer"}, "kind"),
        ({"schema_version": "1"}, "schema_version"),
        ({"schema_version": True}, "schema_version"),
        ({"name": "../up"}, "name"),
        ({"rule": {"name": "mlp", "version": 0, "options": {}}}, "rule.version"),
        ({"step": {"base_lr": -1.0, "default_schedule": None}}, "step.base_lr"),
        ({"step": {"base_lr": 1.0, "default_schedule": {"warmup_frac": 2.0, "final_frac": 0.0}}}, "step.default_schedule.warmup_frac"),
        ({"scores": [{"suite": "quick"}]}, "scores[0]"),
        ({"licens": "MIT"}, "licens"),
    ],
)
def test_a_card_that_is_not_valid_names_the_field(folder: Path, change: dict[str, object], named: str) -> None:
    rewrite_card(folder, **change)
    assert named in refusal(folder)


def test_an_edited_card_and_one_without_a_field(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "licence": "mine"}))
    assert "card_sha256" in refusal(folder)
    (folder / "card.json").write_text(json.dumps({key: value for key, value in card.items() if key != "training"}))
    assert "'training' is a required property" in refusal(folder)
    for text in ("[]", "null", "NaN", '{"a": 1, "a": 2}', "[" * 100_000, "\xff"):
        (folder / "card.json").write_bytes(text.encode("latin-1"))
        refusal(folder)


def test_whole_weights_that_are_no_safetensors(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(folder.parent / "marker"),)

    (folder / "weights.safetensors").write_bytes(pickle.dumps(Evil()))
    rewrite_card(folder)
    assert "not a safetensors file" in refusal(folder)
    assert not (folder.parent / "marker").exists()


@pytest.mark.parametrize("name", ["theta.pkl", "weights.pt", ".hidden", "weights.safetensors.bak"])
def test_foreign_files_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x80\x04.")
    assert repr(name) in refusal(folder)


def test_links_and_folders_inside_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert "symbolic link" in refusal(tmp_path / "link")
    shutil.move(folder / "card.json", tmp_path / "card.json")
    (folder / "card.json").symlink_to(tmp_path / "card.json")
    assert "'card.json' is a symbolic link" in refusal(folder)
    (folder / "card.json").unlink()
    os.mkfifo(folder / "card.json")
    assert "'card.json' does not belong" in refusal(folder)
    assert "is no folder" in refusal(tmp_path / "card.json")


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc/passwd", "a/../b", "/nowhere/at/all", "~root", "a\0b", "x" * 5000, "-rf", "a b", "café"]
)
def test_hostile_names(name: str) -> None:
    refusal(name)


@given(st.text(max_size=30))
def test_any_text_is_refused_in_one_line(text: str) -> None:
    assume(not os.path.lexists(text.replace("\0", "")))
    with pytest.raises(UnsafeArtifactError) as caught:
        load(text)
    assert len(str(caught.value).splitlines()) == 1


def test_names_are_looked_up_in_the_cache_and_near_ones_are_named(artifact: Artifact, cache: Path) -> None:
    artifact.save(cache / "small-one")
    assert load("small-one").name == "small-one"
    assert {"name": "small-one", "kind": "update_rule", "path": str(cache / "small-one")} in list_artifacts()
    assert "did you mean small-one" in refusal("small_one")
    (cache / "elsewhere").symlink_to(cache / "small-one")
    refusal("elsewhere")
    assert "elsewhere" not in {row["name"] for row in list_artifacts()}


def test_everything_bundled_loads() -> None:
    for row in list_artifacts():
        assert load(row["name"]).card["kind"] == row["kind"]


def test_the_schema_is_a_schema() -> None:
    text = Path(metaopt.artifacts.__file__).with_name("card.schema.json").read_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


def test_saving_refuses_a_bad_card(tmp_path: Path) -> None:
    with pytest.raises(UnsafeArtifactError, match="kind"):
        Artifact({**new_card("x", "sgd"), "kind": "magic"}, {}).save(tmp_path / "x")
    assert not list(tmp_path.glob("*"))
