#!/bin/sh
# Keeps vLLM serving on a rented host: fetches the weights, starts the server, restarts it with
# bounds, and gives up loudly. Everything stands in $HOME/serving, where it was pushed.
#
#   supervise.sh start            detached; nothing happens if it runs, or if it was stopped on
#                                 purpose (then exit 3): the host calls this at every boot
#   supervise.sh run              the loop itself, in the foreground
#   supervise.sh stop             drain, end, and stay ended over a reboot until `restart`
#   supervise.sh restart          stop and start with the files as they are now; weights stay
#   supervise.sh drain            ask balancers and clients to leave; requests are served on
#   supervise.sh undrain          take that back
#   supervise.sh status           key=value lines
#   supervise.sh requests         how many requests vLLM has running, waiting and finished
#   supervise.sh files            what was fetched: bytes, digest and name, a line each
#   supervise.sh certify          show the certificates that were pushed; a running server too
#
# Reads model.env (shell assignments: MODEL, REVISION, FILES, COMPANIONS and what stands under
# "settings" below) and environment (shell assignments, mode 0600: variables for the server and
# the download). The Hub's token goes to the download alone, and the container's key, which ends
# this machine, to the watch over its time alone.
set -u
umask 077

# What an image or an account may have given the container, and what must not hold here: another
# key, other routes, other math, another Hub, and another cache than the one that is measured.
own_variables() {
    unset VLLM_API_KEY VLLM_SERVER_DEV_MODE VLLM_USE_RUST_FRONTEND VLLM_MLA_DISABLE KEY_GATE_FILE
    unset HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_ENDPOINT
    export HF_HOME="$HOME/huggingface"
}

# A login over SSH lacks the image's own variables; the host's start script keeps them. They come
# first, so that none of them is taken for one of this script.
if [ -f "$HOME/.container-environment" ]; then
    # shellcheck source=/dev/null  # (written by the start script)
    . "$HOME/.container-environment"
fi
own_variables
hub_token=""
HERE="$HOME/serving"
STATE="$HERE/state"
TLS="$HERE/tls"
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATH="$PATH:/usr/local/nvidia/bin:/usr/local/cuda/bin"
export PATH

# settings, with what holds where model.env is silent
MODEL=""
COMPANIONS=""
MAX_RESTARTS=3              # within the window; one more exit gives up
RESTART_WINDOW_SECONDS=3600
BACKOFF_SECONDS=10          # before the first restart; doubled up to two minutes
DRAIN_SECONDS=30            # that running requests get after a stop
POLL_SECONDS=2              # between looks at the server and its log
LOG_MAX_KB=20480            # of one log file; three older ones are kept

main() {
    { [ -d "$STATE" ] || mkdir -p "$STATE"; } && cd "$HERE" || exit 1
    keep_secrets_apart
    for file in rehearse.sh model.env rehearsal.env; do
        # shellcheck source=/dev/null  # (pushed beside this file)
        [ ! -f "$file" ] || . "./$file"
    done
    case "${1:-}" in
        start) start ;;
        run) run ;;
        stop) stop ;;
        restart) stop && forget stopped && start ;;
        drain) drain ;;
        undrain) undrain ;;
        status) status ;;
        requests) requests ;;
        files) files ;;
        rehearse) load_environment && rehearse ;;
        certify) certify ;;
        *)
            echo "usage: supervise.sh start|run|stop|restart|drain|undrain|status|requests|files" \
                "|certify" >&2
            return 64
            ;;
    esac
}

start() {
    # On a machine that was rented before it had a time to live, nobody else starts this.
    [ ! -f time_to_live.sh ] || CONTAINER_API_KEY="$(get container_key)" sh time_to_live.sh start
    if [ -e "$STATE/stopped" ]; then
        echo "stopped on purpose: 'supervise.sh restart' serves again"
        return 3
    fi
    if recorded supervisor >/dev/null; then
        echo "already running"
        return 0
    fi
    setsid sh "$HERE/supervise.sh" run </dev/null >>"$HERE/supervisor.log" 2>&1 &
    started=$!
    tries=0
    # Either it is ours, perhaps ended already, or another start was faster and its own lives.
    until read_words supervisor; [ "$pid" = "$started" ] || recorded supervisor >/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
            echo "the supervisor did not start: $(tail -n 3 "$HERE/supervisor.log")" >&2
            return 1
        fi
        sleep 0.1
    done
    echo "started"
}

run() {
    # The lock ends with the process that holds it, however that ends; children do not inherit it.
    exec 9>"$STATE/lock"
    # One that was killed while it started a child leaves it to that for a moment.
    if recorded supervisor >/dev/null || ! flock -w 5 9; then
        echo "already running"
        return 0
    fi
    stopping=""
    trap 'stopping=yes' TERM INT HUP
    drain
    end_leftovers
    undrain
    rotate vllm.log
    rotate prefetch.log
    put restarts 0
    forget last_exit reason rehearsal_phase rehearsal_reason
    set_phase prefetch
    record supervisor $$
    load_environment
    make_local_key
    # One who was cut off in the middle of `certify` leaves half a file.
    certify
    fetch_weights
    hub_token=""
    if [ -n "${HUB_OFFLINE_ONCE_FETCHED:-}" ]; then
        export HF_HUB_OFFLINE=1
    fi
    [ ! -f rehearse.sh ] || use_rehearsed_cache
    serve
}

stop() {
    : >"$STATE/stopped"
    drain
    if supervisor=$(recorded supervisor); then
        kill -s TERM "$supervisor" 2>/dev/null
        wait_gone "$supervisor" $((DRAIN_SECONDS + 20)) || kill -s KILL "$supervisor" 2>/dev/null
    fi
    end_leftovers
    set_phase stopped
    echo "stopped"
}

# The key gate looks for this file at each request. It stays after a stop, and goes at a start.
drain() {
    : >draining
}

undrain() {
    rm -f draining
}

# It is asked again and again while a machine starts, so most of it needs no process.
status() {
    read_words phase
    phase=$pid
    since=$born
    supervisor=stopped
    if recorded supervisor >/dev/null; then
        supervisor=running
    elif [ "$phase" = gave_up ]; then
        supervisor=gave_up
    elif [ "$phase" != stopped ]; then
        # It died without a word: killed, or the host rebooted and has not started it yet.
        phase=stopped
    fi
    echo "supervisor=$supervisor"
    echo "phase=$phase"
    echo "phase_since=${since:-0}"
    tell reason
    draining=""
    [ ! -e draining ] || draining=yes
    echo "draining=$draining"
    recorded server >/dev/null || pid=""
    echo "server_pid=$pid"
    tell restarts
    tell last_exit
    echo "downloaded_kb=$(downloaded_kb)"
    tell resolved_revision
    tell companion_revisions
    tell config_digest
    echo "log_bytes=$(bytes vllm.log)"
    read_words rehearsal_phase
    echo "rehearsal=$pid"
    echo "rehearsal_since=$born"
    tell rehearsal_reason
    echo "rehearsal_log_bytes=$(bytes rehearsal.log)"
}

# vLLM's own counters. They are behind the key gate like all else, and the host has no key of the
# stack's: it has one of its own, which opens the counters alone, and from this host alone. Fails
# where there are none: a server that counts nothing is not one that nobody asks.
requests() {
    scheme=http
    [ -z "$(option ssl-keyfile)" ] || scheme=https
    port=$(option port)
    shown=$(option ssl-ca-certs)
    # The certificate is for the public address; on loopback there is nobody in between.
    counters=$(curl --silent --show-error --fail --insecure --noproxy '*' --max-time 10 \
        --config "$STATE/local_key" ${shown:+--cert "$TLS/local.pem" --key "$TLS/local.key"} \
        "$scheme://127.0.0.1:${port:-8000}/metrics") || return 1
    printf '%s\n' "$counters" | awk '
        /^vllm:num_requests_running[{ ]/ { running += $NF; counted = 1 }
        /^vllm:num_requests_waiting[{ ]/ { waiting += $NF }
        /^vllm:request_success_total[{ ]/ { finished += $NF }
        END {
            if (!counted) exit 1
            printf "running=%d\nwaiting=%d\nfinished=%d\n", running, waiting, finished
        }'
}

# The Hub's cache names each file by its digest: SHA-256, or git's own for small ones.
files() {
    snapshot=$(get snapshot)
    [ -d "$snapshot" ] || return 0
    find "$snapshot" -type l | sort | while IFS= read -r link; do
        blob=$(readlink "$link")
        echo "$(stat -L -c %s "$link") $(basename "$blob") ${link#"$snapshot"/}"
    done
}

# Written in place: vLLM watches the file itself, and does not see a second one that takes its name.
certify() {
    [ ! -s "$TLS/pushed.pem" ] || cat "$TLS/pushed.pem" >"$TLS/cert.pem"
    [ -s "$TLS/pushed-clients.pem" ] || return 0
    [ -s "$TLS/local.pem" ] || make_local_certificate || return 1
    cat "$TLS/pushed-clients.pem" "$TLS/local.pem" >"$TLS/clients.pem"
}

# ------------------------------------------------------------------------- the loop's parts

fetch_weights() {
    forget small_files
    HF_TOKEN="$hub_token" setsid sh "$HERE/prefetch.sh" </dev/null >>"$HERE/prefetch.log" 2>&1 9>&- &
    child=$!
    record prefetch "$child"
    # Whoever pushed an older release's files has none.
    [ ! -f rehearse.sh ] || begin_rehearsal
    attend "$child" prefetch.log
    memory=back
    [ ! -f rehearse.sh ] || end_rehearsal || memory=held
    if stop_asked; then
        end_group "$child" 0
        finish stopped ""
    fi
    wait "$child"
    code=$?
    # One that was killed leaves what it called, which would download on.
    [ "$code" -eq 0 ] || end_group "$child" 0
    forget prefetch
    if [ "$code" -ne 0 ]; then
        put last_exit "$code"
        finish gave_up prefetch
    fi
    if [ "$memory" = held ]; then
        finish gave_up rehearsal_memory
    fi
}

serve() {
    restarts=0
    restarted_at=""
    delay=$BACKOFF_SECONDS
    while :; do
        serve_once
        restarted_at="$(within_window "$restarted_at")"
        # shellcheck disable=SC2086  # (a list of numbers, counted)
        if [ "$(count $restarted_at)" -ge "$MAX_RESTARTS" ]; then
            finish gave_up crash_loop
        fi
        [ -n "$restarted_at" ] || delay=$BACKOFF_SECONDS
        set_phase waiting
        echo "$(date -u +%FT%TZ) server ended with $code; restart in $delay s"
        pause "$delay"
        if stop_asked; then
            finish stopped ""
        fi
        delay=$((delay * 2 < 120 ? delay * 2 : 120))
        restarted_at="$restarted_at $(date +%s)"
        restarts=$((restarts + 1))
        put restarts "$restarts"
    done
}

# One life of the server; its exit status in $code. Does not return when there is no next one.
serve_once() {
    put config_digest "$(digest <serve.yaml)"
    echo "== supervise.sh: server start $(date -u +%FT%TZ)" >>"$HERE/vllm.log"
    # The command line wins over the file, which may name a branch: what is served is what was
    # fetched, also at a restart long after the branch has moved on.
    set --
    case "$(get resolved_revision)" in
        "" | local) ;;
        *) set -- --revision "$(get resolved_revision)" ;;
    esac
    setsid vllm serve --config serve.yaml "$@" </dev/null >>"$HERE/vllm.log" 2>&1 9>&- &
    child=$!
    record server "$child"
    set_phase serving
    attend "$child" vllm.log
    if stop_asked; then
        end_group "$child" "$DRAIN_SECONDS"
        finish stopped ""
    fi
    wait "$child"
    code=$?
    put last_exit "$code"
    end_group "$child" 0
    forget server
    case "$code" in
        2) finish gave_up bad_flag ;;
        126 | 127) finish gave_up no_vllm ;;
    esac
}

# Until process $1 ends or a stop is asked for; log file $2 stays within its size. A download that
# was done before ends at once: the first second's looks are short, so that it is seen to.
attend() {
    looks=0
    while breathing "$1" && ! stop_asked; do
        looks=$((looks + 1))
        if [ "$looks" -le 10 ]; then
            pause 0.1
            continue
        fi
        if [ "$(bytes "$2")" -ge $((LOG_MAX_KB * 1024)) ]; then
            rotate "$2"
        fi
        pause "$POLL_SECONDS"
    done
}

stop_asked() {
    [ -n "$stopping" ] || [ -e "$STATE/stopped" ]
}

finish() {
    put reason "$2"
    set_phase "$1"
    forget server prefetch
    echo "$(date -u +%FT%TZ) supervisor ends: $1 $2"
    exit 0
}

load_environment() {
    export VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 NO_COLOR=1 VLLM_DISABLE_LOG_LOGO=1
    export PYTHONUNBUFFERED=1 HF_HUB_DISABLE_PROGRESS_BARS=1
    export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"
    if [ -f environment ]; then
        set -a
        # shellcheck source=/dev/null  # (pushed beside this file)
        . ./environment
        set +a
    fi
    HF_HOME="$HOME/huggingface"
    keep_secrets_apart
}

# Of what the container's variables and the environment hold. An older start script keeps the
# container's key among the former, which whoever reads files in the server's place could read.
keep_secrets_apart() {
    hub_token="${HF_TOKEN:-${HUGGING_FACE_HUB_TOKEN:-$hub_token}}"
    unset HF_TOKEN HUGGING_FACE_HUB_TOKEN
    if [ -n "${CONTAINER_API_KEY:-}" ]; then
        put container_key "$CONTAINER_API_KEY"
        if grep -qs ' CONTAINER_API_KEY=' "$HOME/.container-environment"; then
            sed -i '/^[a-z -]* CONTAINER_API_KEY=/d' "$HOME/.container-environment"
        fi
    fi
    unset CONTAINER_API_KEY
}

# As curl's configuration, so that the key stands in no list of processes.
make_local_key() {
    [ -s "$STATE/local_key" ] && [ -s local_keys ] && return
    key=$(od -A n -N 32 -t x1 /dev/urandom | tr -d ' \n')
    put local_key "header = \"Authorization: Bearer $key\""
    printf '%s' "$key" | digest >local_keys.new && mv -f local_keys.new local_keys
}

# What this host shows to its own server, where clients have to show something. No other server
# knows it: an authority of the stack's does not sign it.
make_local_certificate() {
    cat >"$TLS/local.cnf" <<END
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = local
[extensions]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
END
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days 3650 \
        -config "$TLS/local.cnf" -keyout "$TLS/local.key" -out "$TLS/local.pem.new" 2>/dev/null &&
        mv -f "$TLS/local.pem.new" "$TLS/local.pem"
}

# Interruptible, unlike a plain sleep: a stop is seen at once.
pause() {
    sleep "$1" 9>&- &
    sleeper=$!
    wait "$sleeper" || kill -s KILL "$sleeper" 2>/dev/null
}

within_window() {
    oldest=$(($(date +%s) - RESTART_WINDOW_SECONDS))
    for moment in $1; do
        [ "$moment" -lt "$oldest" ] || printf '%s ' "$moment"
    done
}

count() {
    echo $#
}

# ------------------------------------------------------------------------- processes

# These are asked ten times a second: the shell reads and splits by itself, without a process.

# Whether process $1 runs. Leaves in $birth what tells it from another one that gets its number
# later, also after a reboot. Fails for a dead one, and for one that is dead but not collected: a
# container's first process may never do.
breathing() {
    birth=""
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    # Fields 3 (state) and 22 (start), counted behind the name, which may hold anything.
    # shellcheck disable=SC2086  # (numbers, taken apart)
    set -- ${line##*) }
    case "$1" in
        Z* | X*) return 1 ;;
    esac
    read -r boot </proc/sys/kernel/random/boot_id
    birth="${20} $boot"
}

record() {
    breathing "$2"
    put "$1" "$2 $birth"
}

# The number of the process recorded as $1, if it is still that process.
recorded() {
    read_words "$1"
    [ -n "$pid" ] && breathing "$pid" && [ "$birth" = "$born" ] && echo "$pid"
}

# What was recorded as $1: the number in $pid, the rest in $born. Both are empty where nothing was.
read_words() {
    pid="" born=""
    { read -r pid born <"$STATE/$1"; } 2>/dev/null
}

# End process $1 and its group: it is asked first and gets $2 seconds. Only the leader is asked:
# vLLM's workers end at once on SIGTERM, and with them the requests that the drain is for. Returns
# when the last of the group is gone, since the next server needs the GPU memory of them all, or
# after $3 seconds more.
end_group() {
    kill -s TERM "$1" 2>/dev/null
    wait_gone "$1" "$2"
    kill -s KILL -- "-$1" 2>/dev/null || kill -s KILL "$1" 2>/dev/null
    group_breathing "$1" || return 0
    read_clock
    gone_by=$((clock + ${3:-30}))
    while group_breathing "$1" && [ "$clock" -le "$gone_by" ]; do
        sleep 0.1
        read_clock
    done
}

# A leader that is dead may have left its group behind: as long as that lives, the kernel gives the
# number to nobody else.
end_leftovers() {
    for name in prefetch server rehearsal; do
        read_words "$name"
        if [ -n "$pid" ] && same_boot "$born"; then
            if recorded "$name" >/dev/null || { ! breathing "$pid" && group_breathing "$pid"; }; then
                end_group "$pid" "$DRAIN_SECONDS"
            fi
        fi
    done
    forget prefetch server rehearsal
    [ ! -f rehearse.sh ] || end_rehearsed
}

same_boot() {
    read -r boot </proc/sys/kernel/random/boot_id
    [ "${1#* }" = "$boot" ]
}

# Whether anything of process group $1 runs. A dead one with threads is one that is still ending.
group_breathing() {
    kill -s 0 -- "-$1" 2>/dev/null || return 1
    cat /proc/[0-9]*/stat 2>/dev/null | awk -v group="$1" '
        { sub(/^.*\) /, "") }
        $3 == group && ($1 !~ /[ZX]/ || $18 > 1) { found = 1 }
        END { exit !found }'
}

wait_gone() {
    breathing "$1" || return 0
    read_clock
    gone_by=$((clock + $2))
    while breathing "$1"; do
        [ "$clock" -le "$gone_by" ] || return 1
        sleep 0.1
        read_clock
    done
}

# In $clock: seconds since the boot. A wait by them lasts as long as it should if the date is set
# meanwhile, and it needs no process.
read_clock() {
    read -r clock _ </proc/uptime
    clock=${clock%%.*}
}

# ------------------------------------------------------------------------- files

put() {
    printf '%s\n' "$2" >"$STATE/$1.new" && mv -f "$STATE/$1.new" "$STATE/$1"
}

get() {
    { while IFS= read -r line; do printf '%s\n' "$line"; done <"$STATE/$1"; } 2>/dev/null
}

# A state file's lines as one of the status.
tell() {
    told=""
    {
        while IFS= read -r line; do
            told="$told${told:+ }$line"
        done <"$STATE/$1"
    } 2>/dev/null
    printf '%s=%s\n' "$1" "$told"
}

forget() {
    for name; do
        shift
        [ ! -e "$STATE/$name" ] || set -- "$@" "${STATE:?}/$name"
    done
    [ $# -eq 0 ] || rm -f "$@"
}

set_phase() {
    put phase "$1 $(date +%s)"
}

digest() {
    # shellcheck disable=SC2046  # (a digest and a dash, taken apart)
    set -- $(sha256sum)
    echo "${1:-}"
}

bytes() {
    if [ -s "$HERE/$1" ]; then
        wc -c <"$HERE/$1"
    else
        echo 0
    fi
}

# Copied and emptied, not renamed: the server keeps its file open and appends to it.
rotate() {
    [ -s "$HERE/$1" ] || return 0
    for age in 2 1; do
        [ ! -f "$HERE/$1.$age" ] || mv -f "$HERE/$1.$age" "$HERE/$1.$((age + 1))"
    done
    cp "$HERE/$1" "$HERE/$1.1" && : >"$HERE/$1"
}

# An option of the server, as serve.yaml has it.
option() {
    sed -n "s/^$1: *//p" serve.yaml 2>/dev/null
}

downloaded_kb() {
    # shellcheck source=/dev/null  # (a profile may have its cache elsewhere)
    hub=$([ ! -f environment ] || . ./environment && printf '%s' "${HF_HUB_CACHE:-$HF_HOME/hub}")
    set -- "$MODEL"
    while read -r name _; do
        set -- "$@" "$name"
    done <<END
$COMPANIONS
END
    for name; do
        shift
        case "$name" in
            /*) folder="$name" ;;
            */*) folder="$hub/models--${name%%/*}--${name#*/}" ;;
            *) folder="$hub/models--$name" ;;
        esac
        [ -z "$name" ] || [ ! -d "$folder" ] || set -- "$@" "$folder"
    done
    if [ $# -eq 0 ]; then
        echo 0
        return
    fi
    # Files that come and go while they are measured are no error.
    sizes=$(du -sck "$@" 2>/dev/null)
    total=${sizes##*
}
    echo "${total%%[!0-9]*}"
}

main "$@"
