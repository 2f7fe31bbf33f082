"""The script that Vast runs at every start of the container. Small and stable.

The script carries no credential. Whoever knows `proof_key` could vouch for a host key.
"""

from __future__ import annotations

from collections.abc import Mapping

from components.machine import first_contact

END_OF_FILE = "END_OF_FILE"


def onstart(public_key: str, files: Mapping[str, str] | None = None, proof_key: str = "") -> str:
    """Let the stack in, and start the model server's supervisor if this host has one.

    The script keeps the container's own variables for the supervisor, since a login over SSH has
    none of them. Images say in `PATH` and `LD_LIBRARY_PATH` where vLLM and CUDA are. The
    container's key can end this machine; it is kept apart, for the watch over the machine's time
    alone.

    `files` (name to content) are written to the serving folder. Existing files stay, since newer
    ones are pushed over SSH. With these files the watch over the machine's time begins at the first
    start, before any login.

    With a `proof_key` the script writes the fingerprints of the SSH host keys to the container's
    output, for the first login (`first_contact.py`).

    Relative to `$HOME`, since an emulated container's home is a directory of its own. Well under
    the 4000 characters that Vast takes for certain (vast-api reference, 3.2).
    """
    carried = "".join(
        f'[ -f "$HOME/serving/{name}" ] || cat >"$HOME/serving/{name}" <<\'{END_OF_FILE}\'\n'
        f"{content}{END_OF_FILE}\n"
        for name, content in (files or {}).items()
    )
    if carried:
        carried = f'{carried}sh "$HOME/serving/time_to_live.sh" start\n'
    vouched = first_contact.script(proof_key) if proof_key else ""
    return f"""\
umask 077
mkdir -p "$HOME/.ssh" "$HOME/serving/state"
key='{public_key}'
known="$HOME/.ssh/authorized_keys"
grep -qxF "$key" "$known" 2>/dev/null || echo "$key" >> "$known"
[ -z "${{CONTAINER_API_KEY:-}}" ] || echo "$CONTAINER_API_KEY" > "$HOME/serving/state/container_key"
unset CONTAINER_API_KEY
sh -c 'export -p' > "$HOME/.container-environment"
{vouched}\
{carried}if [ -f "$HOME/serving/supervise.sh" ]; then sh "$HOME/serving/supervise.sh" start; fi
"""
