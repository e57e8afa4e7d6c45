#!/bin/bash
# Install cni-netkit on a node, or upgrade it in place.
#
#     ./install.sh [--prefix FOLDER] [--bin-dir FOLDER] [--from WHEEL_OR_FOLDER] [--uninstall]
#
#     --prefix FOLDER    where the virtual environment goes  (default: /opt/cni-netkit)
#     --bin-dir FOLDER   where the runtime looks for plugins (default: /opt/cni/bin)
#     --from WHAT        a wheel, or a folder with the sources (default: the folder of this script)
#     --uninstall        remove what was installed there
#
# Each version gets an environment of its own beside the running one, and is put into use by renaming
# a symbolic link once it has answered: a runtime that calls the plugin meanwhile gets the old one or
# the new one, never something in between. PYTHON names the interpreter, if it is to be a special one.
set -euo pipefail

prefix=/opt/cni-netkit
bin_dir=/opt/cni/bin
from=$(dirname "$(readlink -f "$0")")
uninstall=

say() { echo "install.sh: $*" >&2; }

die() {
    say "$*"
    exit 1
}

usage() {
    sed -n '2,/^# Each/{/^# Each/d;s/^# \{0,1\}//;p}' "$0"
}

while (($#)); do
    case $1 in
    --prefix | --bin-dir | --from) (($# > 1)) || die "$1 wants a value" ;;&
    --prefix) prefix=$2 && shift ;;
    --bin-dir) bin_dir=$2 && shift ;;
    --from) from=$2 && shift ;;
    --prefix=*) prefix=${1#*=} ;;
    --bin-dir=*) bin_dir=${1#*=} ;;
    --from=*) from=${1#*=} ;;
    --uninstall) uninstall=yes ;;
    -h | --help) usage && exit ;;
    *) die "unknown argument $1, see --help" ;;
    esac
    shift
done

# Links and scripts contain these paths: they must hold from wherever the plugin is called.
prefix=$(realpath --canonicalize-missing "$prefix")
bin_dir=$(realpath --canonicalize-missing "$bin_dir")
# pip would take a bare name for one to look up on an index.
from=$(realpath --canonicalize-missing "$from")
plugin=$bin_dir/netkit
# A folder is ours to empty only if this is in it.
mark=$prefix/.cni-netkit
umask 022

# The plugin's name in the runtime's folder: ours, free, or somebody else's?
plugin_is_ours() {
    [[ -L $plugin && $(readlink "$plugin") == "$prefix"/* ]]
}

plugin_is_foreign() {
    [[ -e $plugin || -L $plugin ]] && ! plugin_is_ours
}

# Let a symbolic link point somewhere else, with no moment without it.
point() {
    local link=$1 target=$2
    ln --symbolic --force --no-dereference "$target" "$link.new"
    mv --no-target-directory "$link.new" "$link"
}

remove() {
    if plugin_is_ours; then
        rm "$plugin"
    elif plugin_is_foreign; then
        say "$plugin is not of this installation, left alone"
    fi
    if [[ -e $mark ]]; then
        rm -rf "$prefix"
    elif [[ -e $prefix ]]; then
        die "$prefix was not made by this script, left alone"
    fi
    say "removed; records of containers that are still attached stay in /var/lib/cni/netkit"
}

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

# Everything that can be wrong is found before anything changes.
check() {
    if [[ -d $from ]]; then
        [[ -e $from/pyproject.toml ]] || die "--from $from: no pyproject.toml in it"
    else
        [[ -e $from ]] || die "--from $from: there is no such file or folder"
        [[ $from == *.whl ]] || die "--from $from: neither a wheel nor a folder"
    fi
    ! plugin_is_foreign || die "$plugin exists and is not of this installation: move it away first"
    if [[ -d $prefix && ! -e $mark && $(ls -A "$prefix") ]]; then
        die "$prefix exists, was not made by this script and is not empty: choose another --prefix"
    fi
    mkdir -p "$prefix" "$bin_dir" || die "cannot create $prefix and $bin_dir: are you root?"
    [[ -w $prefix && -w $bin_dir ]] || die "cannot write to $prefix and $bin_dir: are you root?"
    touch "$mark"
}

# A new environment, which nothing uses yet. Prints where it is.
build() {
    local python=$1 new complaint launcher
    mkdir -p "$prefix/versions"
    new=$(mktemp --directory "$prefix/versions/XXXXXX")
    chmod 755 "$new"
    if ! {
        "$python" -m venv "$new" &&
            "$new/bin/python" -I -m pip install -qq --disable-pip-version-check \
                --no-input "$from"
    } >&2; then
        rm -rf "$new"
        die "could not install $from with $python; nothing has been changed"
    fi
    # The launcher takes the plugin's place where it was compiled; without an agent it becomes the
    # Python entry point, which it looks for beside itself.
    if launcher=$("$new/bin/cni-netkit" launcher 2>/dev/null); then
        mv "$new/bin/netkit" "$new/bin/netkit-python"
        install -m 755 "$launcher" "$new/bin/netkit"
    fi
    # What does not answer here would not answer the runtime.
    if ! complaint=$(CNI_COMMAND=VERSION "$new/bin/netkit" <<<'{"cniVersion": "1.0.0"}' 2>&1); then
        rm -rf "$new"
        die "the installed plugin does not work, nothing has been changed: $complaint"
    fi
    echo "$new"
}

install_plugin() {
    local python new old version
    python=$(find_python)
    check
    exec 9>"$prefix/.lock"
    flock --nonblock 9 || die "another installation into $prefix is under way"
    new=$(build "$python")
    old=$(readlink "$prefix/current" || true)
    point "$prefix/current" "versions/${new##*/}"
    point "$plugin" "$prefix/current/bin/netkit"
    # The previous version stays until the next upgrade: calls that have begun still import from it.
    for folder in "$prefix"/versions/*; do
        [[ $folder == "$new" || $folder == "$prefix/$old" ]] || rm -rf "$folder"
    done
    version=$("$prefix/current/bin/python" -I -c 'import cni_netkit; print(cni_netkit.__version__)')
    say "netkit $version is $plugin"
    say "for speed run the agent: $prefix/current/bin/cni-netkit agent (units: conf/systemd)"
}

if [[ $uninstall ]]; then
    remove
else
    install_plugin
fi
