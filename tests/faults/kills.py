"""F18, the kill matrix: somebody dies by SIGKILL at every moment of every command.

Afterwards a person does what a person does: brings the emulator back, takes the lock away, and
runs `up` or `destroy` again. What that leads to is checked by every cell's own books.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import psutil

from components.resources.context import Context
from components.vast.quarantine import quarantine
from tests.faults.cell import Act, Book, Part, Standing
from tests.faults.moments import (
    OF_CREATE_FIRST,
    OF_DESTROY,
    OF_MARKING,
    OF_REFUSED,
    OF_REHEARSING,
    OF_REPLACING,
    OF_RERENTING,
    OF_UP,
    uncovered,
    when,
)
from tests.faults.world import Running, World, assert_plain, assert_says, orphans_of
from tests.helpers.polling import eventually
from tests.helpers.stack_world import Done
from toolchain.stack_command import INTERRUPTED

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


def at(course: Course, moment: str, world: World) -> Running:
    """A command of the project, brought to a moment of its course."""
    course.prepare(world)
    since = world.account.last_request()
    running = world.stack.start(course.command, wrapped=True)
    when(world, running, moment, since)
    return running


def interrupted(course: Course, moment: str, billed: str) -> Act:
    """One Ctrl-C into a command of the project: it ends by itself, and leaves no lock."""

    def act(world: World) -> str:
        running = at(course, moment, world)
        running.interrupt()
        ended = running.wait()
        assert_plain(ended)
        assert_says(ended, "^C received; cancelling", f"interrupted: {billed}")
        # What is left of a `destroy` may have been that very deletion.
        expected = {0, INTERRUPTED} if course.command == "destroy" else {INTERRUPTED}
        assert ended.status in expected, ended.outcome()
        assert not world.stack.is_locked()
        assert eventually(lambda: not orphans_of(world))
        return aftermath(world, ended, course.command)

    return act


def all_killed(course: Course, moment: str) -> Act:
    """A command of the project dies with all that it has started; the next one finds its lock."""

    def act(world: World) -> str:
        running = at(course, moment, world)
        running.kill_all()
        running.wait()
        assert world.stack.is_locked()
        before = {int(one["id"]) for one in world.account.alive()}
        again = world.stack.start(course.command, wrapped=True).wait()
        assert again.status == 0, again.outcome()
        assert_says(again, "which is gone with all that it had started: the lock was taken away")
        assert not world.stack.is_locked()
        return f"killed; {_what_up_did(world, before, set())}, without its lock"

    return act


VICTIMS: dict[str, Strike] = {
    "pulumi": pulumi_dies,
    "its provider": the_provider_dies,
    "the emulator": the_emulator_dies,
}

CHANGED_AGAIN = ", then another change"

SHORT = {
    ("up", "pulumi", "the rent call"),
    ("up", "its provider", "its container runs"),
    ("up, again", "pulumi", "the destroy call"),
    ("destroy", "pulumi", "the destroy call"),
    ("up, create-first", "pulumi", f"the rent call{CHANGED_AGAIN}"),
    ("up, refused", "pulumi", "the rent call"),
}
"""Of the matrix, what the short suite plays."""


@dataclasses.dataclass(frozen=True)
class Course:
    """A command in a situation, and the moments at which somebody dies in it."""

    name: str
    command: str
    moments: tuple[str, ...]
    needs: Standing
    leaves: Standing
    prepare: Callable[[World], None]

    def struck_by(self, strike: Strike, moment: str, then: str) -> Act:
        """Let somebody die at a moment of it, and go on with the command `then`."""

        def act(world: World) -> str:
            self.prepare(world)
            old = world.stack.resource("vllm:Server") if self.needs == "create-first" else None
            ended = struck(world, self.command, strike, moment)
            if old is not None and moment in BESIDE and ended.status:
                assert eventually(lambda: world.answers(old)), "the old endpoint is gone"
            return aftermath(world, ended, then)

        return act


BESIDE = ("the rent call", "its container runs", "its supervisor runs", "vLLM is up")
"""Moments at which a machine that is replaced create-first must still serve."""


def as_it_is(world: World) -> None:
    """Nothing happens before the command."""
    del world


def another_disk(world: World) -> None:
    """The next `up` needs another machine."""
    world.another_disk()


def outbid(world: World) -> None:
    """Somebody else has the GPUs."""
    (one,) = world.account.alive()
    world.account.arm("outbid", id=one["id"])
    eventually(lambda: world.account.alive()[0]["actual_status"] == "exited")


def refused(world: World) -> None:
    """The first rent call is refused, and leaves a contract that is billed."""
    world.account.arm("start_refused", cancel_ignored="true")


def found_unfit(world: World) -> None:
    """The machine is marked; the next `up` needs another one."""
    (one,) = world.account.alive()
    quarantine(Context(environment=world.stack.environment).market(), int(one["id"]), "load_late")


def crawling(world: World) -> None:
    """The next machine's link is too slow for the deadline: it is about to be marked."""
    world.configure(readyMinutes=2)
    world.account.arm("download_slow", mbps="0.0005")


def crawl(world: World, *, until: str) -> None:
    """Let the weights come so slowly that a rehearsal is worth it, until one is there or over.

    They would take seven real minutes, which is within the download's share of the deadline. A host
    without a supervisor is given up after half a minute.
    """
    world.configure(readyMinutes=10)
    world.account.arm("download_slow", mbps="0.033", until=until)


def rehearsing(world: World) -> None:
    """The next machine rehearses its start, and has its weights as soon as that is over."""
    crawl(world, until="rehearsed")


UP = Course("up", "up", OF_UP, "nothing", "running", as_it_is)
REPLACING = Course("up, again", "up", OF_REPLACING, "running", "running", another_disk)
DESTROY = Course("destroy", "destroy", OF_DESTROY, "running", "nothing", as_it_is)
WHOLE = (UP, REPLACING, DESTROY)
"""Every moment of these is struck at, in the whole suite."""

CREATE_FIRST = Course(
    "up, create-first", "up", OF_CREATE_FIRST, "create-first", "create-first", another_disk
)

REHEARSING = Course("up, rehearsing", "up", OF_REHEARSING, "nothing", "running", rehearsing)

OTHERS = (
    CREATE_FIRST,
    Course("up, outbid", "up", OF_RERENTING, "interruptible", "interruptible", outbid),
    Course("up, refused", "up", OF_REFUSED, "nothing", "running", refused),
    Course("up, unfit", "up", OF_RERENTING, "running", "running", found_unfit),
    Course("up, crawling", "up", OF_MARKING, "nothing", "running", crawling),
    REHEARSING,
)
"""Other ways to a replacement, struck at where they differ: more than the whole suite."""


def struck(world: World, command: str, strike: Strike, moment: str) -> Done:
    """Run a command until a moment, let somebody die, and see how the command ends."""
    since = world.account.last_request()
    running = world.stack.start(command)
    when(world, running, moment, since)
    strike(world, running)
    return running.wait()


def changed_again(strike: Strike, moment: str) -> Act:
    """Nobody asks again for the name under which the `up` that was cut off has rented."""

    def act(world: World) -> str:
        another_disk(world)
        ended = struck(world, "up", strike, moment)
        another_disk(world)
        return aftermath(world, ended, "up")

    return act


def nobody_dies(course: Course) -> Act:
    """An undisturbed run, to see that the moments leave none of its calls out."""

    def act(world: World) -> str:
        course.prepare(world)
        if course is UP:
            # A person looks first; the market's pace is kept over both commands.
            world.succeeds("preview")
        since = world.account.last_request()
        world.succeeds(course.command)
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


def the_market_dies_in_the_call(method: str, route: str, course: Course) -> Act:
    """The call is carried out, and its reply dies with the marketplace."""

    def act(world: World) -> str:
        course.prepare(world)
        world.account.arm("killed", method=method, route=route)
        running = world.stack.start(course.command)
        eventually(lambda: world.account.is_dead() or running.ended(), within=60)
        world.account.come_back()
        return aftermath(world, running.wait(), course.command)

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
    course: Course,
    victim: str,
    moment: str,
    act: Act,
    *,
    leaves: Standing | None = None,
    then: str = "",
) -> None:
    name = f"{victim} dies: {moment}{then}"
    leaves = leaves or course.leaves
    part: Part = "more" if course in OTHERS else "whole"
    if (course.name, victim, moment + then) in SHORT:
        part = "short"
    BOOK.cell("F18", name, course.name, needs=course.needs, leaves=leaves, part=part)(act)


def _undisturbed() -> None:
    for course in WHOLE:
        BOOK.cell("F18", "nobody dies", course.name, needs=course.needs, leaves=course.leaves)(
            nobody_dies(course)
        )


def _matrix() -> None:
    for victim, strike in VICTIMS.items():
        for course in (*WHOLE, *OTHERS):
            for moment in course.moments:
                _add(course, victim, moment, course.struck_by(strike, moment, course.command))


def _given_up_instead() -> None:
    """A person who has had enough, and one who has changed their mind."""
    for victim, strike in VICTIMS.items():
        for moment in ("the rent call", "its supervisor runs"):
            act = UP.struck_by(strike, moment, "destroy")
            _add(UP, victim, moment, act, leaves="nothing", then=", destroyed")
        act = DESTROY.struck_by(strike, "the destroy call", "up")
        _add(DESTROY, victim, "the destroy call", act, leaves="running", then=", up after all")


def _changed_again() -> None:
    """A person who changes the settings once more before the next `up`."""
    for victim, strike in VICTIMS.items():
        for moment in ("the rent call", "its container runs"):
            act = changed_again(strike, moment)
            _add(CREATE_FIRST, victim, moment, act, then=CHANGED_AGAIN)


def _other_ends() -> None:
    for moment in ("the rent call", "its supervisor runs"):
        for victim, strike in (
            ("the terminal", the_terminal_closes),
            ("Ctrl-C twice, pulumi", ctrl_c_twice),
        ):
            _add(UP, victim, moment, UP.struck_by(strike, moment, "up"))
    for course, method, route in _IN_THE_CALL:
        act = the_market_dies_in_the_call(method, route, course)
        _add(course, "the emulator", f"in the {method} call", act)


_IN_THE_CALL = (
    (UP, "PUT", "/asks/"),
    (REPLACING, "DELETE", "/instances/"),
    (REPLACING, "PUT", "/asks/"),
    (DESTROY, "DELETE", "/instances/"),
)


def _of_the_wrapper() -> None:
    """The project's own commands stand between a person and `pulumi`."""
    interrupts: tuple[tuple[Course, str, str, Part], ...] = (
        (UP, "its container runs", "instance", "short"),
        (UP, "its supervisor runs", "instance", "whole"),
        (DESTROY, "the destroy call", "nothing is billed", "whole"),
    )
    for course, moment, billed, part in interrupts:
        BOOK.cell(
            "F18",
            f"one Ctrl-C: {moment}",
            course.name,
            needs=course.needs,
            leaves=course.leaves,
            part=part,
        )(interrupted(course, moment, billed))
    parts: dict[str, Part] = {"the rent call": "short", "its supervisor runs": "whole"}
    for moment, part in parts.items():
        BOOK.cell(
            "F18",
            f"the wrapper and all below it die: {moment}",
            UP.name,
            leaves="running",
            part=part,
        )(all_killed(UP, moment))


_undisturbed()
_matrix()
_given_up_instead()
_changed_again()
_other_ends()
_of_the_wrapper()
