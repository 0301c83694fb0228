#!/bin/sh
# A 64-bit ARM Debian in a folder, run under emulation: the board of tests/device/test_arm_board.py.
#
#   tests/device/arm_root.sh ROOT     # as root, with a network; Debian: mmdebstrap qemu-user-static binfmt-support
#
# Puts wheels into ROOT/wheels: edgekd as it is committed here, compiled there, and what it needs. About 10 minutes.
set -eu
root=$1
here=$(cd "$(dirname "$0")/../.." && pwd)
for tool in mmdebstrap qemu-aarch64-static update-binfmts; do
    command -v "$tool" >/dev/null || { echo "no $tool: apt-get install mmdebstrap qemu-user-static binfmt-support"; exit 4; }
done
mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
update-binfmts --enable qemu-aarch64

[ -x "$root/usr/bin/python3" ] ||
    mmdebstrap --arch=arm64 --variant=minbase --include=python3-dev,python3-venv,python3-pip,g++,libgomp1 bookworm "$root"
rm -rf "$root/src" "$root/tools" "$root/wheels"
mkdir "$root/src" "$root/tools" "$root/wheels"
git -C "$here" archive HEAD | tar -x -C "$root/src"
fetch() {
    folder=$1
    shift
    python3 -m pip download --quiet --dest "$folder" --only-binary :all: --python-version 3.11 --implementation cp \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        --platform manylinux_2_17_aarch64 --constraint "$here/constraints.txt" "$@"
}
fetch "$root/tools" 'setuptools>=77' wheel 'cffi>=1.16'
fetch "$root/wheels" numpy cffi pillow ai-edge-litert
unshare --mount sh -euc "
    mount -t proc proc '$root/proc'
    mount --rbind /dev '$root/dev'
    chroot '$root' sh -c 'cd /src && python3 -m pip wheel --quiet --no-deps --no-index --find-links /tools --wheel-dir /wheels .'
"
ls "$root/wheels"
