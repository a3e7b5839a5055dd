"""torch's own data loader with two worker processes, which hand tensors over in shared memory: prints their sum, and
which file system that memory is."""

import json
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset


class Numbers(Dataset):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((256,), float(index))


loader = DataLoader(Numbers(), batch_size=8, num_workers=2)
total = sum(batch.sum().item() for batch in loader)
print(json.dumps({"sum": total, "memory": Path("/dev/shm").stat().st_dev}))
