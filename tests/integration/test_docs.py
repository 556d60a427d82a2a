"""The code of the README and of every page of the docs runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
CODE = {name: BLOCK.findall(path.read_text("utf-8")) for name, path in PAGES.items()}
# What must hold after the code of a page.
AFTERWARDS = {"README.md": "assert float(loss) < 0.1, float(loss)"}
SLOW = {"docs/environment.md"}  # starts a Ray of its own


def marked(page: str) -> object:
    return pytest.param(page, marks=pytest.mark.slow) if page in SLOW else page


@pytest.mark.parametrize("page", [marked(name) for name, blocks in CODE.items() if blocks])
def test_the_python_of_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    code = "\n".join([*CODE[page], AFTERWARDS.get(page, "")])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", PAGES[page].read_text("utf-8")):
        if "://" not in target:
            assert (PAGES[page].parent / target).exists(), target
