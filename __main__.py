"""A private OpenAI-compatible endpoint on rented GPUs: settings in, outputs out."""

from pathlib import Path

import pulumi

from components.core.commands import as_typed_here
from components.core.errors import ConfigurationError
from components.core.interruption import leave_quietly
from components.model_endpoint import ModelEndpoint
from components.settings_loader import load

leave_quietly()
try:
    settings = load(pulumi.Config())
except ConfigurationError as error:
    raise pulumi.RunError(as_typed_here(str(error))) from None

endpoint = ModelEndpoint("endpoint", settings)

pulumi.export("endpoint_url", endpoint.endpoint_url)
pulumi.export("api_key", endpoint.api_key)
pulumi.export("ca_certificate", endpoint.ca_certificate)
if settings.client_certificates:
    pulumi.export("client_certificate", endpoint.client_certificate)
if endpoint.metrics_key:
    pulumi.export("metrics_key", endpoint.metrics_key)
pulumi.export("model", endpoint.server.model)
pulumi.export("instance_id", endpoint.instance.instance_id)
pulumi.export("hourly_cost", endpoint.hourly_cost)
pulumi.export("ssh_command", endpoint.ssh_command)
pulumi.export("known_hosts", endpoint.known_hosts)
pulumi.export("ssh_private_key", endpoint.ssh_private_key)
if endpoint.router:
    pulumi.export("replicas", endpoint.replicas)
    pulumi.export("router", endpoint.router)
pulumi.export("release", endpoint.release)
pulumi.export("report", endpoint.report)
pulumi.export("readme", Path("Pulumi.README.md").read_text())
