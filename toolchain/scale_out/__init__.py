"""What several machines behind one router are measured with: `make router-benchmark`."""
