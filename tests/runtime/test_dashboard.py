"""The dashboard of a twin that is followed: what it is told, and what headless Chromium shows of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from megdt.errors import TwinError
from megdt.models.bundle import Bundle

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
pytest.importorskip("fastapi", reason="needs the extra serve")

from megdt.runtime.edge_server import EdgeServer  # noqa: E402
from megdt.runtime.feed import Feed  # noqa: E402
from megdt.runtime.following import Follower  # noqa: E402
from megdt.runtime.serving import Server, address, listen, session_url  # noqa: E402
from megdt.runtime.tokens import mint  # noqa: E402
from megdt.runtime.vendor import missing  # noqa: E402
from megdt.runtime.wishing import Wishers  # noqa: E402
from megdt.scenario.twin import read_twin_scenario  # noqa: E402
from tests.runtime.test_browser import CHROMIUM, FLAGS  # noqa: E402

ROUNDS = 3


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    bundle = Bundle()
    es = EdgeServer(bundle, key="secret", workers=1)
    follower = Follower(
        read_twin_scenario("garden_drones", []), bundle, es.feed, rounds=ROUNDS, pause_s=0.1
    )
    listening = listen("127.0.0.1", 0)
    server = Server(es, follower)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield address(listening, secure=False)
    server.should_exit = True
    thread.join(20)


def until(true: Callable[[], bool]) -> None:
    """Wait; the page's policy lets no test evaluate text in it."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def ask(base: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{base}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {mint('secret', 'anna')}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")
@pytest.mark.skipif(bool(missing()), reason="needs python -m megdt.runtime.vendor")
def test_rounds_arrive_the_world_changes_and_one_can_look_back(base: str) -> None:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(90_000)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{base}/ue/dashboard.html#token={mint('secret', 'anna')}")
        page.wait_for_selector("#connection[data-phase=open]")
        assert "token" not in page.url
        page.click("#storm")
        playwright.expect(page.locator("#twin-says")).to_contain_text("next round")
        assert page.input_value("#weather") == "rainy"
        page.wait_for_selector(f"body[data-round='{ROUNDS - 1}']")
        assert "rainy" in page.inner_text("#when")
        assert page.locator("#tiles i").count() == 24
        assert page.locator("#plans tbody tr").count() >= 1
        assert page.locator(".plot canvas").count() == 2
        until(lambda: page.evaluate("document.getElementById('replica').naturalWidth") > 1000)
        newest = page.get_attribute("#replica", "src")
        page.fill("#round", "0")
        page.wait_for_selector("body[data-round='0']")
        until(lambda: page.get_attribute("#replica", "src") != newest)
        assert page.get_attribute("#live", "aria-pressed") == "false"
        page.click("#live")
        page.wait_for_selector(f"body[data-round='{ROUNDS - 1}']")
        chromium.close()
    assert errors == []


def test_a_world_that_cannot_be_is_refused_in_one_line(base: str) -> None:
    status, told = ask(base, "/v1/twin/world", {"extra_loss_db": 90})
    assert (status, told["detail"]) == (422, "extra_loss_db is 90, it goes from 0 to 40")
    status, told = ask(base, "/v1/twin/world", {"weather": "hail"})
    assert status == 422
    assert told["detail"].startswith("weather is 'hail', known: dry")


def test_a_round_that_is_not_kept_and_a_missing_token(base: str) -> None:
    status, told = ask(base, "/v1/twin/999/replica")
    assert status == 404
    assert "round 999 is not kept" in told["detail"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{base}/v1/twin", timeout=20)


def test_changes_of_the_world_add_up_and_bad_ones_leave_it_alone() -> None:
    follower = Follower(read_twin_scenario("garden_drones", []), None, Feed())  # type: ignore[arg-type]
    follower.change(extra_loss_db=12.0)
    follower.change(sky="night")
    with pytest.raises(TwinError, match="speed_m_s is 31, it goes from 0 to 30"):
        follower.change(speed_m_s=31.0)
    assert (follower.world()["extra_loss_db"], follower.world()["sky"]) == (12.0, "night")


def test_ues_that_try_a_server_out_are_answered(base: str) -> None:
    wishers = Wishers(session_url(base), key="secret", ues=2, every_s=0.05)
    wishers.start()
    end = time.monotonic() + 50
    while wishers.answered < 2 and time.monotonic() < end:
        time.sleep(0.1)
    wishers.stop()
    assert wishers.answered >= 2
    assert wishers.failed == 0


def test_megdt_up_prints_where_to_look_and_ends_by_ctrl_c() -> None:
    command = [
        sys.executable,
        "-c",
        "from megdt.cli import main; main()",
        "up",
        "--ues",
        "1",
        "--rounds",
        "1",
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        found = re.match(r"dashboard: (http://127\.0\.0\.1:\d+)/\S+#token=\S+$", line)
        assert found, line
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{found[1]}/readyz", timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        running.send_signal(2)
        assert running.wait(45) == 0
