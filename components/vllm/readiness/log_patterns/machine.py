"""What a log says of the machine: GPUs and their memory, disk, drivers, NCCL."""

from __future__ import annotations

from components.vllm.readiness.diagnosis import Pattern, Rank

MEMORY = (
    Pattern(
        name="kv_too_small",
        expressions=(
            (
                r"max seq len \((?P<asked>\d{1,12})\), \((?P<needed>[\d.]{1,20}) GiB KV cache is "
                r"needed, which is larger than the available KV cache memory "
                r"\((?P<available>[\d.]{1,20}) GiB\)"
                r".{0,500}estimated maximum model length is (?P<possible>\d{1,12})"
            ),
        ),
        fault="configuration",
        sentence=(
            "one sequence of {asked} tokens needs {needed} GiB of KV cache and {available} GiB are "
            "free beside the weights"
        ),
        remedy="set max_model_len to at most {possible}, or take more or larger GPUs",
    ),
    Pattern(
        name="kv_too_small",
        expressions=(
            (
                r"(?P<needed>[\d.]{1,20}) GiB KV cache is needed, which is larger than the "
                r"available KV cache memory \((?P<available>[\d.]{1,20}) GiB\)"
            ),
            r"is larger than the available KV cache memory",
        ),
        fault="configuration",
        sentence=(
            "one sequence of the context length needs {needed} GiB of KV cache and {available} GiB "
            "are free beside the weights"
        ),
        bare="one sequence of the context length does not fit into the KV cache",
        remedy="lower max_model_len, or take more or larger GPUs",
    ),
    Pattern(
        name="no_kv_memory",
        expressions=(r"No available memory for the cache blocks",),
        fault="configuration",
        sentence="the weights leave no memory for the KV cache",
        remedy=(
            "raise gpu_memory_utilization (at most 0.95), lower max-num-batched-tokens, or take "
            "more or larger GPUs"
        ),
    ),
    Pattern(
        name="gpu_in_use",
        expressions=(
            (
                r"Free memory on device (?:\S{1,50})? ?"
                r"\((?P<free>[\d.]{1,20})/(?P<total>[\d.]{1,20}) GiB\) "
                r"on startup is less than"
            ),
            r"is less than desired GPU memory utilization",
        ),
        fault="host",
        sentence="only {free} of {total} GiB are free on a GPU before anything is loaded",
        bare="a GPU's memory is in use before anything is loaded",
        remedy="another program holds the rest, so another host is needed",
    ),
    Pattern(
        name="warm_up_out_of_memory",
        expressions=(
            r"CUDA out of memory occurred when warming up sampler with (?P<requests>\d{1,12})",
            r"CUDA out of memory occurred when warming up sampler",
        ),
        fault="configuration",
        sentence="the GPU's memory does not suffice for {requests} requests at once",
        bare="the GPU's memory does not suffice for max-num-seqs requests at once",
        remedy="lower max-num-seqs or gpu_memory_utilization",
    ),
    Pattern(
        name="gpu_out_of_memory",
        expressions=(
            (
                r"OutOfMemoryError: CUDA out of memory\. "
                r"Tried to allocate (?P<asked>[\d.]{1,20} \wiB)"
                r".{0,500}?capacity of (?P<total>[\d.]{1,20} \wiB) "
                r"of which (?P<free>[\d.]{1,20} \wiB) is free"
            ),
            r"OutOfMemoryError: CUDA out of memory",
            r"CUDA error: out of memory",
        ),
        fault="configuration",
        sentence="a GPU ran out of memory (asked for {asked}, free {free} of {total})",
        bare="a GPU ran out of memory",
        remedy=(
            "lower gpu_memory_utilization, max-num-batched-tokens or max-num-seqs, or take more or "
            "larger GPUs"
        ),
        after_start=True,
    ),
)
"""What does not fit into the GPUs."""

DISK = (
    Pattern(
        name="shared_memory_short",
        expressions=(
            r"Error while creating shared memory segment (?P<segment>/dev/shm/\S{1,200})",
            r"No space left on device.{0,500}(?P<segment>/dev/shm)",
            r"unable to (?:write to|resize|open shared memory).{0,300}(?P<segment>/torch_\S{0,99})",
        ),
        fault="host",
        sentence="the host's shared memory is too small for several GPUs ({segment})",
        remedy="take a host whose /dev/shm has 16 GB or more",
        after_start=True,
    ),
    Pattern(
        name="disk_full",
        expressions=(
            (
                r"Not enough free disk space to download the file\. The expected file size is: "
                r"(?P<asked>[\d.]{1,20} MB)\. The target location \S{1,200} "
                r"only has (?P<free>[\d.]{1,20} MB)"
            ),
            r"Not enough free disk space to download the file",
            r"No space left on device",
            r"Disk quota exceeded",
        ),
        fault="configuration",
        sentence="the rented disk is full (a file of {asked} is to come and {free} are free)",
        bare="the rented disk is full",
        remedy="raise disk_gb; a disk cannot grow, so this makes a new instance",
        after_start=True,
    ),
)
"""What does not fit onto the disk, or into shared memory. The latter is asked first."""

HARDWARE = (
    Pattern(
        name="driver_too_old",
        expressions=(
            r"driver on your system is too old \(found version (?P<major>\d{1,4})0(?P<minor>\d)0\)",
            r"driver on your system is too old",
        ),
        fault="host",
        sentence="the host's driver is too old for the image (it reports CUDA {major}.{minor})",
        bare="the host's driver is too old for the image",
        remedy="take a host with a newer driver: raise min_cuda or min_driver",
    ),
    Pattern(
        name="driver_too_old",
        expressions=(
            (
                r"nvidia-container-cli: requirement error: unsatisfied condition: "
                r"cuda {0,9}>= {0,9}(?P<wanted>[\d.]{1,20})"
            ),
        ),
        fault="host",
        sentence="the host's driver is too old for the image, which wants CUDA {wanted}",
        remedy="take a host with a newer driver: raise min_cuda or min_driver",
    ),
    Pattern(
        name="driver_too_old",
        expressions=(r"forward compatibility was attempted on non supported HW",),
        fault="host",
        sentence="the host's driver is too old for the image, and its GPU takes no newer library",
        remedy="take a host with a newer driver: raise min_cuda or min_driver",
    ),
    Pattern(
        name="cuda_does_not_start",
        expressions=(
            (
                r"cudaGetDeviceCount\(\).{0,300}Error (?P<code>\d{1,4}): "
                r"(?P<what>[\w /]{1,100})"
            ),
            r"(?P<what>system not yet initialized)",
            r"(?P<what>cudaErrorSystemNotReady|CUDA_ERROR_SYSTEM_NOT_READY)",
            r"(?P<what>system has unsupported display driver / cuda driver combination)",
            r"(?P<what>cudaErrorSystemDriverMismatch|CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)",
            r"(?P<what>Driver/library version mismatch)",
            r"(?P<what>NVML_ERROR_LIB_RM_VERSION_MISMATCH|NVML_ERROR_DRIVER_NOT_LOADED)",
            r"(?P<what>Unexpected error from cudaGetDeviceCount)",
        ),
        fault="host",
        sentence="CUDA does not start on the machine ({what})",
        remedy="another host is needed",
    ),
    Pattern(
        name="gpu_missing",
        expressions=(
            (
                r"World size \((?P<ranks>\d{1,12})\) is larger than the number of available GPUs "
                r"\((?P<gpus>\d{1,12})\)"
            ),
        ),
        fault="host",
        sentence="the server wants {ranks} GPUs and sees {gpus}",
        remedy="another host is needed, or a smaller tensor_parallel_size",
    ),
    Pattern(
        name="gpu_missing",
        expressions=(r"DP adjusted local rank (?P<gpus>\d{1,12}) is out of bounds",),
        fault="host",
        sentence="the server wants more GPUs than it sees (rank {gpus} has none)",
        remedy="another host is needed, or a smaller data_parallel_size",
    ),
    Pattern(
        name="gpu_missing",
        expressions=(r"Failed to infer device type", r"No CUDA GPUs are available"),
        fault="host",
        sentence="the server sees no GPU",
        remedy="another host is needed",
    ),
    Pattern(
        name="image_not_for_gpu",
        expressions=(
            r"CUDA error: (?P<what>no kernel image is available|invalid device function)",
        ),
        fault="configuration",
        sentence="the image was not built for this kind of GPU ({what})",
        remedy="take another image, or another gpu_name",
        after_start=True,
    ),
    Pattern(
        name="kernel_failed",
        expressions=(r"CUDA error: (?P<what>(?:an )?illegal memory access|device-side assert)",),
        fault="platform",
        sentence="a program on the GPU failed, as software does ({what})",
        remedy=(
            "run `pulumi up` again, which restarts it; if it stays, take another image or "
            "attention-backend"
        ),
        rank=Rank.CONSEQUENCE,
        after_start=True,
    ),
    Pattern(
        name="gpu_failed",
        expressions=(
            r"CUDA error: (?P<what>.+)",
            r"(?P<what>CUDA driver initialization failed.*)",
            r"(?P<what>CUDA unknown error)",
        ),
        fault="host",
        sentence="a GPU failed ({what})",
        remedy="another host is needed",
        rank=Rank.CONSEQUENCE,
        after_start=True,
    ),
    Pattern(
        name="nccl_failed",
        expressions=(
            (
                r"NCCL error[^,]{0,120}?(?P<what>unhandled system error|unhandled cuda error"
                r"|remote process exited|internal error|invalid usage)"
            ),
            r"(?P<what>NCCL error)",
        ),
        fault="host",
        sentence="the GPUs cannot talk to each other through NCCL ({what})",
        remedy="set NCCL_P2P_DISABLE=1 in the profile's env, or take another host",
        rank=Rank.CONSEQUENCE,
        after_start=True,
    ),
    Pattern(
        name="port_in_use",
        expressions=(r"Address already in use", r"error while attempting to bind on address"),
        fault="host",
        sentence="another program on the host holds the server's port",
        remedy="run `pulumi up` again, which restarts the server; if it stays, take another host",
    ),
    Pattern(
        name="host_out_of_memory",
        expressions=(
            r"Worker proc (?P<worker>\S{1,200}) died unexpectedly \(exit code: -9\)",
            r"EngineCore.{0,60} died .{0,60}exit code:? -9",
        ),
        fault="host",
        sentence="the host killed a process of the server, as it does when main memory runs out",
        remedy="take a host with more main memory: 64 GB or more",
        rank=Rank.CONSEQUENCE,
        after_start=True,
    ),
    Pattern(
        name="shared_memory_short",
        expressions=(r"Worker proc (?P<segment>\S{1,200}) died unexpectedly \(exit code: -7\)",),
        fault="host",
        sentence="{segment} died of a bus error, as it does when /dev/shm is too small",
        remedy="take a host whose /dev/shm has 16 GB or more",
        rank=Rank.CONSEQUENCE,
        after_start=True,
    ),
)
"""What the machine causes."""
