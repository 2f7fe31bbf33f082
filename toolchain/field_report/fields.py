"""Which fields of the market's JSON are facts, and which are somebody's. A table. Pure.

Only a field that stands here keeps its value. Any other keeps its name and its type, so that a
report shows a field that this project does not know, and says nothing of what was in it.
"""

from __future__ import annotations

import re
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NUMBERS: Final = _words(
    """
    num_gpus gpu_ram gpu_totalram gpu_total_ram gpu_frac gpu_lanes gpu_mem_bw gpu_max_power
    gpu_max_temp compute_cap cuda_max_good driver_vers bw_nvlink total_flops dlperf pci_gen
    pcie_bw cpu_cores cpu_cores_effective cpu_ghz cpu_ram has_avx disk_bw disk_space inet_up
    inet_down inet_up_cost inet_down_cost internet_up_cost_per_tb internet_down_cost_per_tb
    direct_port_count storage_cost storage_total_cost reliability reliability2
    reliability_mult expected_reliability vericode hosting_type dph_base dph_total
    dph_total_adj discounted_dph_total discounted_hourly discount_rate credit_discount
    credit_discount_max min_bid vram_costperhour platform_fee gpuCostPerHour diskHour
    totalHour discountTotalHour discountedTotalPerHour dlperf_per_dphtotal flops_per_dphtotal
    score duration rn bundled_results avail_vol_dph avail_vol_size start_date end_date
    client_run_time host_run_time uptime_mins gpu_util gpu_temp cpu_util mem_usage mem_limit
    vmem_usage disk_util disk_usage limit allocated_storage disk price retry_after remaining
    threshold total_instances instances_found dph amount quantity rate start end start_time
    end_time day_of_the_week hour_of_the_day day ssh_idx count
    """
)
"""Fields whose numbers are kept."""

IDS: Final = _words(
    """
    id ask_contract_id bundle_id contract_id new_contract instance_id machine_id host_id
    user_id cluster_id gpu_ids template_id avail_vol_ask_id ask_id scheduled_job_id ids
    new_contracts pending_price_increase_id job_id owner_id creator_id after_token next_token
    team_id ssh_port machine_dir_ssh_port direct_port_start direct_port_end HostPort
    """
)
"""Fields whose numbers name something: each number becomes another, always the same one."""

MAPS: Final = frozenset({"env", "extra_env", "label_counts"})
"""Fields whose keys are values."""

NAMES: Final = _words(
    """
    label username fullname email hostname public_ipaddr local_ipaddrs ssh_host HostIp
    template_name template_hash_id image_login webpage
    """
)
"""Fields whose texts name somebody or something: they are looked for in every other text."""

MESSAGES: Final = frozenset(
    {"msg", "message", "detail", "error_msg", "status_msg", "note", "source", "description"}
)
"""Fields with sentences of the market and of hosts: what is somebody's is replaced in them."""

WORD: Final = re.compile(r"[A-Za-z][A-Za-z_ -]{0,31}")
GPU: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ]{0,31}")
CPU: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .@+()®™-]{0,63}")
VERSION: Final = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5}){0,3}")
IMAGE: Final = re.compile(r"vllm/vllm-openai(:v?[0-9a-z.-]{1,24})?(@sha256:[0-9a-f]{64})?")
TYPE: Final = re.compile(r"application/json|text/(plain|html)(; ?charset=[A-Za-z0-9-]{1,12})?")
NUMBER: Final = re.compile(r"-?[0-9]{1,7}(\.[0-9]{1,6})?")
COLUMN: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")

TEXTS: Final[dict[str, re.Pattern[str]]] = {
    **dict.fromkeys(
        _words(
            """
            actual_status intended_status cur_state next_state verification gpu_arch
            cpu_arch resource_type image_runtype runtype type state error code
            frequency request_method client_id owner disk_name dir status
            """
        ),
        WORD,
    ),
    **dict.fromkeys(("gpu_name", "gpu_names"), GPU),
    "cpu_name": CPU,
    **dict.fromkeys(("driver_version", "os_version", "ssh_idx", "vllm"), VERSION),
    **dict.fromkeys(("image", "image_uuid"), IMAGE),
    "Content-Type": TYPE,
    **dict.fromkeys(("Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining"), NUMBER),
    **dict.fromkeys(("col", "order"), COLUMN),
}
"""Fields whose texts are kept, and the form that a text must have to be one of these facts."""

OPERATORS: Final = frozenset({"eq", "neq", "gt", "gte", "lt", "lte", "in", "notin"})
"""Keys of a condition: what it compares with is of the field that it stands under."""

KNOWN_WORDS: Final = _words(
    """
    created loading running exited stopped offline scheduling unknown verified unverified
    deverified nvidia amd amd64 arm64 gpu me asc desc bid on-demand interruptible reserved
    table auth_error no_such_ask no_such_instance not_found invalid_id invalid_args
    invalid_request unauthorized not_authorized search_quota_exceeded rate_limit_exceeded
    deprecated_endpoint HTTPTooManyRequests insufficient_credit HOURLY DELETE ssh ssh_direc
    ssh_proxy
    """
)
"""Words of the market that are facts even where a stack or a person has such a name."""

KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
"""The form of a field's name that is kept; anything else may be a value that stands as a key."""

OTHERS: Final = _words(
    """
    offers instances results success search instance items metadata select_filters order_by
    pending_price_increases result_url filter api v0 v1 bundles asks users current charges
    request_logs commands schedule_job update_template bid_price pending-price-increases
    accept-price-increase ssh
    """
)
"""Further keys and parts of paths that are the market's own."""

OWN_NAMES: Final = NUMBERS | IDS | MAPS | NAMES | MESSAGES | TEXTS.keys() | OPERATORS | OTHERS
"""Names of the market that are left even where a stack or a person has such a name."""
