"""Sources of traces: corpus, explore, campaign, machine."""
