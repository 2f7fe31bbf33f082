"""F18, the kill matrix: somebody dies by SIGKILL at every moment of every command.

Afterwards a person does what a person does: brings the emulator back, takes the lock away, and
runs `up` or `destroy` again. What that leads to is checked by every cell's own books.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psutil

from tests.faults.cell import Act, Book, Standing
from tests.faults.moments import OF_DESTROY, OF_REPLACING, OF_UP, uncovered, when
from tests.faults.world import Running, World, assert_plain, orphans_of
from tests.stack.world import Done
from tests.vllm.polling import eventually

BOOK = Book()

Strike = Callable[[World, Running], None]


def pulumi_dies(world: World, running: Running) -> None:
    """The CLI alone; its provider process is on its own."""
    del world
    running.kill()


def the_terminal_closes(world: World, running: Running) -> None:
    """The CLI and its provider process at once."""
    del world
    providers = running.providers()
    running.kill()
    for process in providers:
        _kill(process)


def the_provider_dies(world: World, running: Running) -> None:
    """The provider process alone; the CLI goes on without."""
    del world
    providers = running.providers()
    assert providers, running.output()
    for process in providers:
        _kill(process)


def the_emulator_dies(world: World, running: Running) -> None:
    """The marketplace with every host's network; it comes back as it was."""
    del running
    world.account.kill()
    world.account.come_back()


def ctrl_c_twice(world: World, running: Running) -> None:
    """The first one asks `pulumi` to finish, the second one does not let it."""
    del world
    running.interrupt()
    eventually(lambda: running.ended() or "terminate immediately" in running.output())
    running.interrupt()


VICTIMS: dict[str, Strike] = {
    "pulumi": pulumi_dies,
    "its provider": the_provider_dies,
    "the emulator": the_emulator_dies,
}

SHORT = {
    ("up", "pulumi", "the rent call"),
    ("up", "its provider", "its container runs"),
    ("up, again", "pulumi", "the destroy call"),
    ("destroy", "pulumi", "the destroy call"),
}
"""Of the matrix, what the short suite plays."""


def strike_up(strike: Strike, moment: str, then: str) -> Act:
    """Somebody dies while an endpoint comes up for the first time."""

    def act(world: World) -> str:
        ended = struck(world, "up", strike, moment)
        return aftermath(world, ended, then)

    return act


def strike_replacing(strike: Strike, moment: str, then: str) -> Act:
    """Somebody dies while one machine is replaced by another."""

    def act(world: World) -> str:
        world.another_disk()
        ended = struck(world, "up", strike, moment)
        return aftermath(world, ended, then)

    return act


def strike_destroy(strike: Strike, moment: str, then: str) -> Act:
    """Somebody dies while the bill is ended."""

    def act(world: World) -> str:
        ended = struck(world, "destroy", strike, moment)
        return aftermath(world, ended, then)

    return act


def struck(world: World, command: str, strike: Strike, moment: str) -> Done:
    """Run a command until a moment, let somebody die, and see how the command ends."""
    since = world.account.last_request()
    running = world.stack.start(command)
    when(world, running, moment, since)
    strike(world, running)
    return running.wait()


def nobody_dies(command: str) -> Act:
    """An undisturbed run, to see that the moments leave none of its calls out."""

    def act(world: World) -> str:
        if command == "up, again":
            world.another_disk()
        since = world.account.last_request()
        world.succeeds("destroy" if command == "destroy" else "up")
        calls = world.account.requests(since)
        assert uncovered(calls) == []
        return f"{len(calls)} calls, each of them at a moment"

    return act


def aftermath(world: World, ended: Done, then: str) -> str:
    """Do what a person does next, and say what came of it."""
    if ended.status > 0:
        assert_plain(ended)
    before = {int(one["id"]) for one in world.account.alive()}
    known = world.stack.instance_ids()
    rented = len(world.account.rents())
    if world.stack.is_locked():
        cancelled = world.stack.cancel()
        assert cancelled.status == 0, cancelled.outcome()
    done = world.succeeds(then)
    eventually(lambda: not orphans_of(world))
    if then == "destroy":
        return f"{_how(ended)}; nothing is left" if before else f"{_how(ended)}; nothing was left"
    adopted = before - known
    for contract in adopted & world.stack.instance_ids():
        assert f"adopting instance {contract}" in done.output, done.outcome()
        assert len(world.account.rents()) == rented, "adopted, and rented another one"
    return f"{_how(ended)}; {_what_up_did(world, before, known)}"


def the_market_dies_in_the_call(method: str, route: str, command: str, then: str) -> Act:
    """The call is carried out, and its reply dies with the marketplace."""

    def act(world: World) -> str:
        if command == "up, again":
            world.another_disk()
        world.account.arm("killed", method=method, route=route)
        running = world.stack.start("destroy" if command == "destroy" else "up")
        eventually(lambda: world.account.is_dead() or running.ended(), within=60)
        world.account.come_back()
        return aftermath(world, running.wait(), then)

    return act


def _how(ended: Done) -> str:
    if ended.status < 0:
        return "killed"
    return "fails" if ended.status else "succeeds all the same"


def _what_up_did(world: World, before: set[int], known: set[int]) -> str:
    now = world.stack.instance_ids()
    if now & known:
        return "then goes on with the same machine"
    if now & before:
        return "then adopts the machine"
    return "then rents a machine"


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def _add(
    command: str,
    victim: str,
    moment: str,
    act: Act,
    *,
    needs: Standing,
    leaves: Standing,
    then: str = "",
) -> None:
    name = f"{victim} dies: {moment}{then}"
    long = bool(then) or (command, victim, moment) not in SHORT
    BOOK.cell("F18", name, command, needs=needs, leaves=leaves, long=long)(act)


def _undisturbed() -> None:
    standings: tuple[tuple[str, Standing, Standing], ...] = (
        ("up", "nothing", "running"),
        ("up, again", "running", "running"),
        ("destroy", "running", "nothing"),
    )
    for command, needs, leaves in standings:
        BOOK.cell("F18", "nobody dies", command, needs=needs, leaves=leaves)(nobody_dies(command))


def _matrix() -> None:
    for victim, strike in VICTIMS.items():
        for moment in OF_UP:
            act = strike_up(strike, moment, "up")
            _add("up", victim, moment, act, needs="nothing", leaves="running")
        for moment in OF_REPLACING:
            act = strike_replacing(strike, moment, "up")
            _add("up, again", victim, moment, act, needs="running", leaves="running")
        for moment in OF_DESTROY:
            act = strike_destroy(strike, moment, "destroy")
            _add("destroy", victim, moment, act, needs="running", leaves="nothing")


def _given_up_instead() -> None:
    """A person who has had enough, and one who has changed their mind."""
    for victim, strike in VICTIMS.items():
        for moment in ("the rent call", "its supervisor runs"):
            act = strike_up(strike, moment, "destroy")
            _add("up", victim, moment, act, needs="nothing", leaves="nothing", then=", destroyed")
        act = strike_destroy(strike, "the destroy call", "up")
        _add(
            *("destroy", victim, "the destroy call", act),
            needs="running",
            leaves="running",
            then=", up after all",
        )


def _other_ends() -> None:
    for moment in ("the rent call", "its supervisor runs"):
        for victim, strike in (
            ("the terminal", the_terminal_closes),
            ("Ctrl-C twice, pulumi", ctrl_c_twice),
        ):
            act = strike_up(strike, moment, "up")
            _add("up", victim, moment, act, needs="nothing", leaves="running")
    for command, method, route, then, needs, leaves in _IN_THE_CALL:
        act = the_market_dies_in_the_call(method, route, command, then)
        _add(command, "the emulator", f"in the {method} call", act, needs=needs, leaves=leaves)


_IN_THE_CALL: tuple[tuple[str, str, str, str, Standing, Standing], ...] = (
    ("up", "PUT", "/asks/", "up", "nothing", "running"),
    ("up, again", "DELETE", "/instances/", "up", "running", "running"),
    ("up, again", "PUT", "/asks/", "up", "running", "running"),
    ("destroy", "DELETE", "/instances/", "destroy", "running", "nothing"),
)

_undisturbed()
_matrix()
_given_up_instead()
_other_ends()
