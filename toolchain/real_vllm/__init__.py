"""A real vLLM on this machine's CPU, and a tiny model for it: what `make test-vllm` needs."""
