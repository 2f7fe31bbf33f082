"""The files that a host lists as fetched, compared with the Hub's own list.

The list is the host's own claim, and a difference is enough to refuse the host.
"""

from __future__ import annotations

from components.machine.agent_answers import AnswerUnreadable, read_files
from components.machine.ssh_types import HostClient
from components.vllm import hub_commits
from components.vllm.errors import OtherWeights, ServerHostFailed
from components.vllm.hub_references import HubFile, matching
from components.vllm.server_access import COMMAND_SECONDS, run, supervise
from components.vllm.server_state import ServerInputs

COMPANION_FILES = (
    'snapshot=$(sed -n {line}p "$HOME/serving/state/snapshots") && [ -d "$snapshot" ] || exit 0; '
    'find "$snapshot" -type l | sort | while IFS= read -r link; do '
    'blob=$(readlink "$link"); '
    'echo "$(stat -L -c %s "$link") $(basename "$blob") ${{link#"$snapshot"/}}"; done'
)
"""Lists a repository's files as `supervise.sh files` does the model's, which are the first line."""


def listed(host: HostClient) -> tuple[HubFile, ...]:
    """Ask a host for the model's files: name, bytes and the Hub's digest of each.

    Raises:
        ServerHostFailed: if the command fails, or prints anything else.
    """
    return _listed(host, supervise("files"))


def compared(
    host: HostClient, inputs: ServerInputs, files: tuple[HubFile, ...], *, served_before: bool
) -> tuple[str, ...]:
    """Compare a host's files with the Hub's list, and return the repositories that agree.

    A host that served before may list no files of an older release, which is no difference.

    Raises:
        OtherWeights: if they differ by the host's own list.
    """
    at_hub = inputs.hub_files or {}
    alike = []
    for line, (name, patterns) in enumerate(hub_commits.fetched(inputs.model_env).items(), 1):
        if name not in at_hub:
            continue
        claimed = files if line == 1 else _listed(host, COMPANION_FILES.format(line=line))
        if not claimed and served_before:
            continue
        different = hub_commits.other_file(claimed, matching(at_hub[name], patterns), at_hub[name])
        if different:
            raise OtherWeights(
                f"{different} ({name} at {(inputs.commits or {})[name]}): it is not believed, and "
                "another host may do"
            )
        alike.append(name)
    return tuple(alike)


def _listed(host: HostClient, command: str) -> tuple[HubFile, ...]:
    printed = run(host, command, timeout=COMMAND_SECONDS)
    try:
        files = read_files(printed)
    except AnswerUnreadable as error:
        raise ServerHostFailed(f"the host's `{command}` {error}; another host may do") from None
    return tuple(HubFile(file.name, file.bytes, file.digest) for file in files)
