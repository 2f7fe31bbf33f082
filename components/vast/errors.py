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
    """No Vast.ai API key was found, or the key cannot be sent.

    The key is missing, its file cannot be read, or it has characters that no HTTP header takes.

    Cost: nothing; Vast was not asked.
    Remedy: run `vastai set api-key <key>`, or export `VAST_API_KEY`.
    """


class NoSharedFolder(ConfigurationError):
    """The folder that processes of one computer share cannot be used.

    Processes keep Vast's rate limits together through files in this folder.

    Cost: nothing.
    Remedy: make the folder yours, make room on its disk, or set `XDG_CACHE_HOME` to another
        one.
    """


class MarketUrlRefused(ConfigurationError):
    """`VAST_URL` would send the key in clear, or to an unclear place.

    It must be https, or http on this computer.

    Cost: nothing; nothing was sent.
    Remedy: unset `VAST_URL`, or correct it.
    """


class PaceRefused(ConfigurationError):
    """`VAST_PACE` is no pace, or the market is not on this computer.

    The real market would refuse calls that come faster than its own limits.

    Cost: nothing.
    Remedy: unset `VAST_PACE`.
    """


class KeyRefused(ConfigurationError):
    """Vast does not accept the API key.

    Vast answers that it does not know the key (404 or 401), or that the key may not do this
    (403).

    Cost: nothing was rented or changed by this call; what is rented is billed on.
    Remedy: check `VAST_API_KEY`, or run `vastai set api-key <key>`.
    """


class PermissionMissing(KeyRefused):
    """The API key is right and lacks a permission.

    Vast knows the key and refuses this one call.

    Cost: nothing was rented or changed by this call; what is rented is billed on.
    Remedy: give the key the permissions that the message names, or use another key.
    """


class WrongAccount(ConfigurationError):
    """The API key opens another account than the one that rented.

    What this account does not show may be alive on the other one, so nothing is concluded from
    it.

    Cost: nothing was changed; what the other account rented is billed on.
    Remedy: set `VAST_API_KEY` to a key of the account that the message names.
    """


class LabelTaken(ConfigurationError):
    """A new stack has the name of a stack that is billed already.

    Contracts carry its label, and no state here knows them. They belong to another backend, or
    their state is lost.

    Cost: nothing new; the contracts that the message names are billed on.
    Remedy: use another stack name, the other backend, or end these contracts first.
    """


class QueryRefused(ConfigurationError):
    """The offer query cannot be read, or asks for what no offer has.

    Cost: nothing; the market was not asked.
    Remedy: correct `offerQuery`; the message shows an example.
    """


class NoOffer(ConfigurationError):
    """No offer matches the query, the limits and the price cap together.

    Cost: nothing was rented.
    Remedy: raise `maxDollarsPerHour`, loosen what the message names, or try again later.
    """


class NoCredit(ConfigurationError):
    """The account's credit does not cover the order.

    Cost: nothing was rented.
    Remedy: add credit on Vast's billing page.
    """


class RentRefused(ConfigurationError):
    """Vast refuses the order itself, not the machine.

    An argument or the price is wrong, so another machine would be refused as well.

    Cost: nothing was rented.
    Remedy: correct the setting that the message names.
    """


class ImageRefused(ConfigurationError):
    """The registry refuses the image.

    It does not exist or may not be pulled, so another host would be refused as well.

    Cost: the minutes until the pull failed; the machine is given back.
    Remedy: correct `image`, or make the image public.
    """


class OfferTaken(HostError):
    """Somebody else rented the offer first.

    Cost: nothing was rented by this call.
    Remedy: nothing: the next offer is tried.
    """


class CannotAdopt(ConfigurationError):
    """A machine that was rented by hand is not what the stack would rent.

    It may also not work, or not exist on this account.

    Cost: the machine is billed as before, and not ended.
    Remedy: correct the settings or `adopt`, or take `adopt` out to rent a machine.
    """


class TermsDiffer(HostError):
    """The contract costs more, or is of another kind, than ordered.

    The contract was read back after the rental.

    Cost: the seconds until it was read back; it is given back.
    Remedy: nothing: the next offer is tried.
    """


class BootFailed(HostError):
    """The machine did not become a running, reachable container.

    It took too long, came to an end, or its ports cannot be reached from here.

    Cost: the minutes until then; the machine is given back.
    Remedy: nothing: the next machine is tried. If all fail, raise `bootMinutes`, or choose
        hosts with faster links.
    """


class BudgetSpent(HostError):
    """Time or money for all tries ended while a machine was starting.

    Cost: at most `rentBudgetDollars`; the machine is given back.
    Remedy: raise `rentBudgetMinutes` or `rentBudgetDollars`, or choose other machines by
        `offerQuery`.
    """


class HostKeyUnproven(HostError):
    """The market's log does not vouch for the SSH host key that was shown.

    `firstContact` is `verified`, or the model needs the Hub token, so the proof is needed.

    Cost: the minutes until then; the machine is given back.
    Remedy: nothing: the next machine is tried. If all fail, see NobodyVouches.
    """


class HostKeyDiffers(HostKeyUnproven):
    """Another machine answers than the one that was rented.

    It shows an SSH host key that the market's log does not name. Nothing secret was sent to it.

    Cost: the minutes until then; the machine is given back.
    Remedy: nothing: the next machine is tried. If all fail, use another network.
    """


class NobodyVouches(ConfigurationError):
    """Several machines could not be proven to be those that were rented.

    So the cause is the network from here, or a market without logs; no further machine is
    tried.

    Cost: the minutes of these machines; all were given back.
    Remedy: run `pulumi up` later or from another network, or set `firstContact` to `trust`.
    """


class RateLimited(PlatformError):
    """Vast has refused the calls as too many, even after waiting.

    It may also be the daily quota of searches.

    Cost: what is rented is billed on.
    Remedy: wait, and use fewer programs with the same key.
    """


class ApiUnreachable(PlatformError):
    """Vast gave no answer in time, or no connection came about.

    Cost: what is rented is billed on.
    Remedy: check the network, then run the command again.
    """


class ApiFailed(PlatformError):
    """Vast's answer cannot be used.

    It was a server error, a withdrawn endpoint, or not what the endpoint promises.

    Cost: what is rented is billed on.
    Remedy: run the command again later.
    """


class ReplyLost(PlatformError):
    """The rent call ended without an answer, so a contract may exist.

    Its label is known, and the project looks for it.

    Cost: a contract may be billed.
    Remedy: run `pulumi up` to adopt it, or `pulumi destroy` to end it.
    """


class ContractParked(PlatformError):
    """Vast refused a rent call and made a contract all the same.

    The contract is stopped. The project destroys it and reads that back.

    Cost: its disk, for the seconds until it is destroyed.
    Remedy: nothing, unless the message says that the contract is still billed.
    """

    def __init__(self, message: str, instance_id: int, refusal: StackError) -> None:
        """Name the contract; `refusal` is the error of the call without the contract."""
        super().__init__(message)
        self.instance_id = instance_id
        self.refusal = refusal


class LeftRunning(PlatformError):
    """A machine is kept, though this process lost sight of it.

    Cost: the machine is billed on, at the price in the message.
    Remedy: run `pulumi up` to go on with it, or `pulumi destroy` to end it.
    """


class RentedElsewhere(PlatformError):
    """Another process of this computer rents for the same resource.

    Cost: nothing was rented by this process.
    Remedy: wait for the other process, or end it, and run `pulumi up` again.
    """


class NoCandidateLeft(PlatformError):
    """Every machine that was tried failed, or the budget for tries is used up.

    The message lists the tries.

    Cost: the tries together; all machines were given back.
    Remedy: run `pulumi up` again, raise the budget, or choose other machines by `offerQuery`.
    """


class MarketEndRefused(ConfigurationError):
    """The market does not take, or does not show, the machine's end.

    This concerns `marketEnd` alone. `timeToLiveHours` still ends the machine, if the host does not
    prevent it.

    Cost: the machine is billed on, or given back if it was rented just now.
    Remedy: run `pulumi up` again, or set `marketEnd` to false.
    """


class StillOutbid(PlatformError):
    """Others have the GPUs of an interruptible machine, and it is kept.

    Cost: its disk alone.
    Remedy: run `pulumi up` later, set `whenOutbid` to another value, or run `pulumi destroy`.
    """


class StillBilled(PlatformError):
    """A contract outlived its destroy calls.

    Vast was asked to destroy the contract, and does not show that it is gone.

    Cost: the contract is billed until it is gone, at the price in the message.
    Remedy: run `pulumi destroy` again, or `vastai destroy instance <id> -y`.
    """
