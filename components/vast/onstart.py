"""The script that Vast runs at every start of the container. Small, stable, carries no secret."""

from __future__ import annotations


def onstart(public_key: str) -> str:
    """Let the stack in, and start the model server's supervisor if this host has one.

    The container's own variables are kept for the supervisor, since a login over SSH has none of
    them: images say in `PATH` and `LD_LIBRARY_PATH` where vLLM and CUDA are.

    Relative to `$HOME`, since an emulated container's home is a directory of its own. Well under
    the 4000 characters that Vast takes for certain (vast-api reference, 3.2).
    """
    return f"""\
umask 077
mkdir -p "$HOME/.ssh"
key='{public_key}'
known="$HOME/.ssh/authorized_keys"
grep -qxF "$key" "$known" 2>/dev/null || echo "$key" >> "$known"
sh -c 'export -p' > "$HOME/.container-environment"
if [ -f "$HOME/serving/supervise.sh" ]; then sh "$HOME/serving/supervise.sh" start; fi
"""
