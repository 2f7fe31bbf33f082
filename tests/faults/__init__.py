"""What goes wrong on rented GPU hosts, played against the real CLI: each promise is a cell."""

import pytest

for module in (
    *("cell", "faults_of_hosts", "faults_of_the_api", "hostile_hosts", "kills", "moments"),
    *("rehearsals", "several", "world"),
):
    pytest.register_assert_rewrite(f"tests.faults.{module}")
