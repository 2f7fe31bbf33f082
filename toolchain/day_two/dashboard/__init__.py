"""What a Prometheus and a Grafana need to watch a stack: targets, rules, panels, an exporter."""
