"""A field report: what was recorded on the real market, without anything that is somebody's."""
