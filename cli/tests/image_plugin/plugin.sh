#!/bin/sh
# An image plugin that copies one image into a file system in memory for each container. Its first
# argument is a directory with that image as `source`, where it notes what it was asked, and where
# files say how it is to misbehave; the second one says for which kind of containers it works.
state=$1
kind=$2
shift 2
action=$1
for handle; do :; done

# One line at once, so that those of several runs do not mix.
printf '%s: %s\n' "$kind" "$*" >>"$state/calls"
ls /proc/self/fd >"$state/descriptors"
[ ! -e "$state/before-$action" ] || . "$state/before-$action"

root=$state/images/$kind-$handle
case $action in
create)
    set -e
    mkdir -p "$root"
    mount -t tmpfs -o size=64m image "$root"
    cp -a "$state/source/." "$root"
    # The highest id is the container's root.
    [ "$kind" = privileged ] || chown -R 4294967294:4294967294 "$root"
    [ ! -e "$state/answer" ] || exec cat "$state/answer"
    echo "{\"ociVersion\":\"1.0.0\",\"process\":{\"args\":null,\"cwd\":\"\",\"env\":[\"OF=image\"]},
        \"root\":{\"path\":\"$root\"},\"mounts\":[
        {\"destination\":\"/of/host\",\"type\":\"bind\",\"source\":\"$state/shown\",
         \"options\":[\"bind\",\"ro\"]},
        {\"destination\":\"/of/memory\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",
         \"options\":[\"size=64k\",\"mode=0700\",\"noexec\"]}]}"
    ;;
delete)
    if [ -d "$root" ]; then
        umount "$root"
        rmdir "$root"
    fi
    ;;
stats)
    [ -d "$root" ] || exit 9
    echo '{"disk_usage":{"total_bytes_used":7000,"exclusive_bytes_used":300}}'
    ;;
capacity)
    echo '{"capacity":123456789}'
    ;;
esac
