import subprocess,sys
out=open(sys.argv[1],"w")
for c in ["uname -a","cat /sys/kernel/security/lsm","cat /proc/mounts","cat /proc/self/cgroup","cat /sys/fs/cgroup/cgroup.controllers","aa-status","python3 --version","systemctl list-jobs","systemctl --failed","id", "PYTHONPATH=/opt/site python3 -m pyproc doctor", "systemctl start user@41234; systemctl status user@41234","time true","systemd-analyze"]:
    r=subprocess.run(["bash","-c",c],capture_output=True,text=True)
    out.write(f"== {c}\n{r.stdout}{r.stderr}\n"); out.flush()
