#!/bin/sh
# Fetches the weights before the server starts: vLLM itself prints nothing while it downloads.
#
# Exactly the files that model.env names, at its revisions: some repositories hold their weights
# twice. Asks the network for nothing if the same was fetched before, so that a reboot serves
# without the Hub. What was fetched stays known when something else takes its place, so that going
# back to it downloads nothing and finds the commit of before, though its branch moved on. Ends with
# 0, with 3 where another try cannot help, with 1 after the last try.
set -u
umask 077

HERE="$HOME/serving"
STATE="$HERE/state"
DONE="$STATE/prefetched"    # what is wanted of the files beside it, if they say what was fetched
NEW="$STATE/fetching"       # what is found out on the way, until all is there
KEPT="$STATE/fetched"       # the same of what was fetched for something else, by digest of that
FOUND="resolved_revision companion_revisions snapshot snapshots"
ATTEMPT="$STATE/prefetch.attempt"
SMALL="$STATE/small_files"  # once they are there: the commit, or none where it has no such files
FIRST="$STATE/prefetch.first"   # what small files were taken from: repository, commit and folder
HAS_CONFIGURATION='(^|[/*])(config|params)\.json$|^[*]\.json$'
export HF_HOME="${HF_HOME:-$HOME/huggingface}"
export HF_HUB_DISABLE_PROGRESS_BARS=1 NO_COLOR=1 DO_NOT_TRACK=1
[ -n "${HF_TOKEN:-}" ] || unset HF_TOKEN

# settings, with what holds where model.env is silent
MODEL=""
REVISION="main"
FILES=""
COMPANIONS=""               # such as a draft head: lines of `repository revision pattern ...`
PREFETCH_TRIES=5            # for each line of FILES
PREFETCH_BACKOFF_SECONDS=5  # before the second try; doubled up to a minute

DISK_FULL='no space left on device|not enough free disk space|disk quota exceeded'

# What no other try cures, as the Hub, the disk and the command itself say it.
HOPELESS='401 client error|403 client error|403 forbidden|repository not found|revision not found'
HOPELESS="$HOPELESS|error: (model|repository)( '[^']*')? not found|gated repo|is restricted"
HOPELESS="$HOPELESS|entry not found for url|file not found in (model|repository)"
HOPELESS="$HOPELESS|not in the authorized list|access denied|requires approval"
HOPELESS="$HOPELESS|invalid user token|invalid credentials"
HOPELESS="$HOPELESS|unrecognized arguments|no such option|no such command"

# Prints both versions if vLLM cannot use this mistral_common: then each chat is answered with 400.
# vLLM calls its grammar since 0.20.0, in a way that 1.13 no longer knows; 0.33.0 still does.
TOO_NEW='
import re
from importlib.metadata import version
def numbers(name): return [int(part) for part in re.findall("[0-9]+", version(name))[:3]]
if [0, 20] <= numbers("vllm") <= [0, 33, 0] and numbers("mistral_common") >= [1, 13]:
    print(version("vllm"), "and mistral_common", version("mistral_common"))
'

main() {
    { [ -d "$STATE" ] || mkdir -p "$STATE"; } && cd "$HERE" || exit 1
    # shellcheck source=/dev/null  # (pushed beside this file)
    . ./model.env
    if [ -z "$MODEL" ] || [ -z "$FILES" ]; then
        echo "prefetch: model.env names no MODEL or no FILES"
        exit 3
    fi
    name_cache
    wanted=$(what_is_wanted | digest)
    if fetched_before || went_back; then
        say_what_is_there "complete since before"
        exit 0
    fi
    check_mistral_common
    forget
    mkdir "$NEW" || exit 1
    small_files
    case "$MODEL" in
        /*) local_folder ;;
        *) model ;;
    esac
    companions
    take_over
    rm -f "$ATTEMPT" "$FIRST"
    say_what_is_there "complete"
}

say_what_is_there() {
    at=""
    read -r at <"$STATE/resolved_revision"
    echo "prefetch: $1: $MODEL at $at"
}

# The mark is off while the rest changes: whoever dies in between has fetched nothing.
take_over() {
    keep
    [ ! -e "$DONE" ] || rm -f "$DONE"
    for name in $FOUND; do
        mv -f "$NEW/$name" "$STATE/$name" 2>/dev/null || [ ! -e "$STATE/$name" ] ||
            rm -f "${STATE:?}/$name"
    done
    rmdir "$NEW"
    what_is_wanted >"$DONE.new" && mv -f "$DONE.new" "$DONE"
}

# Whoever cannot keep what was fetched before changes nothing: it could not be gone back to.
keep() {
    [ -s "$DONE" ] || return 0
    before="$KEPT/$(digest <"$DONE")"
    rm -rf "$before" "$before.new"
    mkdir -p "$before.new" || exit 1
    for name in $FOUND; do
        [ ! -e "$STATE/$name" ] || cp "$STATE/$name" "$before.new/" || exit 1
    done
    mv "$before.new" "$before" || exit 1
}

# A download that breaks off leaves folders that must not pass for what once was complete in them.
forget() {
    rm -rf "${KEPT:?}/$wanted" "${NEW:?}" "${SMALL:?}"
    ! is_wanted "$DONE" || rm -f "$DONE"
}

model() {
    repository "$MODEL" "$REVISION" "$FILES"
    printf '%s\n' "$snapshot" >"$NEW/snapshot"
    printf '%s\n' "$at" >"$NEW/resolved_revision"
}

local_folder() {
    if [ ! -d "$MODEL" ]; then
        echo "prefetch: No such directory: '$MODEL'"
        exit 3
    fi
    printf '%s\n' "$MODEL" >>"$NEW/snapshots"
    printf 'local\n' >"$NEW/resolved_revision"
    echo "prefetch: $MODEL is a folder of this host"
}

# Each in its own repository, at its own commit.
companions() {
    while read -r name revision patterns; do
        [ -n "$name" ] || continue
        repository "$name" "$revision" "$(printf '%s' "$patterns" | tr ' ' '\n')"
        echo "$name@$at" >>"$NEW/companion_revisions"
    done <<END
$COMPANIONS
END
}

# Configurations and tokenizers of all repositories come first: with them the host rehearses its
# start while the weights come.
small_files() {
    : >"$FIRST"
    commit=none
    case "$MODEL" in
        /*) ;;
        *)
            small_of "$MODEL" "$REVISION" "$FILES"
            if [ -e "$snapshot/config.json" ] || [ -e "$snapshot/params.json" ]; then
                commit=$at
            fi
            ;;
    esac
    while read -r name revision patterns; do
        [ -n "$name" ] || continue
        small_of "$name" "$revision" "$(printf '%s' "$patterns" | tr ' ' '\n')"
    done <<END
$COMPANIONS
END
    printf '%s\n' "$commit" >"$SMALL.new" && mv -f "$SMALL.new" "$SMALL"
}

# The configuration before what may not be there: after it there is a folder to name.
small_of() {
    from="$1"
    at="$2"
    snapshot=""
    fetch_each "$(printf '%s\n' "$3" | grep -E "$HAS_CONFIGURATION")"
    fetch_each "$(printf '%s\n' "$3" | grep -vE "$HAS_CONFIGURATION")" small
    [ -z "$snapshot" ] || printf '%s %s %s\n' "$from" "$at" "$snapshot" >>"$FIRST"
}

# At the commit that was found with the small files, if there were any.
repository() {
    from="$1"
    at="$2"
    snapshot=""
    while read -r known known_at folder; do
        if [ "$known" = "$from" ]; then
            at="$known_at"
            snapshot="$folder"
        fi
    done <"$FIRST"
    fetch_each "$3" large
    check_fetched "$3"
    printf '%s\n' "$snapshot" >>"$NEW/snapshots"
}

# One call for each of the patterns $1, or of those for files of size $2, since hf up to 0.36 takes
# `--include A B` and later ones `--include A --include B`. All after the first at the commit that
# the first one found: $at.
fetch_each() {
    while IFS= read -r pattern; do
        [ -n "$pattern" ] || continue
        size_of "$pattern"
        [ "${2:-$size}" = "$size" ] || continue
        fetch "$pattern" </dev/null
        at=${snapshot##*/}
    done <<END
$1
END
}

# In $size: of the files that pattern $1 is for.
size_of() {
    case "$1" in
        *.json | *.jsonl | *.txt | *.jinja | *.model | *.tiktoken | *.py | *.yaml | *.yml | *.md)
            size=small
            ;;
        *) size=large ;;
    esac
}

# Before the first byte is paid for. An image that cannot be asked is no verdict.
check_mistral_common() {
    grep -q '^tokenizer-mode: *mistral' serve.yaml 2>/dev/null || return 0
    versions=$(python3 -c "$TOO_NEW" 2>/dev/null) || return 0
    if [ -n "$versions" ]; then
        echo "prefetch: the image has vLLM $versions"
        exit 3
    fi
}

# A mark of before it named the cache is as good if what it stands for lies in this one.
name_cache() {
    [ -n "${HF_HUB_CACHE:-}" ] && [ -s "$DONE" ] || return 0
    [ "$(cat "$DONE")" = "$(wanted_anywhere)" ] || return 0
    head -n 1 "$STATE/snapshots" 2>/dev/null | grep -qF "$HF_HUB_CACHE/" || return 0
    what_is_wanted >"$DONE.new" && mv -f "$DONE.new" "$DONE"
}

fetched_before() {
    is_wanted "$DONE" && lie_there "$STATE/snapshots"
}

# To what was fetched before something else was.
went_back() {
    before="$KEPT/$wanted"
    lie_there "$before/snapshots" || return 1
    rm -rf "${NEW:?}"
    cp -R "$before" "$NEW" || exit 1
    take_over
}

is_wanted() {
    [ -s "$1" ] && [ "$(cat "$1")" = "$(what_is_wanted)" ]
}

# Whether all folders that file $1 names are there.
lie_there() {
    [ -s "$1" ] || return 1
    while IFS= read -r folder; do
        [ -d "$folder" ] || return 1
    done <"$1"
}

digest() {
    # shellcheck disable=SC2046  # (a digest and a dash, taken apart)
    set -- $(sha256sum)
    echo "$1"
}

fetch() {
    try=1
    delay=$PREFETCH_BACKOFF_SECONDS
    while :; do
        echo "prefetch: $from at $at, files '$1', try $try of $PREFETCH_TRIES"
        hf download "$from" --revision "$at" --include "$1" >"$ATTEMPT" 2>&1
        code=$?
        cat "$ATTEMPT"
        find_snapshot
        if [ "$code" -eq 0 ] && [ -n "$snapshot" ]; then
            return
        fi
        give_up_if_hopeless "$code"
        if [ "$try" -ge "$PREFETCH_TRIES" ]; then
            echo "prefetch: gave up after $try tries (exit $code)"
            exit 1
        fi
        echo "prefetch: failed (exit $code), next try in $delay s"
        sleep "$delay"
        try=$((try + 1))
        delay=$((delay * 2 < 60 ? delay * 2 : 60))
    done
}

# In $snapshot: the folder that hf names at the end, whatever a version puts around it. A path may
# hold blanks and quotes, so no pattern says where it begins: it is the longest one that is there.
find_snapshot() {
    snapshot=""
    line=$(grep '/snapshots/' "$ATTEMPT" | tail -n 1)
    rest=${line##*/snapshots/}
    begun=${line%/snapshots/*}
    while [ "$begun" != "${begun#*/}" ]; do
        begun=${begun#*/}
        folder="/$begun/snapshots/${rest%%[!0-9A-Za-z._-]*}"
        if [ -d "$folder" ]; then
            snapshot="$folder"
            return
        fi
    done
}

give_up_if_hopeless() {
    if [ "$1" -eq 127 ] || [ "$1" -eq 126 ]; then
        echo "prefetch: the image has no 'hf' command"
        exit 3
    fi
    if grep -qiE "$DISK_FULL" "$ATTEMPT" || nothing_free; then
        make_room
        echo "prefetch: No space left on device, another try cannot help (exit $1)"
        exit 3
    fi
    if grep -qiE "$HOPELESS" "$ATTEMPT"; then
        echo "prefetch: another try cannot help (exit $1)"
        exit 3
    fi
}

# On a disk without a free MB, hf's own complaint may not have found room either.
nothing_free() {
    free=$(df -Pk "$HERE" 2>/dev/null | awk 'NR == 2 { print $4 }')
    [ "${free:-1024}" -lt 1024 ]
}

# Halves of files are of no use to what was served before, which needs room for logs and caches.
make_room() {
    cache="${HF_HUB_CACHE:-$HF_HOME/hub}/models--$(printf '%s' "$from" | sed 's,/,--,g')"
    find "$cache" -name '*.incomplete' -exec rm -f {} + 2>/dev/null
}

check_fetched() {
    found=""
    while IFS= read -r pattern; do
        [ -n "$pattern" ] || continue
        if any_file "$pattern"; then
            found=yes
        else
            echo "prefetch: no file of $from at $at matches '$pattern'"
        fi
    done <<END
$1
END
    if [ -z "$found" ]; then
        echo "prefetch: nothing of $from at $at matches what model.env names"
        exit 3
    fi
}

any_file() {
    # shellcheck disable=SC2086  # (the pattern is to be expanded)
    for file in "$snapshot"/$1; do
        [ ! -e "$file" ] || return 0
    done
    return 1
}

# With the cache only where one is named: what stands there otherwise is known by the rest.
what_is_wanted() {
    wanted_anywhere
    [ -z "${HF_HUB_CACHE:-}" ] || printf 'HF_HUB_CACHE=%s\n' "$HF_HUB_CACHE"
}

wanted_anywhere() {
    printf '%s\n%s\n%s\n%s\n' "$MODEL" "$REVISION" "$FILES" "$COMPANIONS"
}

main "$@"
