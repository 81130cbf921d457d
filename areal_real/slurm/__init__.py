"""Runs as SLURM jobs: what `areal-real launch --engine slurm` writes and submits.

`options` holds what the user asks for against the run and against SLURM's own forms, `script`
writes the job, whose larger part is ``job.sh``, `submit` hands it to ``sbatch`` and follows it, and
`ray_cluster` is called inside the job. Nothing here imports torch.
"""
