"""How many replicas run, where a loop decides it: knows neither cloud nor engine nor Pulumi."""
