# Starts the server with dummy weights while the real ones come, so that what is wrong with its
# options, its memory or the GPUs shows minutes after the rent. supervise.sh reads this file.
#
# A rehearsal listens on loopback alone, behind the key gate, and asks the Hub for nothing. It has
# the lowest priority, a session, a log and caches of its own. It ends when it serves or when the
# download does, and the GPUs have their memory back before the real start.
#
# Reads rehearsal.yaml, which is empty where nothing is to be rehearsed, and rehearsal.env (shell
# assignments: REHEARSAL_PORT, DOWNLOAD_KB and what stands under "settings" below).
#
#   state/rehearsal          who rehearses; state/rehearsal_server is its vLLM
#   state/rehearsal_shared   files of the shared memory of what is being ended, a line each
#   state/rehearsal_phase    waiting|running|served|ended|skipped|failed, and since when
#   state/rehearsal_reason   why it was skipped, or how it failed
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154  # (supervise.sh reads what is set here, and sets what is read)

# settings, with what holds where rehearsal.env is silent
REHEARSAL_PORT=8001
DOWNLOAD_KB=0                   # of all that is fetched; 0 if unknown
REHEARSAL_MEASURE_SECONDS=10    # over which the download's rate is taken
REHEARSAL_LEAST_SECONDS=180     # that the download needs for more, or there is no rehearsal
REHEARSAL_END_SECONDS=30        # until it is gone and its memory is back
REHEARSAL_GRACE_SECONDS=3       # of them, to end by itself
REHEARSAL_SPARE_MIB=256         # that a GPU may have in use beyond what it had before
REHEARSAL_LOG_KB=20480          # after which its log, and with it the rehearsal, ends

# Nothing here may keep the download or the server from their start: whatever fails is a reason to
# do without a rehearsal.
begin_rehearsal() {
    rotate rehearsal.log
    [ -s rehearsal.yaml ] || return 0
    set_rehearsal waiting ""
    setsid sh "$HERE/supervise.sh" rehearse </dev/null >>"$HERE/supervisor.log" 2>&1 9>&- &
    record rehearsal "$!"
}

# End it wherever it is, since the server comes next. Fails if GPU memory does not come back.
end_rehearsal() {
    read_clock
    until_when=$((clock + REHEARSAL_END_SECONDS))
    if rehearser=$(recorded rehearsal); then
        kill -s KILL -- "-$rehearser" 2>/dev/null || kill -s KILL "$rehearser" 2>/dev/null
        wait_gone "$rehearser" 5
    fi
    case "$(rehearsal_course)" in
        waiting) set_rehearsal skipped download_over ;;
        running) set_rehearsal ended "" ;;
    esac
    end_rehearsed
    forget rehearsal
    memory_back_by "$until_when"
}

# ------------------------------------------------------------- the process that rehearses

rehearse() {
    stopping=""
    renice -n 19 -p $$ >/dev/null 2>&1
    ionice -c 3 -p $$ >/dev/null 2>&1
    # Where main memory runs out, this goes and not the download; and no image of it is written.
    { echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null
    # shellcheck disable=SC3045  # (what has none goes on without)
    ulimit -c 0 2>/dev/null
    until [ -s "$STATE/small_files" ]; do
        needed || return 0
        pause "$POLL_SECONDS"
    done
    commit=$(get small_files)
    if [ "$commit" = none ]; then
        set_rehearsal skipped no_small_files
    elif ! is_download_long; then
        set_rehearsal skipped short_download
    elif ! memory_noted; then
        set_rehearsal skipped no_nvidia_smi
    else
        rehearse_at "$commit"
    fi
}

rehearse_at() {
    cache=$(rehearsal_cache)
    rm -rf "$cache"
    forget rehearsal_output
    mkdir -p "$cache" && mkfifo "$STATE/rehearsal_output" || return 0
    echo "== supervise.sh: server start $(date -u +%FT%TZ)" >>"$HERE/rehearsal.log"
    # Bounded as it is written: a look every other second comes too late for a flood. In a session
    # of its own, it ends with those who write: one that nobody reads any more may end by itself,
    # before its shared memory is written down.
    setsid stdbuf -o0 head -c $((REHEARSAL_LOG_KB * 1024)) \
        <"$STATE/rehearsal_output" >>"$HERE/rehearsal.log" 2>/dev/null &
    (
        use_cache "$cache"
        export HF_HUB_OFFLINE=1 SERVING_REHEARSAL="$HERE"
        exec setsid vllm serve --config rehearsal.yaml --revision "$commit" </dev/null
    ) >"$STATE/rehearsal_output" 2>&1 &
    child=$!
    record rehearsal_server "$child"
    set_rehearsal running ""
    while breathing "$child" && needed; do
        # Some kernels share the CPU among sessions first, whatever their processes' priority.
        { echo 19 >"/proc/$child/autogroup"; } 2>/dev/null
        if rehearsal_serves; then
            # First: what its log says of its end is no failure.
            set_rehearsal served ""
            break
        fi
        pause "$POLL_SECONDS"
    done
    if [ "$(rehearsal_course)" = running ] && needed; then
        set_rehearsal failed server_ended
    fi
    end_rehearsed
    if [ "$(rehearsal_course)" = served ]; then
        : >"$cache/whole"
    fi
    read_clock
    memory_back_by $((clock + REHEARSAL_END_SECONDS))
}

# Whether there is a download to rehearse beside, and a supervisor that ends what is begun here.
needed() {
    recorded prefetch >/dev/null && recorded supervisor >/dev/null
}

is_download_long() {
    [ "$DOWNLOAD_KB" -gt 0 ] || return 0
    there=$(downloaded_kb)
    read_clock
    since=$clock
    pause "$REHEARSAL_MEASURE_SECONDS"
    now=$(downloaded_kb)
    read_clock
    took=$((clock - since))
    [ "$now" -gt "$there" ] || return 0
    [ $(((DOWNLOAD_KB - now) * took / (now - there))) -ge "$REHEARSAL_LEAST_SECONDS" ]
}

rehearsal_serves() {
    curl --silent --fail --noproxy '*' --max-time 2 --output /dev/null \
        "http://127.0.0.1:$REHEARSAL_PORT/health" 2>/dev/null
}

# ------------------------------------------------------------- its caches

# What it compiles is of use to the server with the same options. Who is killed may leave half of
# it, and the lock of that, so the server gets what a rehearsal that served has left, and no other.
rehearsal_cache() {
    printf '%s/cache/%.16s' "$HERE" "$(cat serve.yaml model.env | digest)"
}

use_rehearsed_cache() {
    [ -d "$HERE/cache" ] || return 0
    cache=$(rehearsal_cache)
    [ ! -e "$cache/whole" ] || [ -n "${VLLM_CACHE_ROOT:-}" ] || use_cache "$cache"
}

use_cache() {
    export VLLM_CACHE_ROOT="$1/vllm" TRITON_CACHE_DIR="$1/triton" CUDA_CACHE_PATH="$1/cuda"
    export TORCHINDUCTOR_CACHE_DIR="$1/inductor" TORCH_EXTENSIONS_DIR="$1/extensions"
    export FLASHINFER_WORKSPACE_BASE="$1"
}

# ------------------------------------------------------------- its end

rehearsal_course() {
    read_words rehearsal_phase
    echo "$pid"
}

set_rehearsal() {
    put rehearsal_reason "$2"
    put rehearsal_phase "$1 $(date +%s)"
}

# Its vLLM, with what has left the group, and the shared memory of both. That is written down first:
# who ends them may be ended meanwhile, and another one goes on.
end_rehearsed() {
    # The first thing that is there, and the last.
    [ -e "$STATE/rehearsal_output" ] || return 0
    group=none
    read_words rehearsal_server
    if [ -n "$pid" ] && same_boot "$born"; then
        if recorded rehearsal_server >/dev/null || { ! breathing "$pid" && group_breathing "$pid"; }
        then
            group=$pid
        fi
    fi
    rehearsed "$group" | while read -r one; do
        grep -o '/dev/shm/[^ ]*' "/proc/$one/maps" 2>/dev/null
    done | sort -u >>"$STATE/rehearsal_shared"
    [ "$group" = none ] || end_group "$group" "$REHEARSAL_GRACE_SECONDS" 10
    rehearsed none | while read -r left; do
        kill -s KILL "$left" 2>/dev/null
    done
    # Who is killed takes none of it back, and there may be little.
    while IFS= read -r name; do
        rm -f "$name"
    done <"$STATE/rehearsal_shared"
    forget rehearsal_server rehearsal_shared rehearsal_output
}

# The numbers of its processes: of group $1, and those that have the variable.
rehearsed() {
    grep -lzxF "SERVING_REHEARSAL=$HERE" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3
    grep -s . /proc/[0-9]*/stat | awk -v group="$1" '
        { split($0, path, "/"); sub(/^.*\) /, "") }
        $3 == group { print path[3] }'
}

# ------------------------------------------------------------- the GPUs' memory

# Note what is in use before. What was noted in this boot holds until that is back, also for who
# comes after a supervisor that was killed.
memory_noted() {
    [ ! -s "$STATE/memory_before" ] || return 0
    read_memory memory_seen && {
        cat /proc/sys/kernel/random/boot_id
        get memory_seen
    } >"$STATE/memory_before.new" && mv -f "$STATE/memory_before.new" "$STATE/memory_before"
}

# Wait until second $1 of the clock at most. Fails if GPUs still have more in use than before: who
# cannot be asked proves nothing, and does not keep the server from its start.
memory_back_by() {
    while is_memory_out; do
        read_clock
        if [ $((clock + 1)) -gt "$1" ] || stop_asked; then
            return "$known"
        fi
        pause 0.5
    done
    forget memory_before
}

# In $known: 1 if GPUs are known to have more in use than before, 0 if they could not be asked.
is_memory_out() {
    known=0
    [ -s "$STATE/memory_before" ] || return 1
    # Nothing outlives a reboot in a GPU's memory.
    read -r boot <"$STATE/memory_before" && same_boot "- $boot" || return 1
    read_memory memory_seen || return 0
    known=1
    ! awk -F ', ' -v spare="$REHEARSAL_SPARE_MIB" '
        NR == FNR { before[$1] = $2; next }
        $1 in before && $2 > before[$1] + spare { out = 1 }
        END { exit out }' "$STATE/memory_before" "$STATE/memory_seen"
}

# MiB in use of each GPU into state file $1. Fails where nvidia-smi is missing, hangs, or says
# anything else.
read_memory() {
    forget "$1"
    # Not waited for: in the driver, nothing can kill it.
    timeout -s KILL 8 nvidia-smi --query-gpu=index,memory.used --format=csv,noheader,nounits \
        2>/dev/null </dev/null 9>&- | head -c 4096 >"$STATE/$1" 9>&- &
    wait_gone "$!" 9 || return 1
    [ -s "$STATE/$1" ] && ! grep -qvE '^[0-9]{1,3}, [0-9]{1,7}$' "$STATE/$1"
}
