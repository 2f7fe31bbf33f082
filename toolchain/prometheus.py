"""Prometheus and `promtool`, which check and prove what `make dashboard` writes."""

from __future__ import annotations

from toolchain.distribution import Program

PROMETHEUS = Program(
    name="Prometheus",
    package="prometheus",
    commands={"prometheus": "usr/bin/prometheus", "promtool": "usr/bin/promtool"},
    # Debian 12 has it, and with it the files were tried.
    oldest=(2, 42),
    says=r"prometheus, version (\d+)\.(\d+)(?:\.(\d+))?",
    asked="--version",
    # Its pages need a dozen packages of scripts, and Prometheus itself none of them.
    most_packages=40,
    needs_libraries=False,
    install={
        "apt-get": "sudo apt-get update && sudo apt-get install prometheus",
        "dnf": "sudo dnf install prometheus2",
        "brew": "brew install prometheus",
    },
    needed_by="a stack works without it; `make test` needs it, and `make dashboard` to check",
)
