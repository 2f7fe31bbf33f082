"""`VllmServer`: vLLM on a rented host, up when the right model has answered with the key.

The configuration is pushed over SSH, not baked into the rental, so a changed flag restarts the
server on the same host and downloads nothing. What lies on the host are digests, never a key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pulumi
from pulumi import dynamic

from components.core.bounded import OutOfTime, apart
from components.core.errors import HostError, StackError
from components.core.interruption import Interrupted
from components.core.progress import Progress, duration
from components.core.property_bag import Properties, changed
from components.machine import first_contact
from components.machine.addresses import with_port
from components.machine.agent_answers import AnswerUnreadable, moment, read_files
from components.machine.ssh_types import ASK_TIMEOUT, HostAddress, Nonsense
from components.resources.authority import Authority
from components.resources.context import current
from components.resources.hub_revisions import HubRevisions
from components.resources.instance import VastInstance
from components.resources.provider import Provider
from components.vast import unfit
from components.vllm import change, hub_commits, key_rotation, machine_key
from components.vllm.agent_files import (
    OF_THE_HUB,
    agent_digest,
    agent_files,
    model_env,
)
from components.vllm.api_key import ApiKey
from components.vllm.assignments import assigned, assignments
from components.vllm.change import READY, is_doubted
from components.vllm.client_types import (
    ANSWER_TIMEOUT,
    PATIENT_TIMEOUT,
    EndpointDoor,
    ModelInfo,
    Refused,
    Traffic,
    Unreachable,
)
from components.vllm.command import DRAIN_SECONDS
from components.vllm.drain import until_quiet
from components.vllm.errors import (
    ChangeFailed,
    OtherWeights,
    ServerFailed,
    ServerHostFailed,
    TokenHeldBack,
)
from components.vllm.host_certificates import Shown, is_taken, with_cross_certificate
from components.vllm.hub_references import files_from_bag, matching
from components.vllm.profile import Profile
from components.vllm.readiness.decide import BUSY, MOST_PIECES, host_complaint
from components.vllm.readiness.log_parser import BootLog, Stage
from components.vllm.readiness.plan import ReadinessPlan
from components.vllm.readiness.wait import (
    LogFollower,
    NotReady,
    ReadinessReport,
    in_utc,
    wait_until_ready,
)

if TYPE_CHECKING:
    from components.vllm.client import Endpoint
    from components.vllm.host import Host

PUSHED = ("serve_yaml", "model_env", "environment", "agent", "tls")
"""Inputs that the running server has read: a change restarts it, on the same host."""

OTHERS = (
    "public_ip",
    "host_port",
    "ssh_port",
    "host_key",
    "private_key",
    "stack_key_digest",
    "key_generation",
    "shared_api_key",
    "key_grace_minutes",
    "max_request_mib",
    "authorities",
    "leaf",
    "client_certificate",
    "model",
    "max_model_len",
    "download_gb",
    "ready_minutes",
    "drain_minutes",
    "commits",
    "hub_files",
)
"""Inputs that a running server need not be restarted for. `image_gb` and `disk_gb` are neither:
what they change makes another machine, and they are there for what a change says."""

RECONFIGURED = "the server was started with another configuration than the stack's"

DRAINING = "the server asks its clients to leave, as before its end"

MIB = 1024 * 1024
"""Bytes."""

NOT_VOUCHED_FOR = "nobody vouched for its SSH host key at first contact"
"""Why a machine does not get that variable."""

PUSHED_MARK = "pushed"
"""File on the host with the digest of what it was brought to run; empty while it is brought there.
"""

PUSHED_CERTIFICATES = "tls/pushed.pem"
"""File on the host with what the server shows; `supervise.sh certify` puts it in its place."""

PUSHED_CLIENTS = "tls/pushed-clients.pem"
"""The same of whose clients it lets in; empty if it lets in all."""

UNTOUCHED = (
    "what served before, if anything did, is on another machine, untouched, and serves on; this "
    "new machine stays and is billed until an `up` that works, or that goes back (`make rollback`)"
)
"""What follows a failure of something that came up beside what it was to replace."""

STAYS = "the machine stays and is billed until an `up` that works, or `pulumi destroy`"
"""What follows a failure on a machine that is not the cause."""

COMPANION_FILES = (
    'snapshot=$(sed -n {line}p "$HOME/serving/state/snapshots") && [ -d "$snapshot" ] || exit 0; '
    'find "$snapshot" -type l | sort | while IFS= read -r link; do '
    'blob=$(readlink "$link"); '
    'echo "$(stat -L -c %s "$link") $(basename "$blob") ${{link#"$snapshot"/}}"; done'
)
"""Lists a repository's files as `supervise.sh files` does the model's, which are the first line."""

LOOK_EVERY = 3.0
"""Seconds between two looks at what takes its time."""

ENDPOINT_LOOK = PATIENT_TIMEOUT + 3.0
"""Seconds for all that a refresh asks the endpoint: one patient answer and some quick ones."""

HOST_LOOK = ASK_TIMEOUT
"""Seconds for a look at the host, login and all; also for a stop of what does not serve anyway."""

STOP_SECONDS = DRAIN_SECONDS + 25.0
"""Seconds for a stop: the supervisor itself kills what has not ended by then."""

_Look = Traffic | Refused | Unreachable

T = TypeVar("T")


class ServerProvider(Provider):
    """CRUD of `VllmServer`: pushes files, waits for the answer."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another machine is another server; all else happens in place."""
        replaces = changed(olds, news, ["instance_id"])
        others = changed(olds, news, PUSHED + OTHERS)
        drifted = olds.get("status") != READY
        said = change.describe(olds, news, replaces + _felt(olds, news, others + _key(olds, news)))
        if said:
            _progress().say(said)
        return dynamic.DiffResult(
            changes=bool(replaces or others or drifted),
            replaces=replaces,
            delete_before_replace=True,
        )

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Push, start, wait until the model has answered."""
        props = _keyed({}, props)
        try:
            outs = _serve(props, {}, {})
        except StackError as error:
            _mark_if_unfit(props, error)
            if props.get("drain_minutes") is not None:
                error.args = (f"{error}; {UNTOUCHED}",)
            elif not isinstance(error, ServerHostFailed | Nonsense):
                error.args = (f"{error}; {STAYS}",)
            raise
        return dynamic.CreateResult(f"server-on-{int(props['instance_id'])}", outs)

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Ask the endpoint who it is, and the host what it was started with."""
        return dynamic.ReadResult(id_, {**props, "status": _looked_at(props, _progress())})

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Serve what is asked for now, or go back; a replaced key works on for its grace."""
        olds, news = _asked_again(olds, news), _keyed(olds, news)
        try:
            outs = _serve(news, olds, olds)
        except StackError as error:
            raise _undone(olds, error) from None
        if outs["started_at"] == olds.get("started_at"):
            outs["boot_seconds"] = olds["boot_seconds"]
        return dynamic.UpdateResult(outs)

    def delete(self, _id: str, props: Properties) -> None:
        """Stop the server if its host still answers; the machine's own end stops it otherwise.

        One that another has taken over from first waits until its clients have left, whatever a
        refresh found: that may be long ago. Whatever the host does, this ends in time and without
        an error, since the machine is billed until what follows.
        """
        progress = _progress()
        minutes = float(props.get("drain_minutes") or 0)
        if minutes:
            _on_its_way_out(progress, "asking clients to leave", HOST_LOOK, lambda: _drain(props))
            seconds = minutes * 60 + ANSWER_TIMEOUT + LOOK_EVERY
            _on_its_way_out(progress, "the wait for its clients", seconds, lambda: _drained(props))
            progress.go_on("the end of the previous endpoint", STAYS)
        serves = props.get("status") == READY
        seconds = HOST_LOOK if serves else HOST_LOOK / 2
        if not _on_its_way_out(progress, "a look at its host", seconds, lambda: _reached(props)):
            return
        seconds = STOP_SECONDS if serves else HOST_LOOK
        if _on_its_way_out(progress, "the stop", seconds, lambda: _stopped(props)):
            progress.say("stopped")


class VllmServer(dynamic.Resource, module="vllm", name="Server"):
    """One model, served."""

    endpoint_url: pulumi.Output[str]
    api_key: pulumi.Output[str]
    """Secret: what the machine takes, see `machine_key.py`."""
    ca_certificate: pulumi.Output[str]
    """PEM to pin: the stack's authority; on a machine from an older release also the certificate
    that it had before. Empty with `tls` off."""
    model: pulumi.Output[str]
    max_model_len: pulumi.Output[int]
    commits: pulumi.Output[dict[str, str]]
    """By repository, those that the stack has resolved: the host is held to them."""
    model_revision: pulumi.Output[str]
    """The commit of the model that the host names; one of `commits` is the same."""
    files: pulumi.Output[list[dict[str, Any]]]
    """Of the model, as the host names them: `name`, `bytes` and `digest`."""
    files_compared: pulumi.Output[list[str]]
    """The repositories whose files, as the host names them, are the Hub's."""
    companion_revisions: pulumi.Output[dict[str, str]]
    """By repository, the commits of the companions that the host names."""
    started_at: pulumi.Output[str]
    """UTC, ISO 8601."""
    boot_seconds: pulumi.Output[dict[str, float]]
    """By stage: download, load, compile, ..., completion."""

    def __init__(
        self,
        name: str,
        *,
        instance: VastInstance,
        private_key: pulumi.Input[str],
        api_key: ApiKey,
        key_rule: machine_key.KeyRule,
        profile: Profile,
        revisions: HubRevisions,
        authority: Authority,
        serve_yaml: str,
        tls: bool,
        key_grace_minutes: float,
        max_request_mib: int,
        environment: str,
        ready_minutes: float,
        token_for: pulumi.Input[Sequence[str]],
        drain_minutes: float | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Serve `profile` at `revisions` as `serve_yaml` says, on `instance`.

        With `tls`, it shows the certificate that `authority` has signed for the instance.
        `environment` is what the function of that name gives. `token_for` are the repositories that
        the Hub gives to the holder of the token alone. With `drain_minutes`, its end waits that
        long at most until no client asks any more.
        """
        inputs: dict[str, Any] = {
            # The id, not the output: it stays known in a preview unless the machine is replaced.
            "instance_id": instance.id,
            "public_ip": instance.public_ip,
            "host_port": instance.host_port,
            "ssh_port": instance.ssh_port,
            "host_key": instance.host_key,
            "host_key_from": instance.host_key_from,
            "token_for": token_for,
            "private_key": private_key,
            "stack_key": api_key.api_key,
            "stack_key_digest": api_key.digest,
            "previous_key_digest": api_key.previous_digest,
            "key_scope": key_rule.scope,
            "key_generation": key_rule.generation,
            "shared_api_key": key_rule.shared,
            "model": profile.served_model_name,
            "max_model_len": profile.max_model_len,
            "download_gb": profile.weights_gb,
            "image_gb": profile.image_gb,
            "disk_gb": profile.disk_gb,
            "serve_yaml": serve_yaml,
            "model_env": model_env(profile),
            "commits": revisions.commits,
            "hub_files": revisions.files,
            "authorities": authority.certificate,
            "leaf": authority.leaf,
            "client_certificate": authority.client_certificate,
            "key_grace_minutes": key_grace_minutes,
            "max_request_mib": max_request_mib,
            "environment": pulumi.Output.secret(environment),
            "agent": agent_digest(),
            "tls": tls,
            "ready_minutes": ready_minutes,
            "drain_minutes": drain_minutes,
        }
        outputs = dict.fromkeys(
            [
                "endpoint_url",
                "api_key",
                "key_digest",
                "ca_certificate",
                "former_certificate",
                "cross_certificate",
                "model_revision",
                "files",
                "files_compared",
                "companion_revisions",
                "started_at",
                "boot_seconds",
            ]
        )
        own = pulumi.ResourceOptions(
            additional_secret_outputs=[
                "private_key",
                "stack_key",
                "api_key",
                "client_certificate",
                "environment",
            ],
            # Also where a person wants it replaced: the end of the old one stops what the new one
            # would have found running.
            delete_before_replace=True,
        )
        super().__init__(
            ServerProvider(),
            name,
            {**inputs, **outputs},
            pulumi.ResourceOptions.merge(opts, own),
        )


def _serve(props: Properties, before: Properties, known: Properties) -> Properties:
    """Bring the host to serve what `props` say; the keys of `before` work on for their grace.

    `known` are the outputs of the server that the host runs as far as the state knows.
    """
    progress = _progress()
    plan = _readiness(props)
    with _host(props) as host:
        progress.say("pushing its configuration to the host")
        # Until the new key is proven, the ones before must not run out.
        _push_gate(host, props, key_rotation.prolonged(_replaced(before, props), plan.deadline))
        shown = _certified(host, Shown.of(props, before), progress)
        served_before = _push(host, props, known, shown, progress)
        endpoint: EndpointDoor = _endpoint(props, shown.trusted)
        if served_before:
            plan = dataclasses.replace(plan, served_before=True)
            endpoint = _Patient(_endpoint(props, shown.trusted, PATIENT_TIMEOUT), progress)
        report = wait_until_ready(host, endpoint, plan, current().clock, progress)
        # Clients can change over from now on only, so the grace of the key before begins now.
        replaced = _replaced(before, props)
        _push_gate(host, props, replaced)
        files = _files(host, _supervise("files"))
        compared = _compared(host, props, files, served_before=served_before)
    progress.say(f"{props['model']} answers at {_url(props)}")
    if before and before["key_digest"] != props["key_digest"]:
        progress.say(_of_the_key_before(replaced.get(str(before["key_digest"])), props))
    outs = _outputs(props, shown, report)
    return {**outs, "files": files, "files_compared": compared, "replaced_keys": replaced}


def _of_the_key_before(until: float | None, props: Properties) -> str:
    """Say when it ends, if it does not end at once."""
    shown = "the stack's outputs show it until this update is through"
    if until is None or not float(props["key_grace_minutes"]):
        return f"the key of before is refused from now on, and {shown}"
    return (
        f"the key of before works until {in_utc(until)}, and {shown}: if something fails after "
        "this, run `pulumi up` again before then"
    )


def _asked_again(olds: Properties, news: Properties) -> Properties:
    """Ask a server that a refresh found not ready once more, before anything follows from that.

    One look can fail by itself, and what serves is something to go back to.
    """
    if not is_doubted(olds):
        return olds
    there = {**olds, "public_ip": news["public_ip"], "host_port": news["host_port"]}
    ailing = _ailing(there, str(olds.get("ca_certificate") or ""), _progress())
    return {**olds, "status": ailing or READY}


def _undone(olds: Properties, error: StackError) -> StackError:
    """Serve again what was served before a change that did not come up; return what to tell."""
    if isinstance(error, Interrupted):
        return Interrupted(f"{error}; the host goes on with the change, and {STAYS}")
    if olds.get("status") != READY or isinstance(error, OtherWeights):
        # What a host served before that has other weights is no more to be believed.
        _mark_if_unfit(olds, error)
        return error
    progress = _progress()
    progress.say(f"the change did not come up ({error}); going back to what served before")
    try:
        if _keys_are_all(olds):
            return ChangeFailed(
                f"{error}; the keys of before hold again, and the server runs on as it was"
            )
        _serve(olds, olds, {})
    except (ServerFailed, Nonsense) as again:
        _mark_if_unfit(olds, again)
        return ChangeFailed(
            f"{error}; going back to the configuration of before failed too ({again}), so nothing "
            "serves: correct the settings and run `pulumi up`, or `pulumi destroy` to end the bill"
        )
    except StackError as again:
        return ChangeFailed(
            f"{error}; going back to the configuration of before failed too ({again}), so the host "
            "may serve either of them: run `pulumi up` again, which finds out and pushes what is "
            "asked for, or `pulumi destroy` to end the bill"
        )
    return ChangeFailed(f"{error}; the configuration of before serves again, nothing else changed")


def _keys_are_all(olds: Properties) -> bool:
    """Where the host runs what it ran before, put the keys back, which is all there is to undo.

    To ask such a server again would take as long as the first time, and say the same.
    """
    with _host(olds) as host:
        if _running(host, olds) is None:
            return False
        _push_gate(host, olds, _replaced(olds, olds))
    return True


def _mark_if_unfit(props: Properties, error: StackError) -> None:
    """If it is the machine's fault, mark it on the account and say so in `error`."""
    if isinstance(error, ServerHostFailed | Nonsense):
        cause = error.cause if isinstance(error, NotReady | OtherWeights) else "commands_fail"
        error.args = (
            f"{error}; {unfit.mark(current().market(), int(props['instance_id']), cause)}",
        )


def _certified(host: Host, shown: Shown, progress: Progress) -> Shown:
    """Push the scripts, and the certificates that a server shows; one that runs takes them up."""
    host.put(agent_files())
    shown = with_cross_certificate(shown, host)
    if shown.former and shown.leaf and not shown.cross:
        progress.say(
            "the host cannot vouch for the stack's authority with its own former certificate: "
            "clients that pin that one alone need the stack's `ca_certificate` now"
        )
    if shown.leaf:
        host.put(
            {
                PUSHED_CERTIFICATES: (shown.chain.encode(), 0o644),
                PUSHED_CLIENTS: (shown.lets_in.encode(), 0o644),
            }
        )
        _run(host, _supervise("certify"), timeout=60.0)
    return shown


def _push(
    host: Host, props: Properties, known: Properties, shown: Shown, progress: Progress
) -> bool:
    """Bring the host's files up to date and the server to run with them.

    Gives whether the server was left running and had been up before.
    """
    status = _running(host, props)
    if status is not None:
        was_up = _was_up(host, status, known)
        ailing = ""
        if shown.leaf and not is_taken(_endpoint(props, shown.leaf), current().clock):
            ailing = "it does not take up its new certificate"
        elif was_up and is_doubted(known):
            ailing = str(known["status"])
            if _is_known_otherwise(known, shown):
                ailing = _ailing(props, shown.trusted, progress)
        if not ailing:
            progress.say("the server runs with this configuration already")
            if status.get("draining"):
                # Its end was begun and not gone through with.
                _run(host, _supervise("undrain"), timeout=60.0)
                progress.say("it was draining, and takes requests again")
            return was_up
        progress.say(f"the server runs and is not well ({ailing}): it is restarted")
    _refuse_without_token(props, progress)
    # Whoever comes after a broken connection must not take what is half pushed for what runs.
    host.put({PUSHED_MARK: (b"", 0o644)})
    told = _told(props)
    host.put(
        {
            "serve.yaml": (str(told["serve_yaml"]).encode(), 0o644),
            "model.env": (str(told["model_env"]).encode(), 0o644),
            "environment": (str(told["environment"]).encode(), 0o600),
        }
    )
    _run_long(host, _supervise("restart"), progress, "the running server drains and starts anew")
    host.put({PUSHED_MARK: (_pushed_digest(told).encode(), 0o644)})
    progress.say("the supervisor has started")
    return False


def _is_known_otherwise(known: Properties, shown: Shown) -> bool:
    """Whether a server was asked for at another address, or while its certificate had ended."""
    pinned, leaf = str(known.get("ca_certificate") or ""), str(known.get("leaf") or "")
    return (pinned, leaf) != (shown.trusted, shown.leaf)


def _replaced(before: Properties, props: Properties) -> key_rotation.Replaced:
    """Find the keys that work beside the one of `props` if that one begins to hold now."""
    return key_rotation.replaced(before, props, current().clock.epoch())


def _push_gate(host: Host, props: Properties, replaced: key_rotation.Replaced) -> None:
    """Write what the key gate reads again while it serves."""
    lines = key_rotation.lines(str(props["key_digest"]), replaced)
    files = {"allowed_keys": (lines.encode(), 0o600)}
    if "max_request_mib" in props:  # (a state of an older release lacks it)
        most = int(props["max_request_mib"]) * MIB
        files["body_limit"] = (f"{most}\n".encode(), 0o644)
    host.put(files)


def _files(host: Host, command: str) -> list[Properties]:
    """A repository's files as the host names them: name, bytes and the Hub's digest of each."""
    files = _answered(host, command, read_files)
    return [dataclasses.asdict(file) for file in files]


def _compared(
    host: Host, props: Properties, files: list[Properties], *, served_before: bool
) -> list[str]:
    """Hold a host's files to the Hub's list, and name the repositories that are as they should be.

    What an older release fetched may not be listed by its host; that is no word against it.

    Raises:
        OtherWeights: if they are others by the host's own words.
    """
    told = str(props["model_env"])
    at_hub = {name: files_from_bag(one) for name, one in (props.get("hub_files") or {}).items()}
    compared = []
    for line, (name, patterns) in enumerate(hub_commits.fetched(told).items(), 1):
        if name not in at_hub:
            continue
        claimed = files
        if line > 1:
            claimed = _files(host, COMPANION_FILES.format(line=line))
        if not claimed and served_before:
            continue
        wanted = matching(at_hub[name], patterns)
        different = hub_commits.other_file(files_from_bag(claimed), wanted, at_hub[name])
        if different:
            raise OtherWeights(
                f"{different} ({name} at {_commits(props)[name]}): it is not believed, and another "
                "host may do"
            )
        compared.append(name)
    return compared


def _answered(host: Host, command: str, read: Callable[[str], T]) -> T:
    """Run a command on a host and read what it answers.

    Raises:
        ServerHostFailed: if it fails, or answers what it never does.
    """
    printed = _run(host, command, timeout=60.0)
    try:
        return read(printed)
    except AnswerUnreadable as error:
        raise ServerHostFailed(f"the host's `{command}` {error}; another host may do") from None


def _running(host: Host, props: Properties) -> dict[str, str] | None:
    """Give the status of a supervisor that runs what would be pushed: nothing is restarted then."""
    known, _ = host.read_log(PUSHED_MARK, 0)
    at_commits = known == _pushed_digest(_told(props))
    if not at_commits and known != _pushed_digest(props):
        return None
    status = host.status()
    complaint = host_complaint(_held(props), status)
    if complaint and at_commits:
        raise OtherWeights(f"{complaint}: it is not believed, and another host may do")
    # A release before this one pushed branches, and its host took them where they were then.
    runs = status.get("supervisor") == "running" and not complaint
    return status if runs and not _reconfigured(status, props) else None


def _was_up(host: Host, status: dict[str, str], known: Properties) -> bool:
    """Whether a server that runs was up once: by the state, as the very same process, by its log.

    One that is still on its way up, as after an `up` that was interrupted, was not; its start is in
    its log.
    """
    if not is_doubted(known):
        return known.get("status") == READY
    if status.get("phase") != "serving":
        return False
    since = moment(status.get("phase_since", ""))
    if since is not None and in_utc(since) == known.get("started_at"):
        return True
    log = BootLog()
    follower = LogFollower(host, "vllm.log")
    for _ in range(MOST_PIECES):
        log.feed(follower.news())
        if not follower.behind:
            break
    return log.stage is Stage.SERVING or not log.start_seen


def _ailing(props: Properties, certificate: str, progress: Progress) -> str:
    """Say what is wrong with a server that was up, so that a restart may mend it; empty if nothing.

    It is asked where `props` have it, with their key.
    """
    endpoint = _endpoint(props, certificate, PATIENT_TIMEOUT)
    key, model = str(props["api_key"]), str(props["model"])
    doing = "asking for a completion, to tell a server that hangs from one that is busy"
    return _meanwhile(progress, doing, lambda: _unanswered(endpoint, key, model))


def _reconfigured(status: Mapping[str, str], props: Properties) -> bool:
    """Whether the server was started with another serve.yaml than the one of `props`.

    While the weights come, none was started yet, and what the status says is of the one before.
    """
    started_with = status.get("config_digest", "")
    if not started_with or status.get("phase") == "prefetch":
        return False
    texts = (_told(props)["serve_yaml"], props["serve_yaml"])
    return started_with not in {hashlib.sha256(str(one).encode()).hexdigest() for one in texts}


def _commits(props: Properties) -> dict[str, str]:
    """Those of the stack; none in a state that an older release wrote, or while nobody knows."""
    commits = props.get("commits")
    return dict(commits) if commits and not pulumi.contains_unknowns(commits) else {}


def _told(props: Properties) -> Properties:
    """The inputs as they are pushed, with each repository at its commit.

    Without the token where it is held back.
    """
    commits = _commits(props)
    environment = props["environment"]
    if _holds_token_back(props):
        values = assigned(str(environment))
        environment = assignments({name: values[name] for name in values if name != OF_THE_HUB})
    return {
        **props,
        "environment": environment,
        "serve_yaml": hub_commits.serve_yaml_at(str(props["serve_yaml"]), commits),
        "model_env": hub_commits.model_env_at(str(props["model_env"]), commits),
    }


def _holds_token_back(props: Properties) -> bool:
    """Whether there is a token that the machine does not get.

    A machine that an older release rented has it already.
    """
    is_unproven = props.get("host_key_from") == first_contact.BY_TRUST
    return is_unproven and OF_THE_HUB in assigned(str(props["environment"]))


def _refuse_without_token(props: Properties, progress: Progress) -> None:
    """Say that the token is held back.

    Raises:
        TokenHeldBack: if the download would need it.
    """
    if not _holds_token_back(props):
        return
    closed = ", ".join(props.get("token_for") or [])
    if closed:
        raise TokenHeldBack(
            f"the Hub gives {closed} to the holder of huggingFaceToken alone, and the token is not "
            f"sent to instance {int(props['instance_id'])}: {NOT_VOUCHED_FOR}; take another "
            "machine by `pulumi up --replace` with the URN of this one, or a model that everybody "
            "may have"
        )
    progress.say(f"the Hub token is not sent to this machine: {NOT_VOUCHED_FOR}")


def _held(props: Properties) -> hub_commits.Held:
    return hub_commits.held(str(props["model_env"]), _commits(props))


def _keyed(olds: Properties, news: Properties) -> Properties:
    """The inputs with the key that the machine takes; `olds` are the outputs on that machine."""
    key = machine_key.taken(olds, news)
    return {**news, "api_key": key, "key_digest": machine_key.digest(key)}


def _key(olds: Properties, news: Properties) -> list[str]:
    """`key_digest` if the machine's key changes: no input, but what a client notices."""
    if "stack_key" not in news:
        # A refresh comes by with inputs that an older release has recorded.
        return []
    known = not pulumi.contains_unknowns(news["stack_key"])
    return ["key_digest"] if machine_key.will_change(olds, news, known=known) else []


def _felt(olds: Properties, news: Properties, keys: list[str]) -> list[str]:
    """Leave out of the changed `keys` what a host is told no other thing by."""
    before, after = _told(olds), _told({**olds, **news})
    pushed = ("serve_yaml", "model_env", "environment")
    same = [key for key in pushed if before[key] == after[key]]
    return [key for key in keys if key not in same]


def _pushed_digest(props: Properties) -> str:
    whole = hashlib.sha256()
    for key in PUSHED:
        whole.update(f"{key}={props[key]}\0".encode())
    return whole.hexdigest()


def _run(host: Host, command: str, *, timeout: float) -> str:
    result = host.run(command, timeout=timeout)
    if result.exit_status != 0:
        last = (result.stderr or result.stdout).strip()[-300:]
        raise ServerHostFailed(
            f"the host cannot run `{command}` (status {result.exit_status}: {last}); "
            "another host may do"
        )
    return result.stdout


def _run_long(host: Host, command: str, progress: Progress, doing: str) -> None:
    """Run a command that waits for requests to end, saying so meanwhile."""
    _meanwhile(progress, doing, lambda: _run(host, command, timeout=DRAIN_SECONDS + 60.0))


def _meanwhile(
    progress: Progress, doing: str, call: Callable[[], T], seconds: float = math.inf
) -> T:
    """Make a call that takes its time, saying what it is waited for.

    Raises:
        OutOfTime: if it has not ended after `seconds`.
    """
    return apart(
        call,
        seconds=seconds,
        clock=current().clock,
        waiting=lambda: progress.waiting(doing),
        look_every=LOOK_EVERY,
    )


def _on_its_way_out(
    progress: Progress, what: str, seconds: float, call: Callable[[], object]
) -> bool:
    """Do a service to a server that ends; whether it was done, whatever its host made of it."""
    try:
        _meanwhile(progress, f"{what} goes on", call, seconds)
    except OutOfTime:
        progress.say(f"{what} was given up after {duration(seconds)}: its host goes anyway")
    except Interrupted:
        # The caller says so; its host does not go.
        return False
    except Exception as error:  # noqa: BLE001  (nothing that a host does may keep it from its end)
        words = str(error) if isinstance(error, StackError) else type(error).__name__
        progress.say(f"{what} failed, its host goes anyway ({words})")
    else:
        return True
    return False


def _drained(props: Properties) -> None:
    endpoint = _endpoint(props, str(props.get("ca_certificate") or ""))
    key, longest = str(props["api_key"]), float(props["drain_minutes"]) * 60
    until_quiet(lambda: endpoint.traffic(key), longest, current().clock, _progress())


def _reached(props: Properties) -> None:
    with _host(props) as host:
        host.status()


def _stopped(props: Properties) -> None:
    with _host(props) as host:
        _run(host, _supervise("stop"), timeout=STOP_SECONDS)


@dataclasses.dataclass(frozen=True)
class _Patient:
    """An `EndpointDoor` whose completion may take long; it says so meanwhile."""

    endpoint: EndpointDoor
    progress: Progress

    def models(self, key: str) -> ModelInfo | Refused | Unreachable:
        return self.endpoint.models(key)

    def complete(self, key: str, model: str) -> str | Refused | Unreachable:
        doing = "asking for a completion, which may take its turn behind other requests"
        return _meanwhile(self.progress, doing, lambda: self.endpoint.complete(key, model))

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        return self.endpoint.status_of(path, key, method=method)


def _supervise(what: str) -> str:
    return f'sh "$HOME/serving/supervise.sh" {what}'


def _looked_at(props: Properties, progress: Progress) -> str:
    """`ready`, or what is wrong, in words; no host can make an error of it, or outlast its time."""
    doing = "asking whether it still serves"
    try:
        status = _meanwhile(progress, doing, lambda: _answers(props), ENDPOINT_LOOK)
        return status if status != READY else _found_on_host(props, progress)
    except OutOfTime:
        return f"could not be asked within {duration(ENDPOINT_LOOK)}"
    except Exception as error:  # noqa: BLE001  (what a host's answer comes to is a status)
        words = str(error) if isinstance(error, StackError) else type(error).__name__
        return f"could not be asked ({words})"


def _answers(props: Properties) -> str:
    """`ready`, or what is wrong with the endpoint, in words."""
    key = str(props["api_key"])
    certificate = str(props.get("ca_certificate") or "")
    # A list of models waits behind no request: only what is generated has a queue.
    found = _endpoint(props, certificate).models(key)
    if not isinstance(found, ModelInfo):
        return str(found)
    if props["model"] not in found.ids or found.max_model_len != int(props["max_model_len"]):
        return f"serves {found.id} with {found.max_model_len} tokens"
    patient = _endpoint(props, certificate, PATIENT_TIMEOUT)
    return _unanswered(patient, key, str(props["model"])) or READY


def _unanswered(endpoint: Endpoint, key: str, model: str) -> str:
    """Say how the server completes nothing; empty if it does, or is busy with other requests.

    One that hangs lists its models all the same, and turns new requests away when enough of them
    hang. A busy one may do so as well, or be late; but its counters move on.
    """
    clock = current().clock
    deadline = clock.monotonic() + PATIENT_TIMEOUT
    before = endpoint.traffic(key)
    answer = endpoint.complete(key, model)
    if isinstance(answer, str):
        return ""
    is_busy = isinstance(answer, Refused) and answer.status in BUSY
    if not is_busy and answer != Unreachable("timed_out"):
        return f"completes nothing: {answer}"
    after = endpoint.traffic(key)
    while _stands_still(before, after) and clock.monotonic() < deadline:
        clock.sleep(LOOK_EVERY)
        after = endpoint.traffic(key)
    if _stands_still(before, after):
        return f"hangs: no completion and not one token within {PATIENT_TIMEOUT:.0f} s"
    return str(after) if isinstance(after, Unreachable) else ""


def _stands_still(before: _Look, after: _Look) -> bool:
    """Whether the counters say that nothing was done in between; without them nothing is said."""
    return isinstance(before, Traffic) and isinstance(after, Traffic) and before.stands_as(after)


def _found_on_host(props: Properties, progress: Progress) -> str:
    """Ask the host of a server that answers; one that is not reached is no news of what it serves.

    Gives `ready`, or what is wrong, in words.
    """

    def ask() -> str:
        with _host(props) as host:
            return _what_runs(host.status(), props)

    try:
        return _meanwhile(progress, "asking its host what it was started with", ask, HOST_LOOK)
    except Nonsense as error:
        return str(error)
    except (HostError, OutOfTime):
        return READY


def _what_runs(status: Mapping[str, str], props: Properties) -> str:
    """`ready`, or in words what a host runs instead of what it was told."""
    if _reconfigured(status, props):
        return RECONFIGURED
    complaint = host_complaint(_held(props), status)
    return complaint or (DRAINING if status.get("draining") else READY)


def _drain(props: Properties) -> None:
    """Ask balancers and clients to leave the server."""
    with _host(props) as host:
        _run(host, _supervise("drain"), timeout=60.0)


def _host(props: Properties) -> Host:
    return current().host(
        HostAddress(str(props["public_ip"]), int(props["ssh_port"])),
        str(props["private_key"]),
        known_host_key=str(props["host_key"]),
        secrets=[str(props["api_key"])],
    )


def _endpoint(
    props: Properties, certificate: str, answer_timeout: float = ANSWER_TIMEOUT
) -> Endpoint:
    identity = str(props.get("client_certificate") or "")
    return current().endpoint(_url(props), certificate, answer_timeout, identity)


def _readiness(props: Properties) -> ReadinessPlan:
    return ReadinessPlan(
        model=str(props["model"]),
        max_model_len=int(props["max_model_len"]),
        api_key=str(props["api_key"]),
        download_bytes=float(props["download_gb"]) * 1e9,
        deadline=float(props["ready_minutes"]) * 60,
        # One of the values may be a token.
        secrets=tuple(assigned(str(props["environment"])).values()),
        held=_held(props),
    )


def _url(props: Properties) -> str:
    scheme = "https" if props["tls"] else "http"
    return f"{scheme}://{with_port(str(props['public_ip']), int(props['host_port']))}"


def _outputs(props: Properties, shown: Shown, report: ReadinessReport) -> Properties:
    held = _held(props)
    # What a host was held to is known without its word, which may name more.
    resolved = held.commits.get(held.model, report.resolved_revision)
    companions = {name: at for name, at in held.commits.items() if name != held.model}
    return {
        **props,
        **shown.outputs(),
        "status": READY,
        "endpoint_url": f"{_url(props)}/v1",
        "model_revision": resolved,
        "companion_revisions": companions if held.commits else report.companion_revisions,
        "started_at": report.started_at,
        "boot_seconds": {stage: round(took, 1) for stage, took in report.seconds.items()},
    }


def _progress() -> Progress:
    return current().progress("server")
