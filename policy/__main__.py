"""The policy pack: `pulumi preview --policy-pack policy` holds a stack to the rules of production.

The rules stand in `components/release/production_rules.py`.
"""

import sys
from pathlib import Path

from pulumi_policy import EnforcementLevel, PolicyPack

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from components.release.policy_pack import policies

PolicyPack("vast-vllm", policies(), enforcement_level=EnforcementLevel.MANDATORY)
