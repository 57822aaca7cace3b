"""The search for a mixture's ratios: small runs, a model of them, a proposal that is verified."""
