#!/bin/sh
# A network plugin that joins containers to the host it runs on, one link each. Its first argument is
# a directory where it notes what it was asked, and where files say how it is to misbehave.
state=$1
action=$3
handle=$5
input=$(cat)

printf '%s\n' "$*" >>"$state/arguments"
env >"$state/environment"
# That of `ls` itself comes with it.
ls /proc/self/fd >"$state/descriptors"

[ ! -e "$state/before-$action" ] || . "$state/before-$action"
# One line at once, so that those of several runs do not mix.
printf '%s %s %s\n' "$action" "$handle" "$input" >>"$state/calls"

number=$(($(printf %s "$handle" | cksum | cut -d ' ' -f 1) % 250))
inside() {
    nsenter -t "$pid" -n "$@"
}

case $action in
up)
    pid=${input#*\"Pid\":}
    pid=${pid%%,*}
    : >"$state/up-$handle"
    set -e
    inside ip -o link | cut -d ' ' -f 2 | tr -d '\n' >"$state/links-before-$handle"
    ip link add "v$number" type veth peer name eth0 netns "$pid"
    [ ! -e "$state/amid-up" ] || . "$state/amid-up"
    ip address add "10.99.$number.1/30" dev "v$number"
    ip link set "v$number" up
    inside ip address add "10.99.$number.2/30" dev eth0
    inside ip link set eth0 up
    [ ! -e "$state/answer" ] || exec cat "$state/answer"
    ports='[{\"HostPort\":7001,\"ContainerPort\":8080}]'
    echo "{\"properties\":{\"garden.network.container-ip\":\"10.99.$number.2\",
        \"garden.network.host-ip\":\"255.255.255.255\",\"garden.network.mapped-ports\":\"$ports\",
        \"garden.network.interface\":\"eth0\",\"a.plugins\":\"own\"},
        \"dns_servers\":[\"169.254.0.2\"],\"search_domains\":[\"apps.internal\"]}"
    ;;
down)
    ip link delete "v$number" 2>/dev/null
    rm -f "$state/up-$handle"
    ;;
net-in)
    echo '{"host_port":7002,"container_port":8081}'
    ;;
esac
exit 0
