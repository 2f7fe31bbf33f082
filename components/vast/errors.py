"""What renting can run into, by whose fault it is.

ConfigurationError
├── NoCredential        no API key to be found, or none that can be read and sent
├── NoSharedFolder      no place for what processes of one computer share
├── MarketUrlRefused    `VAST_URL` leads elsewhere than over TLS or to this computer
├── PaceRefused         an emulator's pace is asked for where the market is none
├── KeyRefused          Vast does not know the key, or it may not do this
│   └── PermissionMissing    it knows the key, which lacks a permission
├── WrongAccount        the key is good, and of another account than the one that rented
├── LabelTaken          a new stack's label is on contracts that no state here knows
├── QueryRefused        the offer query cannot be read
├── NoOffer             nothing on the market matches, or nothing under the cap
├── NoCredit            the account cannot pay for it
├── RentRefused         Vast refuses the order itself (arguments, price)
├── MarketEndRefused    the market does not take, or does not show, the end that it was given
├── CannotAdopt         a machine rented by hand is not what the stack would rent
├── ImageRefused        the image does not exist or may not be pulled
└── NobodyVouches       no machine could be proven to be the one that was rented
HostError
├── OfferTaken          somebody else was faster
├── TermsDiffer         the contract costs more, or is of another kind, than what was ordered
├── BootFailed          the machine did not become a running, reachable container
├── BudgetSpent         it was still starting when time or money for all tries was used up
├── machine.errors.HostUnfit    it runs, but it is not what was rented
└── HostKeyUnproven     the market's log does not name the SSH host key that was shown
    └── HostKeyDiffers  it names others: another machine answers
PlatformError
├── RateLimited         too many calls, even after waiting
├── ApiUnreachable      no answer
├── ApiFailed           an answer that is no answer (5xx, not JSON, withdrawn)
├── ReplyLost           a rent whose outcome is unknown
├── ContractParked      a rent that was refused and left a contract, which is billed
├── LeftRunning         a contract that is kept, though this process can no longer see it
├── RentedElsewhere     another process of this computer still rents for the same resource
├── NoCandidateLeft     every try failed on its host, or the budget for tries is used up
├── StillOutbid         an interruptible machine that waits for its GPUs, taken by others
└── StillBilled         a contract that would not go away; it costs money now
"""

from __future__ import annotations

from components.core.errors import ConfigurationError, HostError, PlatformError, StackError


class NoCredential(ConfigurationError):
    """No API key that can be sent, in `VAST_API_KEY` or in the official client's key file."""


class NoSharedFolder(ConfigurationError):
    """The folder for what processes of one computer share cannot be used."""


class MarketUrlRefused(ConfigurationError):
    """`VAST_URL` would have the key sent in clear, or to a place that is not plain to see."""


class PaceRefused(ConfigurationError):
    """`VAST_PACE` is no pace, or asks the real market for calls that it would refuse."""


class KeyRefused(ConfigurationError):
    """Vast answers that it does not know the key (404 or 401) or that it may not do this (403)."""


class PermissionMissing(KeyRefused):
    """The key is right, and may not do this: nothing is wrong with what was typed."""


class WrongAccount(ConfigurationError):
    """The key opens another account: what is not there may be alive on the one that rented it."""


class LabelTaken(ConfigurationError):
    """Contracts carry the label of a stack that is only being made: another state's, or lost."""


class QueryRefused(ConfigurationError):
    """The offer query does not parse, or asks for what offers do not have or nobody could check."""


class NoOffer(ConfigurationError):
    """No offer matches the query, the floors and the price cap together."""


class NoCredit(ConfigurationError):
    """The account's credit does not cover the order."""


class RentRefused(ConfigurationError):
    """Vast refuses the order for what it says, not for the machine."""


class ImageRefused(ConfigurationError):
    """The registry refuses the image: another host would be refused as well."""


class OfferTaken(HostError):
    """The offer is gone: `no_such_ask`, in any of its shapes."""


class CannotAdopt(ConfigurationError):
    """A machine rented by hand is not what the stack would rent, or does not work."""


class TermsDiffer(HostError):
    """The contract, read back, is dearer than the cap or of another kind than ordered."""


class BootFailed(HostError):
    """The container did not come to run in time, or came to an end."""


class BudgetSpent(HostError):
    """Time or money for all tries together ended while this one was under way."""


class HostKeyUnproven(HostError):
    """Nobody vouches for the SSH host key that was shown at first contact, and it is needed."""


class HostKeyDiffers(HostKeyUnproven):
    """The machine that answers is not the one that was rented: it shows another host key."""


class NobodyVouches(ConfigurationError):
    """Machine after machine could not be proven: it is the network from here, or the market."""


class RateLimited(PlatformError):
    """429 that waiting did not cure, or the daily search quota."""


class ApiUnreachable(PlatformError):
    """No connection or no answer in time."""


class ApiFailed(PlatformError):
    """5xx, a withdrawn endpoint, or a body that is not what the endpoint promises."""


class ReplyLost(PlatformError):
    """The rent call ended without an answer: a contract may exist."""


class ContractParked(PlatformError):
    """Vast refused a rent call and made a contract: it is stopped, and its disk is billed."""

    def __init__(self, message: str, instance_id: int, refusal: StackError) -> None:
        """Name the contract; `refusal` is what the call would have come to without it."""
        super().__init__(message)
        self.instance_id = instance_id
        self.refusal = refusal


class LeftRunning(PlatformError):
    """A machine that is kept, since only the view of it was lost; the next `up` adopts it."""


class RentedElsewhere(PlatformError):
    """Another process of this computer holds the resource for longer than it should."""


class NoCandidateLeft(PlatformError):
    """All tries, or their time or money, were spent on hosts that failed."""


class MarketEndRefused(ConfigurationError):
    """The market does not take, or does not show, the end of a machine that it was given."""


class StillOutbid(PlatformError):
    """Others have the GPUs of an interruptible machine, and it is kept: only its disk is billed."""


class StillBilled(PlatformError):
    """A contract that outlived its destroy calls."""
