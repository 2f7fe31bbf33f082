"""The rented machine is not what it should be: F03 to F08, F20, F23."""

from __future__ import annotations

from tests.faults.cell import Act, Book
from tests.faults.world import World, assert_says

BOOK = Book()
cell = BOOK.cell

DOWNLOAD = "fetching the weights"


def machines(world: World) -> list[int]:
    """Machines that were rented, in order."""
    offers = [int(call["path"].strip("/").split("/")[-1]) for call in world.account.rents()]
    return [offer // 10_000 for offer in offers]  # its machine's id, then four digits


def next_machine(world: World, *said: str) -> str:
    """Bring the stack up on the second machine, after the first one was found unfit."""
    done = world.succeeds("up", *said)
    rented = machines(world)
    assert len(rented) == 2, f"{len(rented)} machines instead of two: {done.outcome()}"
    assert rented[0] != rented[1], "the machine was not excluded"
    assert done.output.index("given back") < done.output.index(DOWNLOAD), "weights came first"
    return "given back, the next machine serves"


def on_unfit_machine(fault: str, *said: str, **params: str | int) -> Act:
    """A fault of one machine that another one does not have."""

    def act(world: World) -> str:
        world.account.arm(fault, **params)
        return next_machine(world, *said)

    return act


# ----------------------------------------------------------------- F03, F04: it does not boot


@cell("F03", "stuck_loading", "up", leaves="running", part="whole")
def an_image_has_its_own_deadline(world: World) -> str:
    world.configure(bootMinutes=1)
    world.account.arm("stuck_loading")
    return next_machine(world, "image")


for _name, _said, _params in (
    ("CDI error", "CDI", {}),
    ("no space left", "no space left on device", {"msg": "write: no space left on device"}),
    ("exited", "exited", {"status": "exited", "msg": "container exited"}),
    ("offline", "offline", {"status": "offline", "msg": " "}),
    ("unknown", "unknown", {"status": "unknown", "msg": " "}),
):
    cell(
        "F04",
        f"fatal_status, {_name}",
        "up",
        leaves="running",
        part="short" if _name == "CDI error" else "whole",
    )(on_unfit_machine("fatal_status", _said, **_params))


# ----------------------------------------------------------------- F05: no host can pull it


def denied(*said: str, **params: str | int) -> Act:
    """The registry refuses: the configuration is at fault, so one machine is enough."""

    def act(world: World) -> str:
        world.account.arm("image_denied", 1000, **params)
        world.fails("up", "image", *said)
        assert len(machines(world)) == 1, "another host was tried in vain"
        return "fails, names the image; no other host is tried"

    return act


cell("F05", "image_denied", "up")(denied("pull access denied"))
cell("F05", "image_denied, manifest unknown", "up", part="whole")(
    denied("manifest", msg="Error response from daemon: manifest for vllm not found: unknown")
)


# ----------------------------------------------------------------- F06: it cannot be reached


@cell("F06", "ports_missing", "up", leaves="running", part="whole")
def a_mapping_has_its_own_deadline(world: World) -> str:
    world.configure(bootMinutes=1)
    world.account.arm("ports_missing")
    return next_machine(world, "no mapping for")


for _how, _said in (("timeout", "time"), ("refused", "refused")):
    cell("F06", f"port_unreachable, SSH, {_how}", "up", leaves="running", part="whole")(
        on_unfit_machine("port_unreachable", _said, how=_how, port=22)
    )
cell("F06", "port_unreachable, the server's", "up", leaves="running", part="whole")(
    on_unfit_machine("port_unreachable", "port 8000/tcp", "timed out", "it is filtered")
)


# ----------------------------------------------------------------- F07, F08: it is not what it says

cell("F07", "driver_old", "up", leaves="running")(
    on_unfit_machine("driver_old", "driver", "550.54.15")
)
cell("F07", "gpu_missing", "up", leaves="running", part="whole")(
    on_unfit_machine("gpu_missing", count=0)
)
cell("F07", "cuda_dead", "up", leaves="running", part="whole")(
    on_unfit_machine("cuda_dead", "CUDA does not start", "802")
)
cell("F07", "gpu_wrong, another model", "up", leaves="running", part="whole")(
    on_unfit_machine("gpu_wrong", "GTX 1080", name="NVIDIA GeForce GTX 1080")
)
cell("F07", "gpu_wrong, in use", "up", leaves="running", part="whole")(
    on_unfit_machine("gpu_wrong", used_mib=12000)
)


@cell("F07", "driver_old, destroy_lies", "up", leaves="running", part="whole")
def a_failed_machine_is_gone_before_the_next(world: World) -> str:
    world.account.arm("driver_old")
    world.account.arm("destroy_lies")
    return next_machine(world, "driver")


cell("F08", "disk_short", "up", leaves="running", part="whole")(
    on_unfit_machine("disk_short", "disk")
)


@cell("F08", "a disk that cannot be enough", "preview")
def the_need_is_computed_before_renting(world: World) -> str:
    world.configure(disk=10)
    world.fails("preview", "disk", "10")
    return "refused, names the need"


@cell("F08", "disk_full", "up, destroy")
def a_full_disk_is_named(world: World) -> str:
    world.account.arm("disk_full")
    done = world.fails("up")
    assert_says(done, "disk")
    assert len(machines(world)) == 1
    world.succeeds("destroy")
    return "fails, names the disk; destroyed"


# ----------------------------------------------------------------- F20, F23: it is no more


@cell("F20", "host_offline", "refresh, up", needs="running", leaves="running")
def a_host_that_went_is_replaced(world: World) -> str:
    (before,) = world.account.alive()
    world.account.arm("host_offline", id=before["id"])
    done = world.succeeds("refresh")
    assert_says(done, "offline", "/h", "pulumi up")
    world.succeeds("up", "has lost its host (offline)", "ends it and rents another machine")
    (after,) = world.account.alive()
    assert after["id"] != before["id"]
    return "said with its cost, then replaced"


@cell("F23", "stopped_still_billed", "refresh, up", needs="running", leaves="running")
def a_stopped_machine_is_replaced(world: World) -> str:
    (before,) = world.account.alive()
    world.stop_instance()
    done = world.succeeds("refresh")
    assert_says(done, "stopped", "/h", "pulumi up")
    world.succeeds("up")
    (after,) = world.account.alive()
    assert after["id"] != before["id"]
    return "said with its cost, then replaced"


@cell("F23", "stopped_still_billed", "destroy", needs="running")
def a_stopped_machine_is_destroyed(world: World) -> str:
    world.stop_instance()
    world.succeeds("destroy")
    return "destroyed"
