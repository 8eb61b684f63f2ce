"""What torchrun tells the processes it starts."""

from __future__ import annotations

import socket


def torchrun_variables(num_ranks: int, *, ranks_a_node: int | None = None) -> list[dict[str, str]]:
    """Returns the environment variables of each rank of a run on this machine; none for a single process.

    :param ranks_a_node: As if the ranks were spread over several machines; by default all are on one.
    """
    if num_ranks == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    a_node = ranks_a_node or num_ranks
    shared = {"WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": a_node, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank % a_node}.items()}
        for rank in range(num_ranks)
    ]
