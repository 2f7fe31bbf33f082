#!/bin/sh
# Runs one of the stack's commands in an environment of its own. Pulumi hands its own variables
# down: the market's key, the state's passphrase and whatever else the caller has. A command gets
# those that are named here and no other.
#
#   own_environment.sh smoke-test   asks the endpoint; sees ENDPOINT_*
#   own_environment.sh announce     runs $ANNOUNCE_COMMAND; sees ENDPOINT_* and ANNOUNCE_*
#
# Variables are taken away by their names: a value in a command line could be read by everybody on
# this computer.
set -u

what="${1:-}"
own="ENDPOINT_"
[ "$what" != announce ] || own="ENDPOINT_ ANNOUNCE_"

is_wanted() {
    case "$1" in
        PATH | HOME | USER | LOGNAME | SHELL | PWD | TMPDIR | TZ | LANG | LANGUAGE | LC_*) return 0 ;;
        # Some builds of Python find their own library by these.
        LD_LIBRARY_PATH | DYLD_LIBRARY_PATH) return 0 ;;
    esac
    for prefix in $own; do
        case "$1" in
            "$prefix"*) return 0 ;;
        esac
    done
    return 1
}

# Of a value with several lines, a later line may look like a variable; to take that away is
# harmless.
names=$(env | sed -n 's/^\([^=]\{1,\}\)=.*/\1/p')
set --
while IFS= read -r name; do
    is_wanted "$name" || set -- "$@" -u "$name"
done <<END
$names
END

case "$what" in
    smoke-test)
        PATH="$PWD/.venv/bin:$PATH"
        export PATH
        exec env "$@" python -m components.smoke_test
        ;;
    announce)
        # The command may hold a token, so what it starts does not get its text.
        # shellcheck disable=SC2016  # (the inner shell's variables)
        exec env "$@" sh -c 'command=$ANNOUNCE_COMMAND; unset ANNOUNCE_COMMAND; eval "$command"'
        ;;
    *)
        echo "usage: own_environment.sh smoke-test|announce" >&2
        exit 64
        ;;
esac
