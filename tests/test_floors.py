"""Imports go downward: a file imports from lower floors or from its own, and the core knows no web app."""

import ast
import ipaddress
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (
    ("errors", "config", "runs", "lock", "progress", "annotations"),
    ("data",),
    ("model",),
    ("evaluation",),
    ("training",),
    ("baselines",),
    ("search",),
    ("explain",),
    ("figures",),
    ("serving", "export"),
    ("rebuild", "model_card"),
    ("cli", "__main__", "background"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
BROUGHT_BY = dict.fromkeys(("tokenizers", "huggingface_hub"), "transformers")  # whose pin fixes them


def imported_modules(path):
    """Dotted names of everything that a file imports, at its top or inside a function, and its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level, node.lineno
            elif node.module == "darec":
                yield from ((f"darec.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def breaches(root):
    """One line for each import in `root/darec` that breaks the rule."""
    found = []
    for path in sorted((root / "darec").rglob("*.py")):
        parts = path.relative_to(root / "darec").with_suffix("").parts
        if parts == ("__init__",):
            continue
        room, name = parts[0], path.relative_to(root).as_posix()
        if room not in FLOOR_OF:
            found.append(f"{name} stands on no floor")
            continue
        for module, line in imported_modules(path):
            top, _, rest = module.partition(".")
            if module.startswith("."):
                found.append(f"{name}:{line} imports by a relative name")
            elif top in ("streamlit", "app"):
                found.append(f"{name}:{line} imports {top}")
            elif top == "darec":
                other = rest.partition(".")[0]
                if FLOOR_OF.get(other, len(FLOORS)) > FLOOR_OF[room]:
                    found.append(f"{name}:{line} imports {module} from above")
    return found


def test_imports_go_downward_and_the_core_knows_no_web_app():
    assert breaches(ROOT) == []


@pytest.mark.parametrize(
    ("file", "source", "breach"),
    [
        ("data/a.py", "from darec.model import masking", "darec/data/a.py:1 imports darec.model from above"),
        ("errors.py", "def f():\n    import darec.serving", "darec/errors.py:2 imports darec.serving from above"),
        ("model/a.py", "from darec import training", "darec/model/a.py:1 imports darec.training from above"),
        ("serving.py", "import streamlit as st", "darec/serving.py:1 imports streamlit"),
        ("figures/a.py", "from app.state import x", "darec/figures/a.py:1 imports app"),
        ("model/a.py", "from . import masking", "darec/model/a.py:1 imports by a relative name"),
        ("model/a.py", "import darec.nowhere", "darec/model/a.py:1 imports darec.nowhere from above"),
        ("helpers.py", "", "darec/helpers.py stands on no floor"),
    ],
)
def test_a_planted_breach_is_found(tmp_path, file, source, breach):
    path = tmp_path / "darec" / file
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert breaches(tmp_path) == [breach]


def test_lower_floors_and_the_own_folder_may_be_imported(tmp_path):
    path = tmp_path / "darec" / "model" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text("from darec.data.catalog import Catalog\nfrom darec.model.b import c\nimport torch\n")
    assert breaches(tmp_path) == []


def test_every_library_in_use_is_pinned():
    pinned = set(re.findall(r"^([\w-]+)==[\w.]+$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.M))
    files = [*(ROOT / "darec").rglob("*.py"), *(ROOT / "app").rglob("*.py"), ROOT / "streamlit_app.py"]
    used = {module.partition(".")[0] for path in files if path.exists() for module, _ in imported_modules(path)}
    libraries = {BROUGHT_BY.get(name, name) for name in used - sys.stdlib_module_names - {"darec", "app"}}
    assert libraries - pinned == set()


def test_what_sessions_share_stands_in_the_resources_alone():
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py")}
    assert {name for name, text in texts.items() if "st.cache_" in text} == {
        "resources.py",
        "intake_resources.py",
        "training_resources.py",
    }


def test_the_app_serves_this_machine_alone_and_tells_nobody_of_its_use():
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    server, browser, client = (config[section] for section in ("server", "browser", "client"))
    assert ipaddress.ip_address(server["address"]).is_loopback
    assert server["headless"]  # asks nobody for an address of mail
    assert server.get("enableCORS", True)
    assert server.get("enableXsrfProtection", True)
    assert browser["gatherUsageStats"] is False
    assert client["disableDataExport"]  # what is saved is disarmed before
    assert client["toolbarMode"] == "minimal"  # no button that publishes the app


def test_start_page_only_starts():
    assert len((ROOT / "streamlit_app.py").read_text(encoding="utf-8").splitlines()) <= 30
