# What is done at a router's computer, by any /bin/sh. components/router/scripts.py puts values in
# front of it and the name of a function behind it. It prints lines of name=value; whatever a login
# prints beside them has no name of these.
#
# In the folder of a router:
#
#   <version>/      the files of one version; at most those of the proven and of the newest one
#   haproxy.cfg     a copy of one version's configuration, which names that version's other files
#   good            which version was proven last
#   owner, stack    whose router it is
#   router.key      the router's key, which never leaves its computer
#   haproxy.pid     of the process whose signals reload and end it
LC_ALL=C
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/bin"
export LC_ALL PATH
umask 077

base="${VASTVLLM_ROUTERS:-${HOME:+$HOME/.vast-vllm}}"
folder="$base/router-$id"
unit="vast-vllm-router-$id.service"

say() { printf '%s=%s\n' "$1" "$2"; }

# By the shell itself, as each process that a script starts is one that its user waits for.
first_line() {
    line=
    { IFS= read -r line <"$1"; } 2>/dev/null
}

# Whose service manager it is, for what asks it.
whose() {
    user="$(id -u)"
    if [ "$user" = 0 ]; then
        kind=systemd target=multi-user.target units=/etc/systemd/system
    else
        kind=systemd-user target=default.target
        units="${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user"
    fi
}

manage() {
    if [ "$kind" = systemd ]; then
        systemctl "$@"
    else
        XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$user}" systemctl --user "$@"
    fi
}

supervisor() {
    if command -v systemctl >/dev/null 2>&1 && manage show-environment >/dev/null 2>&1; then
        echo "$kind"
    else
        echo nobody
    fi
}

watched() {
    [ -f "$units/$unit" ] && manage is-active --quiet "$unit" 2>/dev/null &&
        manage is-enabled --quiet "$unit" 2>/dev/null
}

command_of() {
    if [ -r "/proc/$1/cmdline" ]; then
        tr '\000' ' ' <"/proc/$1/cmdline"
    else
        ps -p "$1" -o args=
    fi
}

# Its files may have been removed by hand, and it goes on without them: its command names it then.
# The first process is the one whose parent is none of them.
first_process() {
    # Mostly there is none, and to read the commands takes less than to list the processes.
    if [ -r /proc/self/cmdline ]; then
        grep -qsF -- "$folder/haproxy.cfg" /proc/[0-9]*/cmdline || return 0
    fi
    ps -ww -e -o pid= -o ppid= -o args= 2>/dev/null | file="$folder/haproxy" awk '
        index($0, " -W ") && index($0, " -f " ENVIRON["file"] ".cfg -p " ENVIRON["file"] ".pid") {
            parent[$1] = $2
        }
        END { for (one in parent) if (!(parent[one] in parent)) { print one; exit } }
    '
}

# A reload writes the number anew and starts the program in the same process: look again then.
alive() {
    if [ ! -f "$folder/haproxy.pid" ]; then
        pid="$(first_process)"
        [ -n "$pid" ]
        return
    fi
    for pause in 0.2 0.5 ''; do
        first_line "$folder/haproxy.pid"
        pid="$line"
        case "$pid" in
        *[!0-9]*) return 1 ;;
        ?*)
            kill -0 "$pid" 2>/dev/null || return 1
            # A number is given again: it has to be a process with this very file.
            case "$(command_of "$pid" 2>/dev/null)" in *"$folder/haproxy.cfg"*) return 0 ;; esac
            # One that has ended keeps its number until its parent looks: no pause brings it back.
            first_line "/proc/$pid/stat"
            case "$line" in *') Z '*) return 1 ;; esac
            ;;
        esac
        [ -n "$pause" ] && sleep "$pause" 2>/dev/null
    done
    return 1
}

facts() {
    whose
    case "$base" in /*) say folder "$folder" ;; esac
    found="$(command -v -- "$program" 2>/dev/null)"
    say haproxy "$found"
    [ -n "$found" ] && "$found" -v 2>/dev/null | { IFS= read -r line; say version "$line"; }
    say openssl "$(command -v openssl)"
    say cores "$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
    by="$(supervisor)"
    say supervisor "$by"
    lives=
    alive && lives=yes
    say files "$(open_files)"
    say writable "$(writable)"
    say lowest "$(lowest_port)"
    [ "$by" = systemd-user ] && command -v loginctl >/dev/null 2>&1 &&
        say linger "$(loginctl show-user "$(id -un)" --property=Linger --value 2>/dev/null)"
    { ip -o addr show || ifconfig; } 2>/dev/null | awk '{
        for (i = 1; i < NF; i++) if ($i == "inet" || $i == "inet6") print "address=" $(i + 1)
    }'
    listeners
    if [ -n "$lives" ]; then
        say alive yes
        watched && say watched yes
    fi
    for name in owner stack good; do first_line "$folder/$name"; say "$name" "$line"; done
    [ -f "$folder/haproxy.cfg" ] && configured
    [ -n "$expected" ] && cd "$folder/$expected" 2>/dev/null && files
    return 0
}

# How many files its process may open; empty where systemd starts it, which allows enough.
open_files() {
    if [ -n "$lives" ] && [ -r "/proc/$pid/limits" ]; then
        awk '/^Max open files/ { print $5 }' "/proc/$pid/limits"
    elif [ "$by" = nobody ]; then
        ulimit -H -n
    fi
}

# Whether the folder can be made, by the folder above it that is there.
writable() {
    there="$folder"
    while [ "$there" != "${there%/*}" ] && [ ! -e "$there" ]; do there="${there%/*}"; done
    if [ -d "${there:-/}" ] && [ -w "${there:-/}" ]; then echo yes; else echo no; fi
}

# The lowest port that its user may listen at; empty where nobody can tell.
lowest_port() {
    [ "$user" = 0 ] && return 0
    case "$(getcap "$found" 2>/dev/null)" in *cap_net_bind_service*) return 0 ;; esac
    cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null
}

# `ss` asks for these alone. To read the file, the kernel walks through all connections.
listeners() {
    if sockets="$(ss -ltn 2>/dev/null)"; then
        printf '%s\n' "$sockets" | addresses LISTEN 1 4
    elif [ -r /proc/net/tcp ]; then
        cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | addresses 0A 4 2
    else
        netstat -an -p tcp 2>/dev/null | addresses LISTEN 0 4
    fi
}

# Each address once, and no more than 5000: where a field says "$1", what another field has. The
# fields come by their numbers, where 0 is the last one.
addresses() {
    awk -v state="$1" -v says="$2" -v has="$3" '
        $(says ? says : NF) == state && !seen[$has]++ && ++lines <= 5000 { print "listens=" $has }
    '
}

configured() {
    sed -n '
        s|^ *bind \([^ ]*\) ssl crt .*|bind=\1|p
        s|^ *server i\([0-9]*\) [^ ]* ssl .*|member=\1|p
    ' "$folder/haproxy.cfg"
    cmp -s "$folder/haproxy.cfg" "$folder/$expected/haproxy.cfg" && say same haproxy.cfg
}

files() {
    openssl dgst -sha256 -r -- * 2>/dev/null | sed -n 's/^\([0-9a-f]*\) \*\(.*\)$/file=\1 \2/p'
    cat leaf.pem ../router.key 2>/dev/null | cmp -s - router.pem && say same router.pem
}

key() {
    mkdir -p "$base" "$folder" && chmod 700 "$folder" && cd "$folder" || return 1
    { [ -f router.key ] && openssl ec -in router.key -noout -text | grep -q prime256v1; } \
        2>/dev/null || {
        openssl ecparam -name prime256v1 -genkey -noout -out router.key.new &&
            mv -f router.key.new router.key
    } || return 1
    printf '%s\n' '[req]' prompt=no distinguished_name=name '[name]' CN=router >request.cnf
    openssl req -new -key router.key -sha256 -config request.cnf
}

install() {
    whose
    cd "$folder" || return 1
    printf '%s\n' "$owner" >owner && printf '%s\n' "$stack" >stack || return 1
    rm -rf "$version.part"
    mkdir "$version.part" && write_files "$version.part" || return 1
    cat "$version.part/leaf.pem" router.key >"$version.part/router.pem" || return 1
    rm -rf "$version"
    mv "$version.part" "$version" || return 1
    if ! "$program" -c -f "$folder/$version/haproxy.cfg" >checked 2>&1; then
        grep -v '^$' checked | head -n 20 | sed 's/^/refused=/'
        return 0
    fi
    use "$version"
}

# Let a version serve: one renaming, and a signal to what runs.
use() {
    # Without its folder it cannot reload: its sockets are gone.
    runs=maybe
    [ -f haproxy.cfg ] || { stop && runs=no; } || return 1
    cp "$1/haproxy.cfg" haproxy.cfg.new && mv -f haproxy.cfg.new haproxy.cfg || return 1
    if [ "$runs" = maybe ] && alive; then
        # One that was started alone goes on alone: to start it anew would cut its answers.
        [ -f "$units/$unit" ] && keep_alive >started 2>&1
        kill -USR2 "$pid" && say did reloaded
        if watched; then say supervisor "$kind"; else say supervisor nobody; fi
        return 0
    fi
    rm -f haproxy.pid ./*.sock
    by="$(supervisor)"
    say supervisor "$by"
    start >started 2>&1 && say did started && return 0
    why="$(grep -F '[ALERT]' started || tail -n 3 started)"
    printf '%s\n' "${why:-it does not say why}" | head -n 5 | sed 's/^/failed=/'
}

start() {
    if [ "$by" = nobody ]; then
        # Its words are the variables of config.ENVIRONMENT.
        # shellcheck disable=SC2086
        env $environment "$program" -W -D -f "$folder/haproxy.cfg" -p "$folder/haproxy.pid"
    else
        keep_alive && manage restart "$unit"
    fi
}

keep_alive() {
    mkdir -p "$units" && write_unit >"$units/$unit" && manage daemon-reload && manage enable "$unit"
}

proven() {
    cd "$folder" || return 1
    printf '%s\n' "$version" >good.new && mv -f good.new good || return 1
    for other in *; do
        [ "$other" != "$version" ] && [ -d "$other" ] && rm -rf "$other"
    done
    say did noted
}

back() {
    whose
    cd "$folder" || return 1
    first_line good
    good="$line"
    if [ -n "$good" ] && [ -f "$good/haproxy.cfg" ]; then
        say good "$good"
        # A signal that comes in the middle of a reload is lost: then it is sent again.
        [ -z "$again" ] && cmp -s "$good/haproxy.cfg" haproxy.cfg && alive || use "$good"
    else
        stop && say did stopped
    fi
    [ "$good" = "$version" ] || rm -rf "$version"
}

end() {
    whose
    if [ ! -d "$folder" ] && ! alive; then
        say did gone
        return 0
    fi
    first_line "$folder/owner"
    there="$line"
    if [ -n "$there" ] && [ "$there" != "$owner" ]; then
        say did kept
        return 0
    fi
    if stop; then rm -rf "$folder" && say did stopped; else say did running; fi
    rmdir "$base" 2>/dev/null
    return 0
}

stop() {
    if [ -f "$units/$unit" ]; then
        manage disable --now "$unit" >/dev/null 2>&1
        rm -f "$units/$unit"
        manage daemon-reload >/dev/null 2>&1
    fi
    tries=0
    while alive; do
        [ "$tries" = 0 ] && kill -TERM "$pid"
        [ "$tries" = "$patience" ] && kill -KILL "$pid"
        [ "$tries" -gt $((patience + 25)) ] && return 1
        tries=$((tries + 1))
        sleep 0.2 2>/dev/null || sleep 1
    done
    return 0
}
