"""What serving a model can run into, by whose fault it is.

ConfigurationError
├── ProfileError            a model's profile, or an override of it, cannot be used
├── DoesNotFit              the model does not fit these GPUs at this context length
├── OptionRefused           an option that vLLM does not know, or that the stack sets itself
├── TokenHeldBack           the model needs the Hub token, which its machine does not get
└── ServerMisconfigured     } vLLM ended, and its log says why; all three are ServerFailed
HostError                   }
└── ServerHostFailed        }
    └── OtherWeights        the host has, by its own words, others than the Hub
PlatformError               }
└── ServerPlatformFailed    }

StackError
└── ServerFailed            one of the three above
    ├── ChangeFailed        a change that did not come up, and what became of the server
    └── RolloutStopped      a change that another server of the endpoint holds up
"""

from __future__ import annotations

from components.core.errors import ConfigurationError, HostError, PlatformError, StackError


class ProfileError(ConfigurationError):
    """A model profile cannot be used.

    It does not exist, cannot be parsed, or says something that cannot be.

    Cost: nothing was rented.
    Remedy: correct the file in `models/`, or choose one that the message lists.
    """


class DoesNotFit(ConfigurationError):
    """The model does not fit these GPUs at this context length.

    Not one sequence of that length fits beside the weights.

    Cost: nothing was rented.
    Remedy: lower `maxModelLen`, or choose GPUs with more memory.
    """


class OptionRefused(ConfigurationError):
    """A vLLM option is unknown, has a wrong value, or is not yours to set.

    The message names the setting or file that has the option.

    Cost: nothing was rented or restarted.
    Remedy: correct `vllmOverrides` or the profile.
    """


class TokenHeldBack(ConfigurationError):
    """The model needs the Hub token, and nobody vouches for the machine.

    The token is sent to no machine that could not be proven.

    Cost: the machine is billed on.
    Remedy: replace the machine, or choose a model that everybody may download.
    """


class ServerFailed(StackError):
    """The server, or the download before it, ended with a cause in its log.

    The message has the cause and says whether settings, machine or a service is at fault.

    Cost: the machine is billed on.
    Remedy: do what the message says.
    """


class ServerMisconfigured(ServerFailed, ConfigurationError):
    """The server would end the same way on every host.

    Cost: the machine is billed on, and stays for the next try.
    Remedy: correct what the message names, then run `pulumi up` again.
    """


class ServerHostFailed(ServerFailed, HostError):
    """The server failed, and this machine is the cause.

    The machine is marked on the account.

    Cost: the machine is billed until the next `pulumi up` replaces it.
    Remedy: run `pulumi up` again, or `pulumi destroy`.
    """


class OtherWeights(ServerHostFailed):
    """The host has other weights than those that it had to fetch.

    The host itself reports the difference. It is not trusted any more, and is marked.

    Cost: the machine is billed until the next `pulumi up` replaces it.
    Remedy: run `pulumi up` again, or `pulumi destroy`.
    """

    cause = "other_weights"


class ServerPlatformFailed(ServerFailed, PlatformError):
    """The server failed, and the Hub, the network or vLLM is the cause.

    Cost: the machine is billed on, and keeps what it has downloaded.
    Remedy: run `pulumi up` again later.
    """


class ChangeFailed(ServerFailed):
    """A changed server did not come up.

    The previous settings were put back, and the message says what serves now.

    Cost: the machine is billed on.
    Remedy: correct the change, then run `pulumi up` again.
    """


class RolloutStopped(ServerFailed):
    """A replica was not changed, because another replica is away or failed with this change.

    Replicas change one at a time, so that the others serve meanwhile.

    Cost: all machines are billed on.
    Remedy: correct the change, then run `pulumi up` again.
    """
