from __future__ import annotations

import pytest

from components.machine.gpu_names import is_same_gpu
from emulator.gpus import GPUS
from emulator.standins import gpus as on_the_machine

SAME = [
    ("H200", "NVIDIA H200"),
    ("H200 NVL", "NVIDIA H200 NVL"),
    ("H100 SXM", "NVIDIA H100 80GB HBM3"),
    ("H100 NVL", "NVIDIA H100 NVL"),
    ("H100 PCIE", "NVIDIA H100 PCIe"),
    ("GH200 SXM", "NVIDIA GH200 480GB"),
    ("B200", "NVIDIA B200"),
    ("A100 SXM4", "NVIDIA A100-SXM4-80GB"),
    ("A100 SXM4", "NVIDIA A100-SXM4-40GB"),
    ("A100 PCIE", "NVIDIA A100 80GB PCIe"),
    ("A100 PCIE", "NVIDIA A100-PCIE-40GB"),
    ("L4", "NVIDIA L4"),
    ("L40", "NVIDIA L40"),
    ("L40S", "NVIDIA L40S"),
    ("Tesla V100", "Tesla V100-PCIE-16GB"),
    ("Tesla V100", "Tesla V100-SXM2-32GB"),
    ("RTX PRO 6000 S", "NVIDIA RTX PRO 6000 Blackwell Server Edition"),
    ("RTX PRO 6000 WS", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"),
    ("RTX PRO 6000 WS", "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"),
    ("RTX 6000Ada", "NVIDIA RTX 6000 Ada Generation"),
    ("RTX A6000", "NVIDIA RTX A6000"),
    ("Q RTX 8000", "Quadro RTX 8000"),
    ("RTX 4090", "NVIDIA GeForce RTX 4090"),
    ("RTX 4090D", "NVIDIA GeForce RTX 4090 D"),
    ("RTX 4080S", "NVIDIA GeForce RTX 4080 SUPER"),
    ("RTX 4070S Ti", "NVIDIA GeForce RTX 4070 Ti SUPER"),
    ("RTX 3060 laptop", "NVIDIA GeForce RTX 3060 Laptop GPU"),
    ("GTX 1660 S", "NVIDIA GeForce GTX 1660 SUPER"),
    ("", "NVIDIA H200"),
]

OTHER = [
    ("H200", "NVIDIA H100 80GB HBM3"),
    ("H200", "NVIDIA H200 NVL"),
    ("H200 NVL", "NVIDIA H200"),
    ("H100 SXM", "NVIDIA H100 PCIe"),
    ("H100 SXM", "NVIDIA H100 NVL"),
    ("H100 PCIE", "NVIDIA H100 80GB HBM3"),
    ("A100 SXM4", "NVIDIA A100 80GB PCIe"),
    ("A100 SXM4", "NVIDIA A10"),
    ("H200", "NVIDIA GH200 480GB"),
    ("L4", "NVIDIA L40"),
    ("L40", "NVIDIA L40S"),
    ("L40S", "NVIDIA L40"),
    ("RTX PRO 6000 S", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"),
    ("RTX PRO 6000 S", "NVIDIA RTX 6000 Ada Generation"),
    ("RTX 6000Ada", "Quadro RTX 6000"),
    ("RTX A6000", "NVIDIA RTX 6000 Ada Generation"),
    ("RTX 4090", "NVIDIA GeForce RTX 4090 D"),
    ("RTX 4090", "NVIDIA GeForce RTX 4090 Laptop GPU"),
    ("RTX 3080", "NVIDIA GeForce RTX 3080 Ti"),
    ("RTX 4070S Ti", "NVIDIA GeForce RTX 4070 Ti"),
    ("RTX 4090", "NVIDIA GeForce GTX 1080"),
    ("H200", ""),
]


@pytest.mark.parametrize(("rented", "found"), SAME)
def test_one_gpu_has_two_names(rented, found):
    assert is_same_gpu(rented, found)


@pytest.mark.parametrize(("rented", "found"), OTHER)
def test_another_gpu_is_told_apart(rented, found):
    assert not is_same_gpu(rented, found)


@pytest.mark.parametrize("rented", [gpu.name for gpu in GPUS])
def test_each_gpu_of_the_market_is_known_by_what_its_machine_says(rented):
    shown = {gpu.name: on_the_machine.product(gpu.name) for gpu in GPUS}
    assert is_same_gpu(rented, shown[rented])
    others = {name for name, said in shown.items() if is_same_gpu(rented, said)} - {rented}
    assert others == set()
