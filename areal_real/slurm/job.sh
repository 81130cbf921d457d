# From here on every job is the same: areal_real/slurm/job.sh.

set -u -m  # -m: a process group for each part, and Ctrl-C's signal is not ignored in them

job=$SLURM_JOB_ID
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    # Not SLURM_JOB_ID: that of one task stands for the whole array.
    job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    out=$out/seed-$SLURM_ARRAY_TASK_ID
    train+=(--seed "$SLURM_ARRAY_TASK_ID")
fi
train+=(--out "$out")
fruitless_file=$folder/fruitless-$job
token_file=$folder/ray-token-$job
last_call_s=15 # before the limit: enough to end processes and to queue again
end_of_ray_s=8 # of that, for Ray's nodes to end in order

told=""      # why the job has to end, once it is told
end_s=""     # when SLURM will end it, in seconds since 1970
running=""   # process id of `areal-real train`
ray_steps=() # process ids of the sruns that hold Ray's nodes

say() {
    printf '%s job %s: %s\n' "$(date +%FT%T)" "$job" "$*" >&2
}

ask_slurm() { # one field of the job, in squeue's letters: %T is its state, %e its end
    squeue --noheader --jobs="$job" --format="$1" 2>/dev/null
}

progress() { # what an attempt leaves behind: the newest checkpoint's step, how many evaluations
    local path step newest=0
    for path in "$out"/checkpoints/step-*/run.json; do
        [[ $path =~ /step-([0-9]+)(\+[0-9]+)?/run.json$ && -e $path ]] || continue
        step=$((10#${BASH_REMATCH[1]}))
        ((step > newest)) && newest=$step
    done
    echo "$newest $(grep -c . "$out/held_out.jsonl" 2>/dev/null)"
}

end_in_time() { # why
    [[ -n $told ]] && return
    told=$1
    local end
    if [[ $(ask_slurm %T) == RUNNING ]]; then # else SLURM ends it already, at its own time
        end=$(ask_slurm %e)
        end_s=$(date -d "${end:-none}" +%s 2>/dev/null || echo $(($(date +%s) + notice_s)))
    fi
    say "$told: ending after the step in progress, with a checkpoint"
    [[ -n $running ]] && kill -INT "$running" 2>/dev/null
}
patiently() { # not in the foreground: a signal is answered at once
    "$@" &
    wait $!
}
trap 'end_in_time "the time limit is near"' USR1
trap 'end_in_time "told to end"' TERM

# ---- Ray: the first node is the head, the others join; all of it belongs to this job alone -------

ray_node() { # runs on each node, under srun: ray_node PYTHON CORES OPTION...
    local python=$1 cores=$2 folder ray
    ((SLURM_CPUS_ON_NODE > cores)) && cores=$SLURM_CPUS_ON_NODE
    shift 2
    # Short, for a Unix socket's path in it has at most 107 bytes. Ray lets everybody write into its
    # folder: into the one around it only the user may look.
    folder=$(mktemp -d -t ray-XXXXXX) || return
    "$python" -m ray.scripts.scripts start --block --disable-usage-stats --log-color=false \
        --temp-dir="$folder/r" --num-cpus="$cores" \
        --dashboard-agent-listen-port=0 "$@" </dev/null &
    ray=$!
    # The end of its input is the end of the cluster; a signal to srun would leave no time.
    while kill -0 "$ray" 2>/dev/null; do
        read -r -t 1 || (($? > 128)) || break
    done
    kill "$ray" 2>/dev/null
    wait "$ray"
    rm -rf -- "$folder"
}

start_ray() {
    local names here port client second="" address code
    mapfile -t names < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    if ((${#names[@]} > 1)); then
        second=$(scontrol show node --oneliner "${names[1]}" | grep -o ' NodeAddr=[^ ]*' | cut -d= -f2)
    fi
    read -r here port client < <("$python" -m areal_real.slurm.ray_cluster head "$second") ||
        return
    address=$here:$port
    # Who knows the token may run anything in the job: only the user may read it.
    (umask 077 && "$python" -c 'import secrets; print(secrets.token_hex(32), end="")' \
        >"$token_file") || return
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token_file
    local step=(srun --overlap --ntasks-per-node=1 --cpus-per-task="$cpus_per_task"
        --kill-on-bad-exit=0 --wait=0)
    local ray=(--num-gpus="$gpus_per_node")
    ((gpus_per_node)) && step+=(--gpus-per-node="$gpus_per_node")
    pipe=$(mktemp -d)/pipe
    mkfifo "$pipe" || return
    exec 8<>"$pipe"
    code="$(declare -f ray_node); ray_node \"\$@\""
    "${step[@]}" --nodes=1 --ntasks=1 --nodelist="${names[0]}" bash -c "$code" ray-head \
        "$python" "$cores" "${ray[@]}" --head --node-ip-address="$here" \
        --port="$port" --ray-client-server-port="$client" --include-dashboard=false <"$pipe" 8>&- &
    ray_steps+=($!)
    patiently "$python" -m areal_real.slurm.ray_cluster wait "$address" 1 || return
    if ((${#names[@]} > 1)); then
        "${step[@]}" --nodes=$((${#names[@]} - 1)) --ntasks=$((${#names[@]} - 1)) \
            --exclude="${names[0]}" bash -c "$code" ray-node \
            "$python" "$cores" "${ray[@]}" --address="$address" <"$pipe" 8>&- &
        ray_steps+=($!)
        patiently "$python" -m areal_real.slurm.ray_cluster wait "$address" "${#names[@]}" || return
    fi
    say "Ray runs on ${names[*]}, its head is $address"
    train+=(--engine ray --address "$address")
}

stop_ray() {
    local step seconds=0
    exec 8>&-
    for step in "${ray_steps[@]}"; do
        while kill -0 "$step" 2>/dev/null && ((seconds < end_of_ray_s)); do
            sleep 1
            ((seconds += 1))
        done
        kill -TERM "$step" 2>/dev/null # not waited for: it ends with the job at the latest
    done
    rm -rf -- "$token_file" "${pipe%/*}"
}

# ---- the run -------------------------------------------------------------------------------------

status=1
run() {
    if [[ $run_with == ray ]]; then
        start_ray || { say "the Ray cluster did not start"; return; }
    fi
    [[ -n $told ]] && return
    "${train[@]}" 8>&- &
    running=$!
    [[ -n $told ]] && kill -INT "$running" # told between the two lines above
    while kill -0 "$running" 2>/dev/null; do
        if [[ -n $end_s ]] && (($(date +%s) >= end_s - last_call_s)); then
            say "the step was not done in time: what came after the last checkpoint is lost"
            kill -KILL "$running" 2>/dev/null
        fi
        patiently sleep 1
    done
    wait "$running"
    status=$?
}

before=$(progress)
say "attempt $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST"
run
((${#ray_steps[@]})) && stop_ray

case $status in
0)
    rm -f -- "$fruitless_file"
    say "the run is complete"
    exit 0
    ;;
2)
    say "bad input: not queued again"
    exit 2
    ;;
130)
    if [[ -z $told ]]; then
        say "interrupted by hand: not queued again"
        exit 130
    fi
    ;;
esac

fruitless=0
if [[ $(progress) == "$before" ]]; then
    fruitless=$(($(cat "$fruitless_file" 2>/dev/null || echo 0) + 1))
fi
echo "$fruitless" >"$fruitless_file"

if ((!requeue)); then
    say "not queued again; the same areal-real launch goes on from the last checkpoint"
elif ((fruitless >= give_up_after)); then
    say "not queued again: $fruitless attempts in a row brought no new checkpoint"
elif [[ $(ask_slurm %T) != RUNNING ]]; then
    # Cancelled, or requeued by SLURM itself: to ask now would bring a cancelled job back.
    say "SLURM is ending the job"
elif scontrol requeue "$job"; then
    say "queued again"
else
    say "SLURM did not queue it again; the same areal-real launch goes on from the last checkpoint"
fi
exit "$status"
