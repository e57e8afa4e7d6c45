#!/bin/bash
# Install cni-netkit on a node, upgrade it, go back to the previous version, or remove it.
#
#     ./install.sh [OPTION ...]
#
#     --from WHAT        a wheel, or a folder with the sources (default: the folder of this script)
#     --wheels FOLDER    nothing from the network: dependencies, and without --from cni-netkit
#                        itself, are wheels in FOLDER (make it with: pip wheel --wheel-dir FOLDER .)
#     --with EXTRAS      with packages for metrics, for otel (traces), or for metrics,otel; to be given
#                        again to upgrade
#     --conflist [WHAT]  write /etc/cni/net.d/10-netkit.conflist, unless there is one: WHAT is a file
#                        or the name of an example in conf/  (default: 10-l3-pair)
#     --rollback         put the previous version into use again; once more: forth
#     --uninstall        remove everything but the records of containers that are still attached
#     --dry-run          say what would be done, and change nothing; the new version is made and asked
#                        for an answer all the same, in a folder that goes away again
#     --no-systemd       no units for the agent, even where there is systemd
#     --prefix FOLDER    where the virtual environments go  (default: /opt/cni-netkit)
#     --bin-dir FOLDER   where the runtime looks for plugins (default: /opt/cni/bin)
#     --command-dir FOLDER  where everyone looks for commands, for cni-netkit; man page and completions
#                        go to share/ beside it  (default: /usr/local/bin)
#
# Each version gets an environment of its own beside the running one, and is put into use by renaming
# once it has answered: whoever calls the plugin meanwhile gets the old one or the new one, never
# something in between. PYTHON names the interpreter, if it is to be a special one.
set -euo pipefail

prefix=/opt/cni-netkit
bin_dir=/opt/cni/bin
command_dir=/usr/local/bin
from=
wheels=
extras=
conflist=
task=install
dry_run=
systemd=yes
# Fixed: the units, the runtime and the plugin look there.
units=/etc/systemd/system
written_conflist=/etc/cni/net.d/10-netkit.conflist
records=/var/lib/cni/netkit
runtime_folder=/run/cni-netkit
socket_unit=cni-netkit-agent.socket
service_unit=cni-netkit-agent.service
script=$(readlink -f "$0")

say() { echo "install.sh: $*" >&2; }

die() {
    say "$*"
    exit 1
}

usage() {
    sed -n '2,/^# Each/{/^# Each/d;s/^# \{0,1\}//;p}' "$script"
}

# Change something on the node and say so; with --dry-run only say so.
act() {
    local what=$1
    shift
    changed=yes
    if [[ $dry_run ]]; then
        say "would $what"
    else
        say "$what"
        "$@"
    fi
}
changed=

parse() {
    while (($#)); do
        [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
        case $1 in
        --from | --wheels | --with | --prefix | --bin-dir | --command-dir) (($# > 1)) || die "$1 wants a value" ;;&
        --from) from=$2 && shift ;;
        --wheels) wheels=$2 && shift ;;
        --with)
            [[ $2 =~ ^(metrics|otel|metrics,otel)$ ]] || die "--with $2: metrics, otel or metrics,otel"
            extras=[$2] && shift
            ;;
        --prefix) prefix=$2 && shift ;;
        --bin-dir) bin_dir=$2 && shift ;;
        --command-dir) command_dir=$2 && shift ;;
        --conflist)
            conflist=10-l3-pair
            if [[ ${2:-} && $2 != -* ]]; then conflist=$2 && shift; fi
            ;;
        --rollback | --uninstall) task=${1#--} ;;
        --dry-run) dry_run=yes ;;
        --no-systemd) systemd= ;;
        -h | --help) usage && exit ;;
        *) die "unknown argument $1, see --help" ;;
        esac
        shift
    done
}

# --- files --------------------------------------------------------------------------------------

# Put a file in its place by renaming, with no moment without it; nothing to do if it is the same.
# Sets `differed`.
put() {
    local mode=$1 source=$2 target=$3
    differed=
    [[ -L $target ]] || ! cmp --silent "$source" "$target" || return 0
    differed=yes
    act "put $target in place" put_file "$mode" "$source" "$target"
}

put_file() {
    local mode=$1 source=$2 target=$3 new
    mkdir -p "${target%/*}"
    # A leading dot and no known suffix: neither runtimes nor systemd read it.
    new=$(mktemp "${target%/*}/.${target##*/}.XXXXXX")
    unfinished=$new
    cat "$source" >"$new"
    chmod "$mode" "$new"
    sync "$new"
    mv --no-target-directory "$new" "$target"
    unfinished=
}

# Let a symbolic link point somewhere else, with no moment without it.
point() {
    local link=$1 target=$2
    ln --symbolic --force --no-dereference "$target" "$link.new"
    mv --no-target-directory "$link.new" "$link"
}

# A file in the runtime's folder is ours if one of our versions has the same.
is_ours() {
    local version
    for version in "$prefix"/versions/*; do
        cmp --silent "$version/bin/${1##*/}" "$1" && return
    done
    return 1
}

# A link elsewhere is ours if it leads into the version in use, whichever that is.
is_our_link() { [[ $(readlink "$1") == "$prefix/current/"* ]]; }

is_foreign() {
    [[ -e $1 || -L $1 ]] && ! is_ours "$1" && ! is_our_link "$1"
}

make_link() {
    mkdir -p "${1%/*}"
    # Without --force: it does not replace what somebody has put there meanwhile.
    ln --symbolic --no-target-directory "$2" "$1"
}

# Whether something can be written to a folder, or made where there is none yet.
is_writable() { [[ -w $(existing "$1") ]]; }

# A path as far as it is there.
existing() {
    local place=$1
    until [[ -e $place ]]; do
        place=${place%/*}
        place=${place:-/}
    done
    echo "$place"
}

# --- the environment ----------------------------------------------------------------------------

# The system's Python before the user's: an installation for the node must not end with
# somebody's home folder.
find_python() {
    local python
    for python in ${PYTHON:+"$PYTHON"} /usr/bin/python3 /usr/local/bin/python3 python3; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
        then
            echo "$python"
            return
        fi
        [[ $python != "${PYTHON:-}" ]] || break
    done
    die "no Python 3.11 or later that can make virtual environments" \
        "(tried ${PYTHON:-/usr/bin/python3, /usr/local/bin/python3, python3});" \
        "on Debian: apt-get install python3-venv"
}

# What is installed from: $from as a full path (pip would take a bare name for one to look up).
find_source() {
    local found
    if [[ $wheels ]]; then
        [[ -d $wheels ]] || die "--wheels $wheels: there is no such folder"
        wheels=$(realpath "$wheels")
        if [[ ! $from ]]; then
            found=("$wheels"/cni_netkit-*.whl)
            [[ -e ${found[0]} ]] || die "--wheels $wheels: no cni_netkit-*.whl in it, say --from"
            ((${#found[@]} == 1)) || die "--wheels $wheels: choose one with --from: ${found[*]##*/}"
            from=${found[0]}
        fi
    fi
    from=$(realpath --canonicalize-missing "${from:-${script%/*}}")
    if [[ -d $from ]]; then
        [[ -e $from/pyproject.toml ]] || die "--from $from: no pyproject.toml in it"
    else
        [[ -e $from ]] || die "--from $from: there is no such file or folder"
        [[ $from == *.whl ]] || die "--from $from: neither a wheel nor a folder"
    fi
}

# Tells one thing to install from another: what is in it, and the Python it is for.
fingerprint() {
    "$1" --version
    echo "$extras"
    if [[ -d $from ]]; then
        cd "$from"
        find cni_netkit conf docs examples hatch_build.py pyproject.toml install.sh ./*.md -type f \
            ! -name '*.pyc' ! -path cni_netkit/agent/launcher/netkit \
            ! -path cni_netkit/kernel/bpf/xsk.bpf.o -print0 |
            sort --zero-terminated | xargs --null sha256sum
    else
        sha256sum <"$from"
    fi
}

version_of() { "$1/bin/python" -I -c 'import cni_netkit; print(cni_netkit.__version__)'; }

# Whether an environment does its work; prints what it complains about.
answers() {
    # Not the agent that may be running, which is of another version: the launcher is to find none.
    local version='{"cniVersion": "1.0.0"}'
    CNI_COMMAND=VERSION CNI_NETKIT_SOCKET=/nonexistent "$1/bin/netkit" <<<"$version" 2>&1 >/dev/null &&
        "$1/bin/python" -I -c 'import cni_netkit.agent.server' 2>&1
}

in_use() {
    [[ $(cat "$prefix/current/installed-from" 2>/dev/null) == "$1" ]] &&
        answers "$prefix/current" >/dev/null
}

# Make an environment that nothing uses yet, in $new; with --dry-run one that goes away in the end.
build() {
    local python=$1 wanted=$2 complaint launcher options=()
    if [[ $dry_run ]]; then
        # Where programs may be executed, which is not sure of /tmp.
        new=$(mktemp --directory "$(existing "$prefix")/.cni-netkit.XXXXXX")
        options+=(--no-cache-dir)
    else
        mkdir -p "$prefix/versions"
        new=$(mktemp --directory "$prefix/versions/XXXXXX")
    fi
    unfinished=$new
    chmod 755 "$new"
    [[ ! $wheels ]] || options+=(--no-index --find-links "$wheels")
    {
        "$python" -m venv "$new" &&
            "$new/bin/python" -I -m pip install -qq --disable-pip-version-check --no-input \
                "${options[@]}" "$from$extras"
    } >&2 ||
        die "could not install $from with $python, for the reason above (without network see" \
            "--wheels); nothing has been changed"
    # The launcher takes the plugin's place where it was compiled; without an agent it becomes the
    # Python entry point, which it looks for beside itself.
    cp "$new/bin/netkit" "$new/bin/netkit-python"
    if launcher=$("$new/bin/cni-netkit" launcher 2>/dev/null); then
        install -m 755 "$launcher" "$new/bin/netkit"
    fi
    # What does not answer here would not answer the runtime.
    complaint=$(answers "$new") ||
        die "the installed plugin does not work, nothing has been changed: $complaint"
    find "$new/share" -path '*/systemd/*' -type f -exec sed -i "s|/opt/cni-netkit|$prefix|g" {} +
    # roff wants its hyphens escaped.
    find "$new/share" -path '*/man8/*' -type f \
        -exec sed -i "s|/opt/cni\\\\-netkit|${prefix//-/\\\\-}|g" {} +
    echo "$wanted" >"$new/installed-from"
    [[ $dry_run ]] || unfinished=
}

# What this kernel lacks is no reason to stop: it may be another one after the next boot.
warn_of_kernel() {
    local line
    { "$1/bin/python" -I -m cni_netkit.admin.kernel 2>&1 || true; } |
        while IFS= read -r line; do say "warning: $line"; done
}

# With sudo it is the one that sudoers has as secure_path.
warn_of_path() {
    [[ :$PATH: == *:"$command_dir":* ]] ||
        say "warning: $command_dir is not in your PATH ($PATH): type $command_dir/cni-netkit," \
            "or choose another --command-dir"
}

# What a failure must not leave behind.
unfinished=
made_prefix=
clean_up() {
    [[ ! $unfinished ]] || rm -rf "$unfinished"
    [[ ! $made_prefix || -e $prefix/current ]] || rm -rf "$prefix"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# Everything that can be wrong is found before anything changes.
check() {
    local file
    for file in "$plugin" "$python_plugin" "${links[@]}"; do
        ! is_foreign "$file" ||
            die "$file exists and is not of this installation: move it away first"
    done
    if [[ -d $prefix && ! -e $mark && $(ls -A "$prefix") ]]; then
        die "$prefix exists, was not made by this script and is not empty: choose another --prefix"
    fi
    check_places
}

check_places() {
    local place places=("$prefix" "$bin_dir")
    for place in "${links[@]}"; do places+=("${place%/*}"); done
    [[ ! $systemd ]] || places+=("$units")
    [[ ! $conflist ]] || places+=("${written_conflist%/*}")
    for place in "${places[@]}"; do
        is_writable "$place" || ((!EUID)) || die "cannot write to $place: are you root?"
        is_writable "$place" || die "cannot write to $place: is it mounted read-only?"
    done
}

# --conflist is a file, or an example of what is to be installed.
check_conflist() {
    local python=$1 examples
    if [[ -f $conflist ]]; then
        "$python" -m json.tool "$conflist" /dev/null || die "--conflist $conflist: it is not JSON"
        return
    fi
    examples=$(examples_of_source "$python")
    [[ " $examples " == *" ${conflist%.conflist}.conflist "* ]] ||
        die "--conflist $conflist: neither a file nor an example; examples are: $examples"
}

examples_of_source() {
    if [[ -d $from ]]; then
        (cd "$from/conf" && echo *.conflist)
    else
        "$1" -c 'import pathlib, sys, zipfile
paths = map(pathlib.PurePath, zipfile.ZipFile(sys.argv[1]).namelist())
print(*(each.name for each in paths if each.match("share/cni-netkit/conf/*.conflist")))' "$from"
    fi
}

# One at a time. With --dry-run there may be nothing to lock yet.
lock() {
    [[ ! $dry_run ]] || return 0
    [[ -d $prefix ]] || made_prefix=yes
    mkdir -p "$prefix"
    [[ -e $mark ]] || touch "$mark"
    exec 9<"$prefix"
    flock --nonblock 9 || die "another installation into $prefix is under way"
}

# --- putting a version into use -----------------------------------------------------------------

# Put the environment $1 into use; the one in use becomes the previous one.
deploy() {
    local new=$1 shown=$1 old fresh=
    [[ $new == "$prefix/versions/"* ]] || shown="$prefix/versions/(new)"
    old=$(readlink "$prefix/current" || true)
    if [[ $old != "versions/${new##*/}" ]]; then
        fresh=yes
        act "use $shown" point "$prefix/current" "versions/${new##*/}"
        [[ ! $old ]] || act "keep $prefix/$old for --rollback" point "$prefix/previous" "$old"
    fi
    # In this order: the launcher may want it at once.
    put 755 "$new/bin/netkit-python" "$python_plugin"
    put 755 "$new/bin/netkit" "$plugin"
    deploy_links "$new"
    [[ ! $systemd ]] || deploy_units "$new/share/cni-netkit/conf/systemd" "$fresh"
}

# Links into the version in use: they stay what they are, whichever that is.
deploy_links() {
    local link part
    for link in "${links[@]}"; do
        case $link in
        "$command_dir"/*) part=bin/${link##*/} ;;
        *.fish) part=share/fish/vendor_completions.d/${link##*/} ;;
        *) part=share/${link#"$share"/} ;;
        esac
        if [[ ! -e $1/$part ]]; then
            ! is_our_link "$link" || act "remove $link, which this version does not have" rm "$link"
        elif ! is_our_link "$link"; then
            act "put $link in place" make_link "$link" "$prefix/current/$part"
        fi
    done
}

# systemctl is called where systemd runs; elsewhere (a root to boot later) only to enable units.
runs_systemd() { [[ -d /run/systemd/system ]]; }

deploy_units() {
    local source=$1 restart=$2 socket_differs first=
    [[ -e $units/$socket_unit ]] || first=yes
    put 644 "$source/$socket_unit" "$units/$socket_unit"
    socket_differs=$differed
    put 644 "$source/$service_unit" "$units/$service_unit"
    [[ ! $differed ]] || restart=yes
    if runs_systemd && [[ $socket_differs || $differed ]]; then
        act "have systemd read its units" systemctl daemon-reload
    fi
    # What an administrator has stopped or disabled since then stays so.
    if [[ $first ]]; then
        act "enable the agent" systemctl --quiet enable "$socket_unit" "$service_unit"
        ! runs_systemd || act "start the agent" systemctl start "$socket_unit" "$service_unit" || agent_failed
    elif runs_systemd && [[ $socket_differs ]]; then
        act "restart the agent and its socket" restart_socket || agent_failed
    elif runs_systemd && [[ $restart ]]; then
        # The socket stays: who connects meanwhile waits for the new agent.
        act "restart the agent" systemctl try-restart "$service_unit" || agent_failed
    fi
}

restart_socket() {
    systemctl --quiet is-active "$socket_unit" || return 0
    systemctl stop "$service_unit" "$socket_unit"
    systemctl start "$socket_unit" "$service_unit"
}

agent_failed() {
    die "the agent does not start; netkit works without it, more slowly." \
        "See: journalctl -u $service_unit. Back to the previous version: --rollback"
}

# The previous version stays: calls that have begun still import from it, and there is a way back.
sweep() {
    local folder
    for folder in "$prefix"/versions/*; do
        [[ $folder == "$(readlink -f "$prefix/current")" ]] && continue
        [[ $folder == "$(readlink -f "$prefix/previous")" ]] && continue
        [[ ! -e $folder ]] || act "remove $folder, which nothing uses" rm -rf "$folder"
    done
}

write_conflist() {
    local source=$conflist examples=$1
    [[ -f $source ]] || source=$examples/${conflist%.conflist}.conflist
    if [[ -e $written_conflist || -L $written_conflist ]]; then
        say "$written_conflist exists and is left as it is"
    else
        act "write $written_conflist from $conflist" write_conflist_file "$source"
    fi
}

write_conflist_file() {
    local source=$1 new
    mkdir -p "${written_conflist%/*}"
    new=$(mktemp "${written_conflist%/*}/.${written_conflist##*/}.XXXXXX")
    cat "$source" >"$new"
    chmod 644 "$new"
    # A link, not a renaming: it does not replace what somebody has written meanwhile.
    ln --no-target-directory "$new" "$written_conflist" || say "$written_conflist is left as it is"
    rm "$new"
    # To know at --uninstall whether it is still ours.
    cp "$source" "$prefix/conflist"
}

# --- the tasks ----------------------------------------------------------------------------------

install_plugin() {
    local python wanted new
    python=$(find_python)
    find_source
    check
    [[ ! $conflist ]] || check_conflist "$python"
    lock
    wanted=$(fingerprint "$python")
    if in_use "$wanted"; then
        new=$(readlink -f "$prefix/current")
    else
        act "make a virtual environment with $from under $prefix/versions" true
        build "$python" "$wanted"
    fi
    deploy "$new"
    [[ $dry_run ]] || sweep
    [[ ! $conflist ]] || write_conflist "$new/share/cni-netkit/conf"
    [[ $changed ]] || say "nothing to do"
    warn_of_kernel "$new"
    warn_of_path
    [[ $dry_run ]] || say "netkit $(version_of "$prefix/current") is $plugin;" \
        "what this node can do tells: cni-netkit doctor"
}

rollback() {
    local previous complaint
    [[ -e $mark ]] || die "nothing is installed in $prefix"
    [[ -x $prefix/previous/bin/python ]] || die "there is no previous version in $prefix"
    previous=$(readlink -f "$prefix/previous")
    complaint=$(answers "$previous") ||
        die "the previous version does not work, nothing has been changed: $complaint"
    check
    lock
    deploy "$previous"
    [[ $dry_run ]] || say "netkit $(version_of "$prefix/current") is $plugin"
}

uninstall() {
    local file
    if [[ -e $prefix && ! -e $mark ]]; then
        die "$prefix was not made by this script, left alone"
    fi
    check_places
    # First what makes the runtime call the plugin.
    if [[ -e $prefix/conflist ]] && cmp --silent "$prefix/conflist" "$written_conflist"; then
        act "remove $written_conflist" rm "$written_conflist"
    elif [[ -e $prefix/conflist && -e $written_conflist ]]; then
        say "$written_conflist has been changed since it was written, left alone"
    fi
    [[ ! $systemd ]] || remove_units
    for file in "$plugin" "$python_plugin" "${links[@]}"; do
        if is_ours "$file" || is_our_link "$file"; then
            act "remove $file" rm "$file"
        elif is_foreign "$file"; then
            say "$file is not of this installation, left alone"
        fi
    done
    [[ ! -e $mark ]] || act "remove $prefix" rm -rf "$prefix"
    remove_state
    [[ $changed ]] || say "nothing to do"
}

remove_units() {
    [[ -e $units/$socket_unit || -e $units/$service_unit ]] || return 0
    ! runs_systemd || act "stop the agent" systemctl stop "$service_unit" "$socket_unit"
    act "disable the agent" systemctl --quiet disable "$socket_unit" "$service_unit"
    act "remove its units from $units" rm -f "$units/$socket_unit" "$units/$service_unit"
    ! runs_systemd || act "have systemd read its units" systemctl daemon-reload
}

# A record tells how to take back what a living container has: only its plugin can do that.
remove_state() {
    local attached prepared
    [[ ! -e $runtime_folder ]] || act "remove $runtime_folder" rm -rf "$runtime_folder"
    [[ -d $records ]] || return 0
    attached=$(find "$records" -mindepth 2 -name '*:*.json' | wc -l)
    prepared=$(find "$records" -path "$records/nics/*.json" ! -name '*:*' -printf '%f ')
    if [[ $prepared ]]; then
        say "prepared NICs stay as they are: ${prepared//.json/}"
        say "to put back what they were before, install again and type: cni-netkit nic restore NAME"
    fi
    if ((attached)); then
        say "$attached attachments of containers are still recorded in $records, which is left:"
        say "to delete these containers the runtime needs the plugin, install it again for that"
    elif [[ ! $prepared ]]; then
        act "remove $records, where no attachment is recorded" rm -rf "$records"
        [[ $dry_run ]] || rmdir --ignore-fail-on-non-empty "${records%/*}"
    fi
}

parse "$@"
# Scripts contain these paths: they must hold from wherever the plugin is called.
prefix=$(realpath --canonicalize-missing "$prefix")
bin_dir=$(realpath --canonicalize-missing "$bin_dir")
command_dir=$(realpath --canonicalize-missing "$command_dir")
share=${command_dir%/*}/share
plugin=$bin_dir/netkit
python_plugin=$bin_dir/netkit-python
# A folder is ours to empty only if this is in it.
mark=$prefix/.cni-netkit
# Where the system looks, for what the version in use has at the same place.
fish=$share/fish/vendor_completions.d
# Below /usr/local fish looks only where XDG_DATA_DIRS says so.
[[ $share != /usr/local/share ]] || fish=/etc/fish/completions
links=(
    "$command_dir/cni-netkit"
    "$share/man/man8/cni-netkit.8"
    "$share/bash-completion/completions/cni-netkit"
    "$share/zsh/site-functions/_cni-netkit"
    "$fish/cni-netkit.fish"
)
command -v systemctl >/dev/null || systemd=
umask 022
case $task in
install) install_plugin ;;
rollback) rollback ;;
uninstall) uninstall ;;
esac
