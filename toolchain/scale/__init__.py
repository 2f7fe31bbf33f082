"""The loop that changes how many replicas run, within a floor, a ceiling and a budget."""
