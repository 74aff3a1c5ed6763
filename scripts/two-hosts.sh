#!/usr/bin/env bash
# Two network namespaces as two hosts, hosta and hostb, with a link of RATE (1gbit; empty: no limit) between them. Runs the command in hosta, with
# mpirun set up so that it starts processes in hostb without ssh: scripts/two-hosts.sh mpirun -n 2 rezero train quickstart.
# Needs root, ip, tc and unshare. DELAY=5 adds so many milliseconds each way, by scripts/slow-link.py (python3), since not every kernel has netem;
# RATE is then in bits per second (1e9).
set -euo pipefail

work=$(mktemp -d)
link=
made=()
clean() {
    [ -z "$link" ] || kill "$link" 2>/dev/null || true
    for name in "${made[@]}"; do
        ip netns del "$name" 2>/dev/null || true
        rm -rf "/etc/netns/$name"
    done
    rm -rf "$work"
}
trap clean EXIT
for word in a b; do
    # Fails if another one has it.
    ip netns add "host$word"
    made+=("host$word")
    mkdir -p "/etc/netns/host$word"
    printf '127.0.0.1 localhost\n10.77.0.1 hosta\n10.77.0.2 hostb\n' >"/etc/netns/host$word/hosts"
done
if [ -n "${DELAY:-}" ]; then
    exec 3< <(exec python3 "$(dirname "$0")/slow-link.py" hosta hostb "${RATE:-1e9}" "${DELAY}e-3")
    link=$!
    read -r -u 3 _
else
    ip link add wire netns hosta type veth peer name wire netns hostb
fi
for word in a b; do
    ip -n "host$word" addr add "10.77.0.$([ "$word" = a ] && echo 1 || echo 2)/24" dev wire
    ip -n "host$word" link set lo up
    ip -n "host$word" link set wire up
    if [ -z "${DELAY:-}" ] && [ -n "${RATE-1gbit}" ]; then
        tc -n "host$word" qdisc add dev wire root tbf rate "${RATE-1gbit}" burst 1mb latency 100ms
    fi
done
# In place of ssh: the first word is the host, the rest a command for its shell.
cat >"$work/agent" <<'AGENT'
#!/bin/sh
host=$1
shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"
AGENT
chmod +x "$work/agent"
export OMPI_MCA_plm_rsh_agent="$work/agent" OMPI_MCA_orte_default_hostfile="$work/hosts"
export OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 OMPI_MCA_oob_tcp_if_include=10.77.0.0/24
# Each host would bind its first rank to the first core.
export OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
printf 'hosta slots=1\nhostb slots=1\n' >"$work/hosts"
# In a group of its own, which gets the signals that come here: bash would wait for its end before it acts on them.
set -m
ip netns exec hosta unshare --uts sh -c 'hostname hosta; exec "$@"' sh "$@" </dev/null &
job=$!
trap 'kill -TERM -- -$job' TERM
trap 'kill -INT -- -$job' INT
status=0
wait "$job" || status=$?
# A signal ends the first wait.
while kill -0 "$job" 2>/dev/null; do
    status=0
    wait "$job" || status=$?
done
exit "$status"
