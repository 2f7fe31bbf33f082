"""What the market's GPUs are: memory, speed, and what an hour of one usually costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU model. Memory in MiB (the marketplace calls it MB), prices in $/h for one GPU."""

    name: str
    ram_mib: int
    cheapest: float
    dearest: float
    compute_cap: int
    tflops: float
    memory_gb_s: float
    watts: int
    dlperf: float
    nvlink_gb_s: float
    datacenter_only: bool


GPUS = (
    Gpu("B200", 183359, 3.60, 5.40, 1000, 74.5, 7700, 1000, 480, 900, datacenter_only=True),
    Gpu("H200", 143771, 2.05, 3.40, 900, 66.9, 4800, 700, 330, 478, datacenter_only=True),
    Gpu("H200 NVL", 143771, 2.00, 3.10, 900, 60.3, 4800, 600, 310, 450, datacenter_only=True),
    Gpu("H100 SXM", 81559, 1.50, 2.60, 900, 66.9, 3350, 700, 300, 478, datacenter_only=True),
    Gpu("H100 NVL", 95830, 1.40, 2.30, 900, 60.0, 3900, 400, 280, 300, datacenter_only=True),
    Gpu("A100 SXM4", 81920, 0.65, 1.30, 800, 19.5, 2039, 400, 120, 300, datacenter_only=True),
    Gpu("L40S", 46068, 0.45, 0.90, 890, 91.6, 864, 350, 95, 0, datacenter_only=True),
    Gpu("RTX PRO 6000 S", 97887, 0.85, 1.60, 1200, 120, 1597, 600, 180, 0, datacenter_only=True),
    Gpu("RTX 5090", 32607, 0.35, 0.75, 1200, 104.8, 1792, 575, 150, 0, datacenter_only=False),
    Gpu("RTX 4090", 24564, 0.26, 0.55, 890, 82.6, 1008, 450, 100, 0, datacenter_only=False),
    Gpu("RTX 3090", 24576, 0.12, 0.26, 860, 35.6, 936, 350, 48, 0, datacenter_only=False),
)
