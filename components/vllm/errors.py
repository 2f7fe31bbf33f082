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
    └── ChangeFailed        a change that did not come up, and what became of the server
"""

from __future__ import annotations

from components.core.errors import ConfigurationError, HostError, PlatformError, StackError


class ProfileError(ConfigurationError):
    """A profile that does not exist, does not parse, or says something that cannot be."""


class DoesNotFit(ConfigurationError):
    """Not one sequence of the context length fits beside the weights."""


class OptionRefused(ConfigurationError):
    """A vLLM option with an unknown name, a wrong value, or one that is not the user's to set."""


class TokenHeldBack(ConfigurationError):
    """Nobody vouches for the machine, and the model cannot be fetched there without the token."""


class ServerFailed(StackError):
    """The server, or the download before it, ended with a cause that its log names."""


class ServerMisconfigured(ServerFailed, ConfigurationError):
    """It would end the same way on every host."""


class ServerHostFailed(ServerFailed, HostError):
    """This machine is the cause."""


class OtherWeights(ServerHostFailed):
    """By its own words the host has other weights than it was told to fetch."""

    cause = "other_weights"


class ServerPlatformFailed(ServerFailed, PlatformError):
    """The Hub, the network, or vLLM itself is the cause."""


class ChangeFailed(ServerFailed):
    """A changed server did not come up; the text says what serves now."""
