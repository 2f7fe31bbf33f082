"""Options of `vllm serve`: what they ask for beside what they say."""
