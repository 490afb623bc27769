"""FAKE of the R300's torch extension: its devices are the CPU."""

import torch

__version__ = "0.0.1-fake"


class xpu:
    """FAKE of ``torch_xmlir.xpu``."""

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        torch.manual_seed(seed)

    @staticmethod
    def xpu_synchronize() -> None:
        """Nothing is queued on a CPU."""

    @staticmethod
    def empty_cache() -> None:
        """A CPU has no such cache."""


def device(name: str) -> torch.device:
    return torch.device("cpu", int(name.removeprefix("xpu:")))
