"""A stand-in for the plugin `pulumi-resource-command`, where the official one is not there.

It speaks Pulumi's provider protocol and has one resource, `command:local:Command`, with the
behaviour of the official plugin's 1.2: what it lacks (`assetPaths`, `archivePaths`, the
remote resources, functions) it refuses in words. `toolchain/set_up.py` installs it.
"""
