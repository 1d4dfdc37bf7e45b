"""The app without a browser."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx
from streamlit.testing.v1 import AppTest

from app import resources
from darec.data.interactions import Dataset
from darec.model.recommender import DarecModel
from darec.runs import read_run
from darec.serving import Recommender

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_shipped_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The runs that a page finds are those that its test makes."""
    monkeypatch.setattr(resources, "DEMO", tmp_path / "no-demo")


@pytest.fixture(autouse=True)
def own_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that runs takes the place of the main module, from which processes that later tests start would begin."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def click_meanwhile() -> Callable[[], None]:
    """To be called while a page runs: a click on a button without a value, which ends the run at its next output."""

    def click() -> None:
        context = get_script_run_ctx()
        assert context is not None
        assert context.script_requests is not None
        context.script_requests.request_rerun(
            RerunData(context.query_string, WidgetStates(), page_script_hash=context.page_script_hash)
        )

    return click


@pytest.fixture
def start_page(
    film_run: Path, film_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., AppTest]:
    """Opens a page in a new session, with a history of invented films; its model is ItemKNN unless one is given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", "--run", str(film_run)])
    load = resources.load_recommender
    info = {"kind": "darec", "name": "DARec", "data_fingerprint": read_run(film_run)["data_fingerprint"]}

    def start(page: str, model: DarecModel | None = None, history: str = "f0~f3~f7") -> AppTest:
        recommender = None if model is None else Recommender(info, film_dataset, model, reads_text=True)
        monkeypatch.setattr(resources, "load_recommender", load if recommender is None else lambda run: recommender)
        app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=30)
        app.query_params["history"] = history
        app.run()
        app = app.switch_page(f"app/app_pages/{page}.py").run()
        assert not app.exception
        assert not app.error
        return app

    return start
