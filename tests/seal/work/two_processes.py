"""Two processes of gloo, which find each other over the loopback of the seal: prints what each has after a sum."""

import json
import multiprocessing

import torch
import torch.distributed as distributed


def work(rank: int, address: str, answers: "multiprocessing.Queue[list[float]]") -> None:
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    values = torch.full((4,), rank + 1.0)
    distributed.all_reduce(values)
    answers.put(values.tolist())
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    # A fixed port is free: the loopback is the seal's own.
    processes = [context.Process(target=work, args=(rank, "tcp://127.0.0.1:29500", answers)) for rank in (0, 1)]
    for process in processes:
        process.start()
    told = [answers.get(timeout=100) for _ in processes]
    for process in processes:
        process.join()
    print(json.dumps({"sums": told, "ended": [process.exitcode for process in processes]}))
