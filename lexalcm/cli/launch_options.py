"""The options of commands whose work several workers do, here or under Slurm, and the configuration they mean."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lexalcm.pipelines.launch_config import LaunchConfig


def add_launch_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("workers")
    group.add_argument(
        "--launcher",
        metavar="NAME",
        default="local",
        help="local: processes of this machine; slurm: an array of jobs, which the command submits and waits for "
        "(default: local)",
    )
    group.add_argument(
        "--workers",
        metavar="N",
        type=int,
        help="how many share the shards (default: one a GPU, else one per 4 cores; under Slurm at most 16)",
    )
    group.add_argument(
        "--cpus-per-worker",
        metavar="N",
        type=int,
        help="threads of a worker (default: all cores shared out; under Slurm 4)",
    )
    group.add_argument(
        "--retries", metavar="N", type=int, default=0, help="start a worker that died again, so often (default: 0)"
    )
    group = parser.add_argument_group("Slurm", "For --launcher slurm alone.")
    group.add_argument("--nodes", metavar="N", type=int, help="whole nodes, one worker on each (default: any room)")
    group.add_argument(
        "--gpus-per-worker", metavar="N", type=int, help="GPUs of a worker (default: 1 with --device cuda, else 0)"
    )
    group.add_argument(
        "--mem-gb", metavar="GB", type=float, help="memory of a worker (default: what the cluster gives)"
    )
    group.add_argument(
        "--time",
        metavar="TIME",
        help="what a worker may take: minutes, HH:MM:SS or D-HH:MM (default: 12 hours); what is done by then is kept",
    )
    group.add_argument("--partition", metavar="NAME", help="queue to wait in (default: the cluster's)")
    group.add_argument("--qos", metavar="NAME", help="quality of service")
    group.add_argument("--account", metavar="NAME", help="whom to charge")
    group.add_argument("--constraint", metavar="TEXT", help="features that nodes must have")
    group.add_argument(
        "--slurm-option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any other option of sbatch, say exclude=node7, or KEY alone for one without a value; several times for "
        "several",
    )


def launch_config(args: Namespace) -> LaunchConfig:
    """:raises ConfigError: An option cannot be honoured; nothing was started then."""
    from lexalcm.pipelines.launch_config import LaunchConfig, parse_minutes, parse_slurm_options

    config = LaunchConfig(
        launcher=args.launcher,
        num_workers=args.workers,
        nodes=args.nodes,
        cpus_per_worker=args.cpus_per_worker,
        gpus_per_worker=args.gpus_per_worker,
        mem_gb=args.mem_gb,
        time_min=None if args.time is None else parse_minutes(args.time),
        partition=args.partition,
        qos=args.qos,
        account=args.account,
        constraint=args.constraint,
        slurm_options=parse_slurm_options(args.slurm_option),
        max_retries=args.retries,
    )
    config.check()
    return config
