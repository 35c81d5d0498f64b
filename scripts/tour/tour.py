"""The main job of Hanse, told in five chapters on this machine.

Three regions, six edge nodes and their users are processes of their own; the models are real
(PP-OCR v3, v4 and v6), the text is rendered, so every label is known and arrives late. What
happens is decided by the daemons. This script publishes, starts rollouts, sends traffic and
watches; nothing in it decides whether a release is good.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console

from hanse.core.errors import HanseError
from tour import golden, material
from tour.federation import (
    HANSE,
    START_S,
    Agent,
    DemoFailed,
    Process,
    Region,
    Users,
    free_ports,
    hanse,
    wait_for,
)
from tour.traffic import MODEL

ROOT = Path(__file__).resolve().parents[2]
PLANS = Path(__file__).parent / "plans"
REGIONS = {
    "ap-south": "Sans+noise,Sans+jpeg",
    "eu-north": "Serif-Bold+clean,Serif-Bold+lowres",
    "us-east": "Serif+noise,Serif+lowres",
}
NODES_PER_REGION = 2
IDLE, BUSY = 3.0, 40.0  # requests a second; busy is more than two cores can serve
VERSIONS = {"v3": "3.0.0", "v4": "4.0.0", "v6": "6.0.0"}
PARENTS = {"v4": "3.0.0", "v6": "4.0.0"}

out = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


class Tour:
    model = MODEL
    places: Mapping[str, str] = REGIONS
    """What the users of each region send, by region; the first one founds the federation."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.regions: dict[str, Region] = {}
        self.timeline: list[tuple[float, str]] = []
        self.exposed_requests = 0
        self.started = time.monotonic()

    # -- setting up --------------------------------------------------------------

    def set_up(self) -> None:
        """Make the federation with the same commands that a person would type."""
        ports = iter(free_ports(len(self.places) * (1 + NODES_PER_REGION)))
        founder = self.home / next(iter(self.places))
        for name, slices in self.places.items():
            folder, listen = self.home / name, f"127.0.0.1:{next(ports)}"
            where = ["--region", name, "--home", str(folder), "--listen", listen]
            if folder == founder:
                hanse("daemon", "init", "--federation", "harbour", *where)
            else:
                hanse("daemon", "join", "--via", str(founder), *where)
            self.regions[name] = self._region(name, folder, slices, ports)

    def _region(self, name: str, folder: Path, slices: str, ports: Iterator[int]) -> Region:
        daemon = self._process(f"{name}-daemon", "daemon", "run", "--home", str(folder))
        agents, nodes = [], []
        for i in range(1, NODES_PER_REGION + 1):
            node, listen = f"{name}-{i}", f"127.0.0.1:{next(ports)}"
            home = self.home / "nodes" / node
            process = self._process(node, "agent", "run", "--home", str(home))
            agents.append(Agent(node, home, listen, process))
            nodes.append(listen)
        command = self.users_of(name, nodes, slices)
        users = Users(Process(f"{name}-users", command, self.home / f"{name}-users.log"))
        return Region(name, folder, daemon, agents, nodes, users)

    def users_of(self, region: str, nodes: list[str], slices: str) -> list[str]:
        command = [sys.executable, "-m", "tour.traffic", "--region", region]
        return [*command, "--nodes", ",".join(nodes), "--slices", slices]

    def _process(self, name: str, *words: str) -> Process:
        return Process(name, [str(HANSE), *words], self.home / f"{name}.log")

    def start(self) -> None:
        for region in self.regions.values():
            region.daemon.start()
        for region in self.regions.values():
            self.wait(f"{region.name} answers", lambda r=region: r.daemon_answers())  # type: ignore[misc]
            for agent in region.agents:
                agent.start(region.home)
        self.wait("every daemon hears every other", self._all_linked)
        for region in self.regions.values():
            region.users.start()

    def _all_linked(self) -> bool:
        return all(
            r.ask("status")["peers"]["connected"] == len(self.places) - 1
            for r in self.regions.values()
        )

    @property
    def processes(self) -> list[Process]:
        return [
            process
            for region in self.regions.values()
            for process in (
                region.daemon,
                *(agent.process for agent in region.agents),
                region.users.process,
            )
        ]

    def stop(self) -> None:
        for region in self.regions.values():
            region.users.stop()
        for process in self.processes:
            process.stop()

    # -- watching ----------------------------------------------------------------

    def wait(self, what: str, happened: Callable[[], bool], within_s: float = START_S) -> None:
        with out.status(what) as line:
            wait_for(
                what,
                happened,
                within_s=within_s,
                processes=[p for p in self.processes if p.handle is not None],
                say=lambda: line.update(f"{what}  [dim]{self.where_all_stand()}[/dim]"),
            )

    def where_all_stand(self) -> str:
        words = []
        for region in self.regions.values():
            standing = self.standing(region)
            words.append(f"{region.name}: {standing}" if standing else "")
        return " | ".join(w for w in words if w)

    def standing(self, region: Region) -> str:
        """One phrase on where this region's own daemon is in the current rollout."""
        try:
            rollout = self.rollout(region)
        except HanseError:
            return "daemon down" if not region.daemon.alive else ""
        row = next((r for r in rollout.get("regions", ()) if r["region"] == region.name), None)
        return f"{row['state']} {row['step']} {row['reason'][:60]}".strip() if row else ""

    def rollout(self, region: Region, name: str = "") -> dict[str, Any]:
        """A rollout as this region's daemon tells it, the current one first; {} before any."""
        args = {"model": self.model, "rollout": name} if name else {}
        found = region.ask("rollout.status", **args)["rollouts"]
        return dict(found[0]) if found else {}

    def state(self, region: str, rollout: str) -> str:
        rows = self.rollout(self.regions[region], rollout).get("regions", ())
        return next((str(r["state"]) for r in rows if r["region"] == region), "")

    def note(self, text: str) -> None:
        at = time.monotonic() - self.started
        self.timeline.append((at, text))
        out.print(f"  [dim]{at:6.1f} s[/dim]  {text}")

    def traffic(self, **rates: float) -> None:
        for name, region in self.regions.items():
            region.users.rate(rates.get(name.replace("-", "_"), IDLE))

    # -- deeds -------------------------------------------------------------------

    def publish(self, name: str) -> None:
        founder = self.regions["ap-south"]
        model = material.model(name)  # type: ignore[arg-type]  # one of the three
        target = self.home / f"golden-{name}.npz"
        output = golden.write(model, target)
        parent = PARENTS.get(name)
        hanse(
            *("release", "publish", str(model), "-n", MODEL, "-v", VERSIONS[name]),
            *("--golden", str(target), "--outcome", f"ctc-text:{output}"),
            *("--label", "source=PP-OCR", "--training-data", f"pp-ocr-{name}"),
            *("--framework", "onnxruntime=>=1.17", "--licence", "Apache-2.0"),
            *(("--parent", parent, "--relation", "retrained-from") if parent else ()),
            *("--key", str(founder.home / "keys" / "operator.key")),
            home=founder.home,
        )
        self.note(f"published {MODEL}@{VERSIONS[name]}")

    def roll_out(self, name: str, plan: str) -> str:
        founder = self.regions["ap-south"]
        said = hanse(
            *("rollout", "start", f"{MODEL}@{VERSIONS[name]}", "--plan", str(PLANS / plan)),
            *("--key", str(founder.home / "keys" / "operator.key"), "-o", "json"),
            home=founder.home,
        )
        rollout = str(json.loads(said)["rollout"])
        self.note(f"started rollout {rollout} of {VERSIONS[name]}")
        return rollout

    # -- chapters ----------------------------------------------------------------

    def first_release(self) -> None:
        self.publish("v3")
        self.traffic(ap_south=BUSY, eu_north=BUSY, us_east=BUSY)
        rollout = self.roll_out("v3", "first.yaml")
        for name in REGIONS:
            self.wait(
                f"{name} proves 3.0.0",
                lambda n=name: self.state(n, rollout) == "healthy",  # type: ignore[misc]
                90,
            )
            self.note(f"{name} runs 3.0.0, proven")

    def bad_release(self) -> str:
        self.publish("v4")
        self.traffic(ap_south=BUSY)
        rollout = self.roll_out("v4", "careful.yaml")
        self.wait("ap-south judges 4.0.0", lambda: self.state("ap-south", rollout) == "healthy", 90)
        self.note("ap-south runs 4.0.0, proven better on its noisy cameras")
        self.traffic(eu_north=BUSY)
        exposed_at, before = 0.0, 0

        def back() -> bool:
            nonlocal exposed_at, before
            state = self.state("eu-north", rollout)
            if not exposed_at and state in ("weighting", "analyzing"):
                exposed_at = time.monotonic()
                before = self.regions["eu-north"].users.totals.get("sent", 0)
                self.note("eu-north: the canary begins, 20 % of its users")
            return state == "rolledBack"

        self.wait("eu-north judges 4.0.0", back, 120)
        took = time.monotonic() - exposed_at
        users = self.regions["eu-north"].users.totals
        answers = users.get("sent", 0) - before
        self.exposed_requests = answers
        self.note(f"eu-north is back on 3.0.0: {answers} requests and {took:.1f} s after exposure")
        self.wait(
            "us-east hears the hold",
            lambda: "eu-north" in json.dumps(self.regions["us-east"].status(MODEL)),
            30,
        )
        self.note(f"us-east has not begun: {self.standing(self.regions['us-east'])}")
        return rollout

    def good_release(self) -> None:
        self.publish("v6")
        self.traffic(ap_south=BUSY)
        rollout = self.roll_out("v6", "careful.yaml")
        for name in REGIONS:
            self.traffic(**{name.replace("-", "_"): BUSY})
            self.wait(
                f"{name} judges 6.0.0",
                lambda n=name: self.state(n, rollout) == "healthy",  # type: ignore[misc]
                120,
            )
            self.note(f"{name} runs 6.0.0, proven")

    def power_cut(self) -> None:
        self.traffic(us_east=10.0)
        region = self.regions["us-east"]
        region.daemon.kill()
        sent, failed = region.users.totals["sent"], region.users.totals["failed"]
        self.note("us-east: the daemon is killed (SIGKILL)")
        founder = self.regions["ap-south"]
        hanse("freeze", MODEL, "--reason", "demo: news while us-east is away", home=founder.home)
        self.wait(
            "us-east's nodes answer 40 more requests alone",
            lambda: region.users.totals["sent"] >= sent + 40,
            60,
        )
        answered = region.users.totals["sent"] - sent
        lost = region.users.totals["failed"] - failed
        self.note(f"us-east: without its daemon its nodes answered {answered}, failed {lost}")
        at = time.monotonic()
        region.daemon.start()
        self.wait("us-east has caught up", self._agreed, 60)
        self.note(f"us-east: started again, equal state digest after {time.monotonic() - at:.1f} s")

    def _agreed(self) -> bool:
        if not all(r.daemon_answers() for r in self.regions.values()):
            return False
        digests = {r.ask("status")["daemon"]["state_digest"] for r in self.regions.values()}
        return len(digests) == 1

    # -- the end -----------------------------------------------------------------

    def show(self, rollout: str) -> None:
        eu = self.regions["eu-north"].home
        for title, words in (
            ("What happened", ("why", f"{MODEL}@4.0.0", "--region", "eu-north")),
            ("Where it comes from", ("lineage", MODEL)),
            ("What runs now", ("status",)),
        ):
            out.rule(f"{title}: hanse {' '.join(words)}", align="left")
            out.print(hanse(*words, home=eu, check=False), markup=False)
        out.rule("Timeline", align="left")
        for at, text in self.timeline:
            out.print(f"  {at:6.1f} s  {text}")
        self._figures(rollout)

    def _figures(self, rollout: str) -> None:
        """Detection, decision and undoing in eu-north, from its own signed events."""
        found = self.rollout(self.regions["eu-north"], rollout)
        moments = [m for m in found["timeline"] if m["region"] == "eu-north"]
        out.rule("Figures of the rollback in eu-north", align="left")
        for before, after in pairwise(moments):
            passed = (after["at_ms"] - before["at_ms"]) / 1000
            out.print(f"  +{passed:6.2f} s  {after['what']}", markup=False)
        at = {word: _first(moments, word) for word in _MOMENTS}
        for name, since, until in (
            ("detection", "weighting", "held"),
            ("decision", "held", "rollingBack"),
            ("last node swapped", "rollingBack", "rolledBack"),
        ):
            out.print(f"  {name}: {(at[until] - at[since]) / 1000:.2f} s")
        out.print(f"  requests in eu-north from exposure to the last node: {self.exposed_requests}")
        totals = {r.name: r.users.totals for r in self.regions.values()}
        for name, said in totals.items():
            out.print(
                f"  {name}: {said['sent']} requests, {said['failed']} failed, "
                f"{said['labels']} labels; answered as {said['by_role']}",
                markup=False,
            )


def _first(moments: list[dict[str, Any]], word: str) -> int:
    """When the first of these moments happened that says this word, in ms."""
    return next(int(m["at_ms"]) for m in moments if f" {word}" in m["what"])


_MOMENTS = ("weighting", "held", "rollingBack", "rolledBack")


@contextmanager
def chapter(number: int, title: str) -> Iterator[None]:
    out.rule(f"[bold]{number}. {title}[/bold]", align="left")
    yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the federation running")
    parser.add_argument("--heal", action="store_true", help="the story of a model that heals")
    options = parser.parse_args()
    home = Path(os.environ.get("HANSE_DEMO_HOME", ROOT / ".demo"))
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    if options.heal:
        from tour.heal import main as heal  # it needs what only this story needs

        return heal(home, keep=options.keep)
    with out.status("fetching models and fonts (once)"):
        material.fetch_all()
    tour = Tour(home)
    try:
        with chapter(0, "Three regions, six edge nodes"):
            tour.set_up()
            tour.start()
            tour.note("three daemons and six edge nodes run, linked by mutual TLS")
        with chapter(1, "The first release, everywhere"):
            tour.first_release()
        with chapter(2, "A release that is better on average, and worse in one region"):
            rollout = tour.bad_release()
        with chapter(3, "A release that is better everywhere"):
            tour.good_release()
        with chapter(4, "A daemon dies and comes back"):
            tour.power_cut()
        with chapter(5, "The record"):
            tour.show(rollout)
        if options.keep:
            look_around(tour)
    except DemoFailed as failure:
        out.print(f"[bold red]The demo did not get through:[/bold red] {failure}")
        return 1
    finally:
        tour.stop()
    return 0


def look_around(tour: Tour) -> None:
    tour.traffic()
    out.rule("Look around, in another terminal; Ctrl-C ends it", align="left")
    for name, region in tour.regions.items():
        out.print(f"  export HANSE_HOME={region.home}   # the operator of {name}", markup=False)
    model = tour.model
    out.print(f"  {HANSE} status | why {model} | lineage {model} | rollback {model} --reason test")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        out.print("stopping")


if __name__ == "__main__":
    sys.exit(main())
