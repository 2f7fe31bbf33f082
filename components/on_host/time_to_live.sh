#!/bin/sh
# Ends this machine from inside, with the container's own key: when its time is up, or when nobody
# has asked the model for long. It needs nobody's computer to be on.
#
#   time_to_live.sh start    detached; nothing happens if it runs: the host calls it at every start
#   time_to_live.sh run      the watch itself, in the foreground
#   time_to_live.sh status   key=value lines
#
# Reads time_to_live.env again at each look (shell assignments: API, and the settings below). The
# start script carries this file without its comments, so it is kept short.
set -u
umask 077
# Over SSH the container's own variables are missing; the start script keeps them.
# shellcheck source=/dev/null
[ ! -f "$HOME/.container-environment" ] || . "$HOME/.container-environment"
HERE="$HOME/serving"
STATE="$HERE/state"
PATH="$PATH:/usr/local/bin:/usr/bin:/bin"
export PATH
mkdir -p "$STATE" && cd "$HERE" || exit 1
# An older start script keeps it among the container's variables. Nothing that is started from here
# gets it.
[ -z "${CONTAINER_API_KEY:-}" ] || echo "$CONTAINER_API_KEY" >"$STATE/container_key"
unset CONTAINER_API_KEY
# Kept over restarts of the container: its GPUs are billed from its first start on.
[ -s "$STATE/first_start" ] || date +%s >"$STATE/first_start"
first=$(cat "$STATE/first_start")

settings() {
    TTL_SECONDS=0 IDLE_SECONDS=0 LOOK_SECONDS=15 API=""
    # shellcheck source=/dev/null
    [ ! -f time_to_live.env ] || . ./time_to_live.env
    # Its renter may still be checking it.
    [ -f supervise.sh ] || [ "$IDLE_SECONDS" -eq 0 ] || [ "$IDLE_SECONDS" -gt 1800 ] ||
        IDLE_SECONDS=1800
}

watch() {
    exec 8>"$STATE/time_to_live.lock"
    flock -n 8 || return 0
    quiet=$(date +%s)
    seen=""
    while :; do
        settings
        now=$(date +%s)
        [ "$TTL_SECONDS" -eq 0 ] || [ "$now" -lt $((first + TTL_SECONDS)) ] || end time_to_live
        if [ "$IDLE_SECONDS" -gt 0 ]; then
            asked
            [ $((now - quiet)) -lt "$IDLE_SECONDS" ] || end idle
        else
            quiet=$now
        fi
        sleep "$LOOK_SECONDS" 8>&-
    done
}

# A server that is still starting is not idle; one that was given up or stopped is, and so is a
# machine that was rented and never given anything to serve.
asked() {
    if counts=$(sh supervise.sh requests 2>/dev/null 8>&-); then
        case "$counts" in
            "running=0
waiting=0
"*) [ "$counts" = "$seen" ] || quiet=$now ;;
            *) quiet=$now ;;
        esac
        seen=$counts
    elif [ -f supervise.sh ] && ! grep -Eq '^(gave_up|stopped)' "$STATE/phase" 2>/dev/null; then
        quiet=$now
    fi
}

# Again and again until this machine, and with it this loop, is gone.
end() {
    echo "$(date -u +%FT%TZ) $1: this machine ends itself" | tee -a time_to_live.log
    while :; do
        # The key goes through a pipe: a list of processes does not show it.
        printf 'header = "Authorization: Bearer %s"\n' "$(cat "$STATE/container_key")" |
            curl -sS --config - --max-time 30 -X DELETE -H 'Content-Type: application/json' \
                -d '{}' "$API/api/v0/instances/$CONTAINER_ID/" >>time_to_live.log 2>&1 8>&-
        sleep "$LOOK_SECONDS" 8>&-
    done
}

case "${1:-}" in
    start) setsid sh "$HERE/time_to_live.sh" run </dev/null >/dev/null 2>&1 & ;;
    run) watch ;;
    status)
        echo "first_start=$first"
        [ ! -s "$STATE/container_key" ] || echo key=yes
        ;;
esac
