"""Ask the running stack's model one question: `MSG="..." python -m toolchain.chat STACK`."""

from __future__ import annotations

import os
import ssl
import sys

import httpx2
import openai

from toolchain.on_emulator import outputs

QUESTION = "In one sentence: what are you, and where do you run?"


def main(stack: str, message: str) -> int:
    """Print the model's answer; return 1 with a sentence if there is none."""
    known = outputs(stack)
    if "endpoint_url" not in known:
        print("there is no endpoint: run `make up` first", file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    trust = ssl.create_default_context(cadata=known["ca_certificate"] or None)
    client = openai.OpenAI(
        base_url=known["endpoint_url"],
        api_key=known["api_key"],
        http_client=httpx2.Client(verify=trust, trust_env=False, timeout=120),
    )
    try:
        answer = client.chat.completions.create(
            model=known["model"], messages=[{"role": "user", "content": message}]
        )
    except openai.OpenAIError as error:
        print(f"the endpoint did not answer: {error}", file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    print(f"you:   {message}\nmodel: {answer.choices[0].message.content}")  # noqa: T201  (a command's own output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], os.environ.get("MSG") or QUESTION))
