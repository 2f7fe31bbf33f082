"""Plays many cells in a few worlds at once.

A command spends most of its time waiting for a pace or a poll, so two cores carry several worlds.
A world whose stack is up takes the cells that need one first: each `up` serves several of them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from concurrent.futures import Future
from pathlib import Path

from tests.faults.cell import SETTINGS, Cell, Row, Standing, play
from tests.faults.world import World

WORLDS = int(os.environ.get("FAULTS_WORLDS") or 7)


class Suite:
    """All cells of a run, and what came of them."""

    def __init__(self, cells: list[Cell], folder: Path, rows: Path | None) -> None:
        """Begin to play `cells`, in worlds below `folder`; each row is added to the file `rows`."""
        self._file = rows
        self._worlds: list[World] = []
        self._waiting = list(cells)
        self._results: dict[str, Future[Row]] = {cell.id: Future() for cell in cells}
        self._lock = threading.Lock()
        self.rows: list[Row] = []
        self._players = [
            threading.Thread(target=self._play, args=(folder / f"world-{number}",), daemon=True)
            for number in range(min(WORLDS, len(cells)))
        ]
        for player in self._players:
            player.start()

    def result(self, cell: Cell) -> Row:
        """Wait for a cell; raise what it raised."""
        return self._results[cell.id].result()

    def finished(self) -> list[Row]:
        """Wait for all cells; give what came of those that came to an end."""
        for future in self._results.values():
            future.exception()
        return list(self.rows)

    def close(self) -> None:
        """End what is still at work, begin no other cell, and wait until every world is closed."""
        with self._lock:
            self._waiting.clear()
            worlds = list(self._worlds)
        for world in worlds:
            world.end_commands()
        for player in self._players:
            player.join()

    def _play(self, folder: Path) -> None:
        world: World | None = None
        standing: Standing = "nothing"
        try:
            while (cell := self._next(standing)) is not None:
                try:
                    world = world or self._open(folder)
                    standing = self._one(world, cell, standing)
                except BaseException as error:  # noqa: BLE001  (raised again in the cell's own test)
                    self._results[cell.id].set_exception(error)
                    standing = "nothing"
        finally:
            if world is not None:
                world.close()

    def _open(self, folder: Path) -> World:
        folder.mkdir(parents=True, exist_ok=True)
        world = World.open(folder)
        with self._lock:
            self._worlds.append(world)
        return world

    def _one(self, world: World, cell: Cell, standing: Standing) -> Standing:
        """Play one cell; say what stands afterwards."""
        _prepare(world, cell, standing)
        row, failure = play(cell, world)
        self._keep(row)
        if failure is not None:
            raise failure
        self._results[cell.id].set_result(row)
        return cell.leaves

    def _keep(self, row: Row) -> None:
        with self._lock:
            self.rows.append(row)
            if self._file is not None:
                with self._file.open("a") as file:
                    file.write(json.dumps(dataclasses.asdict(row)) + "\n")

    def _next(self, standing: Standing) -> Cell | None:
        with self._lock:
            if not self._waiting:
                return None
            chosen = min(self._waiting, key=lambda cell: _order(cell, standing))
            self._waiting.remove(chosen)
            return chosen


def _order(cell: Cell, standing: Standing) -> tuple[bool, bool, bool]:
    """Cells that begin with what stands; of those, what keeps a stack up; then the long ones."""
    return (cell.needs != standing, cell.leaves == "nothing", cell.part == "short")


def _prepare(world: World, cell: Cell, standing: Standing) -> None:
    """Bring a world to what the cell needs."""
    if cell.needs == standing != "nothing":
        return
    world.fresh(SETTINGS[cell.needs])
    if cell.needs != "nothing":
        world.succeeds("up")
