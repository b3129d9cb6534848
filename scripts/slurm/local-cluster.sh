#!/usr/bin/env bash
# A real Slurm with one node on this machine, to try the scripts and to run the tests marked slurm. Needs root and
# Debian or Ubuntu. Again after a restart of the machine; `stop` ends it.
#   sudo bash scripts/slurm/local-cluster.sh [stop]
set -euo pipefail
state=/var/lib/kd-slurm
if [ "${1:-start}" = stop ]; then
  pkill -x slurmd || true
  pkill -x slurmctld || true
  exit 0
fi
if ! command -v slurmctld > /dev/null || ! command -v slurmd > /dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge > /dev/null
fi
if sinfo --noheader 2> /dev/null | grep -q idle; then
  exit 0
fi
mkdir -p "$state/ctld" "$state/d" /etc/slurm /run/munge
cat > /etc/slurm/slurm.conf <<CONF
ClusterName=kd
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job may start again once its old credential has expired.
AuthInfo=cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=5,batch_sched_delay=0
ReturnToService=2
JobRequeue=1
KillWait=10
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldPidFile=/run/slurmctld-kd.pid
SlurmdPidFile=/run/slurmd-kd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
[ -s /etc/munge/munge.key ] || (umask 077 && head -c 1024 /dev/urandom > /etc/munge/munge.key)
chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
pgrep -x munged > /dev/null || runuser -u munge -- /usr/sbin/munged --force
pgrep -x slurmctld > /dev/null || slurmctld
pgrep -x slurmd > /dev/null || slurmd
for _ in $(seq 60); do
  if sinfo --noheader 2> /dev/null | grep -q idle; then
    exit 0
  fi
  sleep 1
done
echo "Slurm did not come up; see $state/slurmctld.log and $state/slurmd.log" >&2
exit 1
