"""One call to Vast, made safe: its pace, its tries, and the meaning of a bad answer.

What is safe to repeat is repeated (reads, label, destroy). A 404 is checked twice, because Vast
sends it for an unknown key and for a deleted object. A wrong key must never look like an empty
account.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import requests
import tenacity

from components.core.clock import Clock
from components.vast.api.answers import (
    error_code,
    first_seconds,
    lacks_permission,
    next_token,
    read_answer,
    reason,
    rows_in,
    says_gone,
    says_queued,
)
from components.vast.api.models import Json
from components.vast.api.rate_limit import SHARED_SECONDS, Throttle
from components.vast.errors import (
    ApiFailed,
    ApiUnreachable,
    KeyRefused,
    PermissionMissing,
    RateLimited,
)

TRIES = 6
"""Of a call that is safe to repeat."""

BRIEF_TRIES = 3
"""Tries of an unanswered call while nothing is at stake: the error comes after six seconds, not
sixty.
"""

LONGEST_PAUSE = 60.0
"""Most seconds of a server's `Retry-After` that are waited."""

MOST_PAGES = 400
"""Most pages of a list. This project has no list of ten thousand contracts or two hundred thousand
charges.
"""

PERMISSIONS = "misc, instance_read, instance_write, user_read and billing_read"
"""Permissions that a key needs here; the last is for `make cost` alone."""


class Transport(Protocol):
    """What the client needs of an HTTP client; `VastClient` is the real one."""

    def get(self, subpath: str, query_args: dict[str, Any] | None = None) -> requests.Response:
        """Send a GET."""

    def post(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        """Send a POST."""

    def put(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        """Send a PUT."""

    def delete(self, subpath: str, *, json_data: dict[str, Any]) -> requests.Response:
        """Send a DELETE."""


class Calls:
    """Makes calls to one market with one key."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        key: str,
        clock: Clock,
        *,
        throttle: Throttle,
        say: Callable[[str], None],
        patient: bool,
    ) -> None:
        """Send by `transport`, name `url` in errors, take `key` out of answers.

        Waits by `clock` and `throttle`; `say` hears of each pause between two tries. A call that
        nobody answers is made `TRIES` times, or `BRIEF_TRIES` without `patient`.
        """
        self._transport = transport
        self._url = url
        self._key = key
        self._clock = clock
        self._throttle = throttle
        self._say = say
        self._unanswered_tries = TRIES if patient else BRIEF_TRIES

    def get(
        self,
        pace: str,
        path: str,
        query: dict[str, Any] | None = None,
        *,
        gone_is_empty: bool = False,
    ) -> Mapping[str, Any]:
        """Send a GET, until it is answered or the tries are used up; `pace` names its interval."""
        return self._repeatedly(
            pace,
            f"GET {path}",
            lambda: self._transport.get(path, query),
            gone_is_empty=gone_is_empty,
        )

    def pages(self, pace: str, path: str, query: dict[str, Any], key: str) -> Iterator[Json]:
        """All rows of a list that comes in pages, each as an answer's `key` has it.

        Raises:
            ApiFailed: if a page has no rows, or the list has more than `MOST_PAGES`.
        """
        endpoint = f"GET {path}"
        after: dict[str, Any] = {}
        for _ in range(MOST_PAGES):
            answer = self.get(pace, path, {**query, **after})
            yield from rows_in(answer, key, endpoint)
            token = next_token(answer)
            if not token:
                return
            after = {"after_token": token}
        raise ApiFailed(self.failed(endpoint, "has no end"))

    def post(
        self, pace: str, path: str, body: dict[str, Any], *, may_exist: bool = False
    ) -> Mapping[str, Any]:
        """Send a POST that is safe to repeat; with `may_exist`, an existing object is no error."""
        return self._repeatedly(
            pace,
            f"POST {path}",
            lambda: self._transport.post(path, json_data=body),
            may_exist=may_exist,
        )

    def put(
        self, pace: str, path: str, body: dict[str, Any], *, may_be_queued: bool = False
    ) -> Mapping[str, Any]:
        """Send a PUT that is safe to repeat; with `may_be_queued`, a queue is no refusal."""
        return self._repeatedly(
            pace,
            f"PUT {path}",
            lambda: self._transport.put(path, json_data=body),
            may_be_queued=may_be_queued,
        )

    def delete(self, pace: str, path: str) -> None:
        """Send a DELETE; returns also when there is nothing to delete."""
        self._repeatedly(
            pace,
            f"DELETE {path}",
            lambda: self._transport.delete(path, json_data={}),
            gone_is_empty=True,
        )

    def put_once(self, pace: str, path: str, body: dict[str, Any]) -> requests.Response:
        """Send a PUT that is not safe to repeat, in its turn."""
        self._throttle.wait(pace)
        return self._transport.put(path, json_data=body)

    def until_let_in(self, once: Callable[[], int]) -> int:
        """Make a rent call, again only after a 429: then Vast has not looked at the order."""
        again = self._retrying(lambda error: isinstance(error, _Throttled) and _is_passing(error))
        return again(once)

    def read(self, response: requests.Response) -> Mapping[str, Any]:
        """Read the body as an object that holds the key nowhere."""
        return read_answer(response, self._key)

    def refuse_bad_key(
        self, endpoint: str, response: requests.Response, answer: Mapping[str, Any]
    ) -> None:
        """Raise if the key is unknown or lacks a permission.

        Raises:
            PermissionMissing, KeyRefused: with what Vast says and what to do.
        """
        refused = answer.get("error") == "auth_error" or response.status_code in {401, 403}
        if refused and lacks_permission(answer):
            raise PermissionMissing(
                f"the API key is right and lacks a permission that {endpoint} needs "
                f"({response.status_code}: {reason(answer)}): give it {PERMISSIONS} at Vast, or "
                "use a key that has them; nothing was rented, changed or forgotten by this call"
            )
        if refused or "Invalid user key" in reason(answer):
            raise KeyRefused(
                f"Vast.ai does not accept the API key at {endpoint} ({response.status_code}: "
                f"{reason(answer)}); check VAST_API_KEY or run `vastai set api-key <key>`; "
                "nothing was rented, changed or forgotten by this call"
            )

    def failed(self, endpoint: str, what: str) -> str:
        """Describe an endpoint's answer and its consequence."""
        return (
            f"Vast.ai's API at {self._url} {what} ({endpoint}); "
            "what is already rented stays as it is; try again later"
        )

    def too_many(
        self, endpoint: str, response: requests.Response, answer: Mapping[str, Any]
    ) -> _Throttled:
        """Make the error of a 429. Where the key's shared calls are used up, all endpoints wait."""
        error = _Throttled(self._limited(endpoint, answer), response, answer)
        if "remaining" in answer or "X-RateLimit-Remaining" in response.headers:
            left = SHARED_SECONDS if error.retry_after is None else error.retry_after
            self._throttle.hold(min(left, LONGEST_PAUSE))
        return error

    def _repeatedly(
        self,
        pace: str,
        endpoint: str,
        send: Callable[[], requests.Response],
        *,
        gone_is_empty: bool = False,
        may_be_queued: bool = False,
        may_exist: bool = False,
    ) -> Mapping[str, Any]:
        """Make a call that is safe to repeat, until it is answered or the tries are used up."""

        def once() -> Mapping[str, Any]:
            self._throttle.wait(pace)
            try:
                response = send()
            except requests.RequestException as error:
                raise self._unreachable(endpoint, error) from None
            return self._checked(
                endpoint,
                response,
                gone_is_empty=gone_is_empty,
                may_be_queued=may_be_queued,
                may_exist=may_exist,
            )

        return self._retrying(_is_passing)(once)

    def _retrying(self, again: Callable[[BaseException], bool]) -> tenacity.Retrying:
        def announce(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            cause = str(error).partition(";")[0]
            self._say(f"vast: {cause}; trying again in {state.upcoming_sleep:g} s")

        return tenacity.Retrying(
            stop=self._is_enough,
            wait=_pause,
            sleep=self._clock.sleep,
            retry=tenacity.retry_if_exception(again),
            before_sleep=announce,
            reraise=True,
        )

    def _is_enough(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        most = self._unanswered_tries if isinstance(error, _NoAnswer) else TRIES
        return state.attempt_number >= most

    def _checked(
        self,
        endpoint: str,
        response: requests.Response,
        *,
        gone_is_empty: bool,
        may_be_queued: bool = False,
        may_exist: bool = False,
    ) -> Mapping[str, Any]:
        """Return the body of a good answer; raise what a bad one means."""
        answer = self.read(response)
        self.refuse_bad_key(endpoint, response, answer)
        status = response.status_code
        if status == 404 and gone_is_empty and says_gone(answer):  # noqa: PLR2004  (HTTP)
            return {}
        if status == 422 and may_exist and answer.get("scheduled_job_id"):  # noqa: PLR2004  (HTTP)
            return answer
        if status == 429:  # noqa: PLR2004  (HTTP: too many requests)
            raise self.too_many(endpoint, response, answer)
        if status >= 500:  # noqa: PLR2004  (HTTP's server errors)
            raise _Passing(self.failed(endpoint, f"answered {status}"))
        if status == 410:  # noqa: PLR2004  (HTTP: gone)
            raise ApiFailed(
                self.failed(endpoint, "is withdrawn (410): this release speaks an older API")
            )
        if not response.ok:
            said = f"answered {status}{error_code(answer)}: {reason(answer)}"
            raise ApiFailed(self.failed(endpoint, said))
        if answer.get("success") is False and not (may_be_queued and says_queued(answer)):
            raise ApiFailed(self.failed(endpoint, f"refused{error_code(answer)}: {reason(answer)}"))
        if not answer:
            raise _Passing(self.failed(endpoint, "gave no JSON"))
        return answer

    def _unreachable(self, endpoint: str, error: requests.RequestException) -> Exception:
        how = "did not answer in time" if isinstance(error, requests.Timeout) else "is unreachable"
        return _NoAnswer(
            f"Vast.ai's API at {self._url} {how} ({endpoint}, {type(error).__name__}); "
            "check the network and VAST_URL; what is already rented stays as it is"
        )

    def _limited(self, endpoint: str, answer: Mapping[str, Any]) -> str:
        if answer.get("error") == "search_quota_exceeded":
            return (
                f"the daily search quota of this Vast.ai key is used up ({endpoint}); "
                "it is filled again at midnight UTC"
            )
        return (
            f"Vast.ai limits the calls of this key ({endpoint}: 429); another program uses the "
            "same key; try again in a minute"
        )


class _Passing(ApiFailed):
    """A failure that the next try may not see."""


class _NoAnswer(ApiUnreachable):
    """No answer to one try."""


class _Throttled(RateLimited):
    """A 429, with the seconds after which the server allows the next call."""

    def __init__(
        self, message: str, response: requests.Response, answer: Mapping[str, Any]
    ) -> None:
        super().__init__(message)
        self.final = answer.get("error") == "search_quota_exceeded"
        self.retry_after = first_seconds(
            response.headers.get("Retry-After"), answer.get("retry_after")
        )


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, _Throttled):
        return not error.final
    return isinstance(error, _Passing | _NoAnswer)


def _pause(state: tenacity.RetryCallState) -> float:
    """Wait as long as the server says, else 2, 4, 8, 16, 20 seconds."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Throttled) and error.retry_after is not None:
        return min(error.retry_after, LONGEST_PAUSE)
    return float(min(2.0**state.attempt_number, 20.0))
