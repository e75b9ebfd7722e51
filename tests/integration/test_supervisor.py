"""The supervisor over processes of its own kind: small programs that are ready, crash, refuse or hang as told."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from textwrap import dedent

import pytest

from ingestcore.fleet.control import Declined, NotRunning, ask
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import is_supervised, read_record

# A service process. Its manners are in `<folder>/manners/<instance>`, read at every start:
# ready | crash | refuse (exit code 2) | wait | deaf (ignores SIGTERM)
CHILD = """
    import json, os, signal, sys, threading
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from pathlib import Path

    folder, instance = Path(sys.argv[1]), sys.argv[2]
    path = folder / "manners" / instance
    manners = path.read_text() if path.exists() else "ready"
    if manners == "crash":
        sys.exit(7)
    if manners == "refuse":
        print(json.dumps({"event": "stopped", "reason": "bucket out does not exist"}))
        sys.exit(2)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            ready = manners != "wait"
            body = {"status": "waiting", "reason": "Kafka does not answer"}
            self.send_response(200 if ready else 503)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())
        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    done = threading.Event()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if manners == "deaf" else lambda *_: done.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Path(os.environ["INGEST_RUN_FILE"]).write_text(json.dumps({"pid": os.getpid(), "port": server.server_port}))
    done.wait()
"""

# A supervisor over the processes listed in `<folder>/wanted`, a `service instance replica` a line.
FLEET = """
    import signal, sys
    from pathlib import Path
    from ingestcore.fleet.layout import Layout
    from ingestcore.fleet.record import AlreadyRunning, fleet_lock
    from ingestcore.fleet.supervisor import StartFailed, Supervisor
    from ingestcore.fleet.wanted import Wanted

    folder, child = Path(sys.argv[1]), sys.argv[2]

    class Screen:
        def progress(self, text): print(text, flush=True)
        def news(self, text): print(text, flush=True)
        def ready(self, rows): print("READY", flush=True)
        def tick(self, rows): pass

    layout = Layout.of(folder)
    layout.make()
    try:
        with fleet_lock(layout):
            supervisor = Supervisor(
                layout,
                wanted=lambda: [Wanted(*line.split()) for line in (folder / "wanted").read_text().splitlines()],
                command=lambda wanted: (sys.executable, "-S", child, str(folder), wanted.instance),
                environment={"PATH": ""},
                endpoints={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
                screen=Screen(),
                kill_after_seconds=1.0,
                ready_timeout_seconds=3.0,
            )
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: supervisor.stop())
            supervisor.run()
    except (StartFailed, AlreadyRunning) as error:
        print(f"FAILED {getattr(error, 'configuration', '')} {error}", flush=True)
        sys.exit(1)
"""


class Fleet:
    """A supervisor under test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = Layout.of(folder)
        (folder / "manners").mkdir(parents=True)
        for name, text in (("child.py", CHILD), ("fleet.py", FLEET)):
            (folder / name).write_text(dedent(text))
        self.process: subprocess.Popen[str] | None = None

    def want(self, *lines: str) -> None:
        (self.folder / "wanted.new").write_text("\n".join(lines))
        (self.folder / "wanted.new").replace(self.folder / "wanted")

    def teach(self, instance: str, manners: str) -> None:
        (self.folder / "manners" / instance).write_text(manners)

    def begin(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, str(self.folder / "fleet.py"), str(self.folder), str(self.folder / "child.py")],
            stdout=subprocess.PIPE,
            text=True,
        )
        return self.process

    def up(self) -> None:
        process = self.begin()
        assert process.stdout is not None
        assert any(line == "READY\n" for line in process.stdout)

    def rows(self) -> dict[str, dict[str, object]]:
        rows = ask(self.layout, {"do": "status"})["services"]
        return {f"{row['sink'] or row['service']}-{row['replica']}": row for row in rows}

    def row(self, name: str) -> dict[str, object]:
        return self.rows()[name]

    def pid(self, name: str) -> int:
        return int(str(self.row(name)["pid"]))

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`ingest ...` as another shell would type it."""
        words = [sys.executable, "-m", "ingestcore.cli.main", *arguments, "--dir", str(self.folder)]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "fleet")
    made.want("parser parser 0", "parser parser 1", "parquet-sink lake 0")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def eventually(check: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """A zombie is dead, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_wanted_process_is_started_once_and_told_to_other_shells(fleet: Fleet) -> None:
    fleet.up()
    rows = fleet.rows()
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys(
        ("parser-0", "parser-1", "lake-0"), "ready"
    )
    assert len({row["pid"] for row in rows.values()}) == 3
    assert all(alive(int(str(row["pid"]))) for row in rows.values())
    assert stat.S_IMODE(os.stat(fleet.layout.record).st_mode) == 0o600
    assert sorted(path.name for path in fleet.layout.logs.iterdir()) == [
        "parquet-sink-lake-0.log",
        "parser-0.log",
        "parser-1.log",
    ]
    status = json.loads(fleet.command("status", "--json").stdout)
    assert [(s["service"], s["sink"], s["replica"], s["state"]) for s in status["services"]] == [
        ("parser", None, "0", "ready"),
        ("parser", None, "1", "ready"),
        ("parquet-sink", "lake", "0", "ready"),
    ]
    assert all(s["rss_bytes"] > 1 << 20 and s["uptime_seconds"] >= 0 for s in status["services"])


def test_a_killed_process_is_started_again(fleet: Fleet) -> None:
    fleet.up()
    before = fleet.pid("parser-0")
    os.kill(before, signal.SIGKILL)
    eventually(lambda: fleet.row("parser-0")["restarts"] == 1)
    eventually(lambda: fleet.row("parser-0")["state"] == "ready")
    assert fleet.pid("parser-0") != before
    assert fleet.row("parser-1")["restarts"] == 0


def test_a_process_that_keeps_crashing_is_tried_twice_at_once_and_then_with_pauses(fleet: Fleet) -> None:
    fleet.up()
    fleet.teach("lake", "crash")
    os.kill(fleet.pid("lake-0"), signal.SIGKILL)
    pauses = ("restarting", 2, "ended with exit code 7")
    eventually(lambda: itemgetter("state", "restarts", "reason")(fleet.row("lake-0")) == pauses)
    fleet.teach("lake", "ready")
    eventually(lambda: fleet.row("lake-0")["state"] == "ready")
    assert fleet.row("parser-0")["restarts"] == 0


def test_a_configuration_error_at_the_start_stops_everything_and_says_why(fleet: Fleet) -> None:
    fleet.teach("lake", "refuse")
    output, _ = fleet.begin().communicate(timeout=20)
    assert "FAILED True parquet-sink-lake-0: bucket out does not exist" in output
    assert read_record(fleet.layout).state == "stopped"
    assert [row["pid"] for row in read_record(fleet.layout).services] == [0, 0, 0]


def test_a_start_that_takes_too_long_says_who_waits_for_what(fleet: Fleet) -> None:
    fleet.teach("lake", "wait")
    output, _ = fleet.begin().communicate(timeout=20)
    assert "FAILED False not ready after 3 s: parquet-sink-lake-0 (Kafka does not answer; log:" in output


def test_a_configuration_error_later_is_shown_and_not_tried_again_until_asked(fleet: Fleet) -> None:
    fleet.up()
    fleet.teach("lake", "refuse")
    os.kill(fleet.pid("lake-0"), signal.SIGKILL)
    eventually(lambda: fleet.row("lake-0")["state"] == "failed")
    time.sleep(0.5)
    row = fleet.row("lake-0")
    assert (row["state"], row["reason"], row["pid"]) == ("failed", "bucket out does not exist", 0)
    refused = fleet.command("start", "lake")
    assert (refused.returncode, refused.stderr) == (1, "ingest: lake-0: bucket out does not exist\n")
    fleet.teach("lake", "ready")
    started = fleet.command("start", "lake")
    assert (started.returncode, started.stderr) == (0, "")
    assert fleet.row("lake-0")["state"] == "ready"


def test_a_stopped_service_stays_stopped_until_it_is_started(fleet: Fleet) -> None:
    fleet.up()
    pids = [fleet.pid("parser-0"), fleet.pid("parser-1")]
    stopped = fleet.command("stop", "parser")
    assert (stopped.returncode, stopped.stdout) == (0, "parser-0 stopped\nparser-1 stopped\n")
    assert not any(alive(pid) for pid in pids)
    time.sleep(0.5)
    states = {name: row["state"] for name, row in fleet.rows().items()}
    assert states == {"parser-0": "stopped", "parser-1": "stopped", "lake-0": "ready"}
    assert fleet.command("stop", "parser").returncode == 0
    started = fleet.command("start", "parser-1")
    assert started.stdout == f"parser-1 ready (process {fleet.pid('parser-1')})\n"
    assert fleet.row("parser-0")["state"] == "stopped"


def test_names_that_nobody_has_are_refused_with_the_nearest(fleet: Fleet) -> None:
    fleet.up()
    refused = fleet.command("stop", "parsr")
    assert (refused.returncode, refused.stderr) == (1, "ingest: no service or sink is called 'parsr': parser?\n")
    with pytest.raises(Declined, match="there are lake, parquet-sink, parser"):
        ask(fleet.layout, {"do": "start", "names": ["xyz"]})


def test_a_frozen_process_still_stops(fleet: Fleet) -> None:
    fleet.up()
    pid = fleet.pid("lake-0")
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: fleet.row("lake-0")["state"] == "waiting")
    assert fleet.command("stop", "lake").returncode == 0
    assert not alive(pid)


def test_a_process_that_does_not_drain_is_killed_after_its_time(fleet: Fleet) -> None:
    fleet.teach("lake", "deaf")
    fleet.up()
    pid = fleet.pid("lake-0")
    begun = time.monotonic()
    ask(fleet.layout, {"do": "stop", "names": ["lake"]})
    assert not alive(pid)
    assert time.monotonic() - begun >= 1.0


def test_a_process_that_waits_for_a_server_says_so_and_is_left_alone(fleet: Fleet) -> None:
    fleet.up()
    fleet.teach("lake", "wait")
    os.kill(fleet.pid("lake-0"), signal.SIGKILL)
    eventually(lambda: fleet.row("lake-0")["state"] == "waiting")
    assert fleet.row("lake-0")["reason"] == "Kafka does not answer"


def test_processes_follow_the_configuration_while_it_runs(fleet: Fleet) -> None:
    fleet.up()
    fleet.want("parser parser 0", "parquet-sink lake 0", "parquet-sink second 0")
    eventually(lambda: set(fleet.rows()) == {"parser-0", "lake-0", "second-0"})
    eventually(lambda: fleet.row("second-0")["state"] == "ready")


def test_asked_to_end_it_stops_every_process(fleet: Fleet) -> None:
    fleet.up()
    pids = [int(str(row["pid"])) for row in fleet.rows().values()]
    assert fleet.end() == 0
    assert not any(alive(pid) for pid in pids)
    assert not is_supervised(fleet.layout)
    with pytest.raises(NotRunning, match="nothing runs in"):
        ask(fleet.layout, {"do": "status"})


def test_down_from_another_shell_ends_it(fleet: Fleet) -> None:
    fleet.up()
    assert fleet.command("down").stdout == "stopped\n"
    assert fleet.process is not None
    assert fleet.process.wait(5) == 0
    assert "nothing runs in" in fleet.command("down").stdout
    assert "stopped in" in fleet.command("status").stdout


def test_when_the_supervisor_is_killed_its_processes_die_with_it(fleet: Fleet) -> None:
    fleet.up()
    pids = [int(str(row["pid"])) for row in fleet.rows().values()]
    fleet.end(signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in pids))
    assert json.loads(fleet.command("status", "--json").stdout)["state"] == "stopped"
    fleet.up()  # nothing is in the way of the next one
    assert fleet.row("lake-0")["state"] == "ready"


def test_a_second_one_in_the_same_folder_is_refused_clearly(fleet: Fleet) -> None:
    fleet.up()
    assert fleet.process is not None
    words = [sys.executable, str(fleet.folder / "fleet.py"), str(fleet.folder), "x"]
    second = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    assert f"a fleet is running already in {fleet.folder} (supervisor process {fleet.process.pid})" in second.stdout
    assert fleet.row("lake-0")["state"] == "ready"
